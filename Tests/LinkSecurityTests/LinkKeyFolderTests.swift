import EngineConfiguration
import Foundation
import Glibc
import LinkKeys
import Testing

@testable import Engine

@Suite("A folder of keys", .timeLimit(.minutes(1)))
struct LinkKeyFolderTests {
  /// A folder that is not there yet.
  private final class Place: Sendable {
    let path = "/tmp/jsr-link-keys-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func text(_ name: String) throws -> String {
      try String(contentsOfFile: path + "/" + name, encoding: .utf8)
    }

    func mode(_ name: String) throws -> Int {
      let attributes = try FileManager.default.attributesOfItem(atPath: path + "/" + name)
      return attributes[.posixPermissions] as? Int ?? 0
    }

    func credentials(_ name: String, peer: String) throws -> LinkCredentials {
      try LinkCredentials(
        Configuration.LinkTLS(
          certificate: "\(path)/\(name).pem", key: "\(path)/\(name).key", ca: "\(path)/ca.pem", name: name,
          peer: peer),
        now: time(nil))
    }
  }

  @Test("is made with keys that only their owner may read, and that the engine takes")
  func make() throws {
    let place = Place()
    try LinkKeyFolder(path: place.path, names: ["left", "right.example.net"]).make(days: 100)
    #expect(
      Set(try FileManager.default.contentsOfDirectory(atPath: place.path)) == [
        "ca.pem", "ca.key", "left.pem", "left.key", "right.example.net.pem", "right.example.net.key",
      ])
    for name in ["ca.key", "left.key", "right.example.net.key"] { #expect(try place.mode(name) == 0o600) }
    #expect(try place.mode("ca.pem") & 0o444 != 0 && place.mode("") == 0o700)
    for (own, other) in [("left", "right.example.net"), ("right.example.net", "left")] {
      let credentials = try place.credentials(own, peer: other)
      #expect(credentials.warnings.isEmpty)
      #expect(abs(credentials.certificateEnd - time(nil) - 100 * 86_400) < 60)
      #expect(abs(credentials.authorityEnd - time(nil) - 7300 * 86_400) < 60)
    }
  }

  @Test(
    "overwrites nothing, and leaves nothing that it could not finish",
    arguments: ["ca.key", "re0.pem", "re1.key"])
  func inTheWay(_ name: String) throws {
    let place = Place()
    mkdir(place.path, 0o700)
    try "mine".write(toFile: place.path + "/" + name, atomically: false, encoding: .utf8)
    let failure = try #require(throws: LinkKeyFolder.Failure.self) {
      try LinkKeyFolder(path: place.path, names: ["re0", "re1"]).make(days: 1)
    }
    #expect(failure.description.hasPrefix("\(place.path)/\(name) is there already"))
    #expect(try FileManager.default.contentsOfDirectory(atPath: place.path) == [name])
    #expect(try place.text(name) == "mine")
  }

  @Test("does not write through a link")
  func symbolicLink() throws {
    let place = Place()
    mkdir(place.path, 0o700)
    symlink(place.path + "/elsewhere", place.path + "/re1.pem")
    #expect(throws: LinkKeyFolder.Failure.self) {
      try LinkKeyFolder(path: place.path, names: ["re0", "re1"]).make(days: 1)
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: place.path) == ["re1.pem"])
  }

  @Test("is renewed by the same authority, not beyond its end")
  func renew() throws {
    let place = Place()
    let folder = try LinkKeyFolder(path: place.path, names: ["re0", "re1"])
    try folder.make(days: 10)
    let (authority, key) = (try place.text("ca.pem"), try place.text("re0.key"))
    let end = try folder.renew(days: 100)
    #expect(try place.text("ca.pem") == authority && place.text("re0.key") != key)
    #expect(try place.mode("re0.key") == 0o600)
    for (own, other) in [("re0", "re1"), ("re1", "re0")] {
      let written = try place.credentials(own, peer: other).certificateEnd
      #expect(abs(written - time_t(end.timeIntervalSince1970)) <= 1)
    }
    #expect(try folder.renew(days: 30_000).timeIntervalSinceNow < 7301 * 86_400)
    #expect(try FileManager.default.contentsOfDirectory(atPath: place.path).count == 6)

    // Without the authority's key nothing is touched.
    let last = try place.text("re0.key")
    unlink(place.path + "/ca.key")
    let failure = try #require(throws: LinkKeyFolder.Failure.self) { try folder.renew(days: 1) }
    #expect(failure.description == "cannot open \(place.path)/ca.key: No such file or directory")
    try Data(try place.text("re1.key").utf8).write(to: URL(fileURLWithPath: place.path + "/ca.key"))
    #expect(throws: LinkKeyFolder.Failure.self) { try folder.renew(days: 1) }
    #expect(try place.text("re0.key") == last)
  }

  @Test(
    "is not made for names that are none, or not two",
    arguments: [
      [], ["re0"], ["re0", "re0"], ["re0", "RE0"], ["a", "b", "c"], ["", "re1"], ["../x", "re1"],
      ["ca", "re1"], ["re_0", "re1"],
    ])
  func names(_ names: [String]) {
    #expect(throws: LinkKeyFolder.Failure.self) { try LinkKeyFolder(path: "/nonexistent", names: names) }
  }
}
