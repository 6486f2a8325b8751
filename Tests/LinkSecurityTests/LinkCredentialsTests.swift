import EngineConfiguration
import Foundation
import Glibc
import LinkKeys
import Testing

@testable import Engine

@Suite("The files of the link", .timeLimit(.minutes(1)))
struct LinkCredentialsTests {
  /// What is wrong with them, and what is said of it.
  struct Mistake: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let key: String
    let file: String
    let says: String
    let make: @Sendable (KeyFiles) throws -> Void

    init(
      _ name: String, _ key: String, _ file: String, _ says: String,
      _ make: @escaping @Sendable (KeyFiles) throws -> Void
    ) {
      testDescription = name
      self.key = key
      self.file = file
      self.says = says
      self.make = make
    }
  }

  static let mistakes: [Mistake] = [
    Mistake("no certificate", "certificate", "re0.pem", "cannot be opened: No such file or directory") {
      unlink($0.path("re0.pem"))
    },
    Mistake("no key", "key", "re0.key", "cannot be opened: No such file or directory") {
      unlink($0.path("re0.key"))
    },
    Mistake("no authority", "ca", "ca.pem", "cannot be opened: No such file or directory") {
      unlink($0.path("ca.pem"))
    },
    Mistake("a folder", "ca", "ca.pem", "is not a file") {
      unlink($0.path("ca.pem"))
      mkdir($0.path("ca.pem"), 0o700)
    },
    Mistake("a pipe that nobody writes to", "key", "re0.key", "is not a file") {
      unlink($0.path("re0.key"))
      mkfifo($0.path("re0.key"), 0o600)
    },
    Mistake("a huge file", "certificate", "re0.pem", "is longer than 1 MiB") {
      truncate($0.path("re0.pem"), 2 << 20)
    },
    Mistake("a text for a certificate", "certificate", "re0.pem", "holds no certificate in PEM") {
      try $0.write("certificate", "re0.pem")
    },
    Mistake("half a certificate", "certificate", "re0.pem", "holds no certificate in PEM") {
      try $0.write(
        String(try String(contentsOfFile: $0.path("re0.pem"), encoding: .utf8).prefix(300)), "re0.pem")
    },
    Mistake("the certificate for a key", "key", "re0.key", "holds no private key in PEM") {
      try $0.write(try String(contentsOfFile: $0.path("re0.pem"), encoding: .utf8), "re0.key")
    },
    Mistake("an empty authority", "ca", "ca.pem", "holds no certificate in PEM") {
      try $0.write("", "ca.pem")
    },
    Mistake("another's key", "key", "re0.key", "does not belong to the certificate in") {
      try $0.write(try String(contentsOfFile: $0.path("re1.key"), encoding: .utf8), "re0.key")
    },
    Mistake(
      "another's name", "certificate", "re0.pem", "is for re1, not for re0, the name of this routing engine"
    ) {
      try $0.issue("re0", to: "re1")
    },
    Mistake("a name for all", "certificate", "re0.pem", "not for re0") { try $0.issue("re0", to: "*") },
    Mistake("expired", "certificate", "re0.pem", "has expired, at 20") {
      try $0.issue("re0", to: "re0", days: -9 ... -1)
    },
    Mistake("not yet valid", "certificate", "re0.pem", "is not valid before 20") {
      try $0.issue("re0", to: "re0", days: 1...9)
    },
    Mistake("an expired authority", "ca", "ca.pem", "has expired, at 20") {
      let old = try LinkAuthority(validFrom: Date() - 9 * KeyFiles.day, to: Date() - KeyFiles.day)
      try $0.write(old.certificatePEM, "ca.pem")
      try $0.issue("re0", to: "re0", by: old)
    },
    Mistake("another authority", "certificate", "re0.pem", "is not accepted by whoever trusts") {
      try $0.issue("re0", to: "re0", by: KeyFiles.authority())
    },
  ]

  @Test("are refused, with key, file and reason:", arguments: mistakes)
  func mistake(_ mistake: Mistake) throws {
    let keys = try KeyFiles()
    try mistake.make(keys)
    let error = try #require(throws: LinkCredentialsError.self) { try keys.credentials(slot: 0) }
    #expect(error.key == "link.tls.\(mistake.key)")
    #expect(error.file == keys.path(mistake.file))
    #expect(error.problem.contains(mistake.says), "\(error)")
    #expect(!"\(error)".contains("\n") && EngineError.linkCredentials(error).exitStatus == EX_CONFIG)
  }

  @Test("are good with an old and a new authority, and a key that others may read is warned of")
  func good() throws {
    let keys = try KeyFiles()
    #expect(try keys.credentials(slot: 1).warnings.isEmpty)
    let other = try KeyFiles.authority()
    try keys.write(other.certificatePEM + keys.authority.certificatePEM, "ca.pem")
    chmod(keys.path("re0.key"), 0o644)
    let credentials = try keys.credentials(slot: 0)
    #expect(credentials.peer == "re1")
    #expect(
      credentials.warnings.count == 1
        && credentials.warnings[0].contains("\(keys.path("re0.key")): others may read it"))
  }

  @Test("are warned of 30 days before they end")
  func expiry() throws {
    let keys = try KeyFiles()
    try keys.issue("re0", to: "re0", days: -1...40)
    let credentials = try keys.credentials(slot: 0)
    let now = time(nil)
    #expect(credentials.expiryWarnings(now: now).isEmpty)
    #expect(credentials.expiryWarnings(now: now + 9 * 86_400).isEmpty)
    let soon = credentials.expiryWarnings(now: now + 10 * 86_400 + 43_200)
    #expect(
      soon.count == 1 && soon[0].contains("link.tls.certificate") && soon[0].contains("in 29 days"), "\(soon)"
    )
    let late = credentials.expiryWarnings(now: now + 41 * 86_400)
    #expect(late.count == 1 && late[0].contains("has expired"), "\(late)")
    #expect(credentials.expiryWarnings(now: now + 4000 * 86_400).count == 2)
    #expect(UTC.text(0) == "1970-01-01T00:00:00Z" && UTC.text(4_102_444_799) == "2099-12-31T23:59:59Z")
  }
}
