public import FoundationEssentials
import Glibc

/// A folder with the keys of one pair: `ca.pem` and `ca.key`, and for each routing engine `NAME.pem` and
/// `NAME.key`.
public struct LinkKeyFolder: Sendable {
  public let path: String
  /// Of the two routing engines, that of slot 0 first.
  public let names: [String]

  /// How long certificates of routing engines are valid unless something else is asked for, in days.
  public static let defaultDays = 730
  /// How long an authority is valid at least, in days.
  static let authorityDays = 7300
  /// Clocks of the two routing engines need not agree.
  private static let tolerance: TimeInterval = 86_400

  /// What keeps keys from being made or renewed.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  /// - Throws: ``Failure`` if these are not two DNS names that can be told apart.
  public init(path: String, names: [String]) throws(Failure) {
    guard names.count == 2, names[0].lowercased() != names[1].lowercased(), names.allSatisfy(Self.isName)
    else {
      throw Failure(
        description: "there must be two different DNS names, that of slot 0 first, such as re0,re1, not "
          + names.joined(separator: ","))
    }
    guard !names.contains(where: { $0.lowercased() == "ca" }) else {
      throw Failure(
        description: "no routing engine can be called ca, which is the name of the authority's files")
    }
    self.path = path
    self.names = names
  }

  /// RFC 1123, section 2.1.
  private static func isName(_ name: String) -> Bool {
    name.utf8.count <= 64
      && name.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
        (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
          && label.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }
      }
  }

  private func file(_ name: String) -> String { path + "/" + name }

  // MARK: Making

  /// Makes the folder if it is not there, an authority, and a key and a certificate for each routing engine.
  ///
  /// - Throws: ``Failure``; of the files nothing is left then. None is ever overwritten.
  public func make(days: Int, now: Date = Date()) throws(Failure) {
    let all = ["ca.pem", "ca.key"] + names.flatMap { ["\($0).pem", "\($0).key"] }
    if mkdir(path, 0o700) != 0, errno != EEXIST { throw failed("make", path) }
    for name in all where access(file(name), F_OK) == 0 {
      throw Failure(
        description:
          "\(file(name)) is there already: renew it (jsrctl link-keys renew), or take another folder")
    }
    var written: [String] = []
    do {
      let authority = try LinkAuthority(
        validFrom: now - Self.tolerance, to: Self.end(now, days: max(days, Self.authorityDays)))
      func write(_ text: String, _ name: String) throws(Failure) {
        try Self.write(text, to: file(name))
        written.append(name)
      }
      for name in names {
        let identity = try authority.issue(
          to: name, validFrom: now - Self.tolerance, to: Self.end(now, days: days))
        try write(identity.key, "\(name).key")
        try write(identity.certificate, "\(name).pem")
      }
      try write(authority.keyPEM, "ca.key")
      try write(authority.certificatePEM, "ca.pem")
    } catch {
      for name in written { unlink(file(name)) }
      throw error as? Failure ?? Failure(description: "\(error)")
    }
  }

  /// Makes a new key and a new certificate for each routing engine, from the authority that is in the folder,
  /// in place of those that are.
  ///
  /// - Returns: when the new certificates end: after `days` days, but not later than the authority.
  public func renew(days: Int, now: Date = Date()) throws(Failure) -> Date {
    let certificate = try Self.read(file("ca.pem"))
    let key = try Self.read(file("ca.key"))
    do {
      let authority = try LinkAuthority(certificatePEM: certificate, keyPEM: key)
      guard authority.end > now else {
        throw Failure(description: "\(file("ca.pem")) has expired: make new keys in another folder")
      }
      let end = min(Self.end(now, days: days), authority.end)
      let identities = try names.map { try authority.issue(to: $0, validFrom: now - Self.tolerance, to: end) }
      for (name, identity) in zip(names, identities) {
        try Self.replace(file("\(name).key"), with: identity.key)
        try Self.replace(file("\(name).pem"), with: identity.certificate)
      }
      return end
    } catch {
      throw error as? Failure ?? Failure(description: "\(file("ca.pem")), \(file("ca.key")): \(error)")
    }
  }

  private static func end(_ now: Date, days: Int) -> Date { now + TimeInterval(days) * 86_400 }

  // MARK: Files

  private static func mode(of path: String) -> mode_t { path.hasSuffix(".key") ? 0o600 : 0o644 }

  private static func write(_ text: String, to path: String, mode: mode_t? = nil) throws(Failure) {
    // Not through a link that somebody has put there, and never for others to read, also not for a moment.
    let descriptor = open(
      path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode ?? Self.mode(of: path))
    guard descriptor >= 0 else { throw failed("make", path) }
    defer { close(descriptor) }
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      guard count > 0 else {
        let failure = failed("write", path)
        unlink(path)
        throw failure
      }
      bytes = bytes.dropFirst(count)
    }
    fsync(descriptor)
  }

  /// Whoever reads the file gets the old text or the new one.
  private static func replace(_ path: String, with text: String) throws(Failure) {
    let new = path + ".new"
    unlink(new)
    try write(text, to: new, mode: mode(of: path))
    guard rename(new, path) == 0 else { throw failed("replace", path) }
  }

  private static func read(_ path: String) throws(Failure) -> String {
    guard let file = fopen(path, "re") else { throw failed("open", path) }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&bytes, 1, bytes.count, file)
    guard ferror(file) == 0 else { throw failed("read", path) }
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }

  private static func failed(_ verb: String, _ path: String) -> Failure {
    Failure(description: "cannot \(verb) \(path): \(String(cString: strerror(errno)))")
  }

  private func failed(_ verb: String, _ path: String) -> Failure { Self.failed(verb, path) }
}
