import EngineConfiguration
import Fuzzing
import Packet

/// The configuration file: whatever stands in it, either all of it is understood and within its bounds, or the
/// error is one line that names the place.
///
/// An input is one file; or a byte that begins no text, from 0x80 to 0xbf, which chooses a key of a file that is
/// right, and what is to be the value of that key.
@main
struct ConfigurationText {
  private static let values: [(before: String, value: String)] = [
    ("node: ", "re0"), ("\nslot: ", "0"), ("\nlink:\n  listen: ", "10.77.0.1:7000"),
    ("\n  connect: ", "10.77.0.2:7000"), ("\n  tls:\n    certificate: ", "re0.pem"),
    ("\n    key: ", "re0.key"),
    ("\n    ca: ", "ca.pem"), ("\n    name: ", "re0"), ("\n    peer: ", "re1"),
    ("\naddresses: ", "[ 5.5.5.5/24 ]"),
    ("\nuplinks: ", "[ eth0 ]"), ("\nmastership:\n  arbiter: ", "pair"), ("\n  priority: ", "100"),
    ("\n  keepalive:\n    interval: ", "100ms"), ("\n    misses: ", "3"),
    ("\ncontrol: ", "/run/jsr/jsrd.sock"),
    ("\nmode: ", "overlap"), ("\ntimeouts:\n  prl: ", "1s"), ("\n  sdrl: ", "500ms"), ("\n  psrm: ", "1m"),
    ("\nlimits:\n  sockets: ", "20000"), ("\n  snoop-buffer: ", "4MiB"), ("\n  hold-buffer: ", "64MiB"),
    ("\n  record: ", "131072B"), ("\nlog:\n  level: ", "debug"), ("\n  destination: ", "stderr"),
    ("\ndebug: ", "true"),
  ]

  static func main() {
    fuzz { bytes in
      guard let text = file(bytes) else { return }
      do throws(ConfigurationError) {
        check(try Configuration(yaml: text, file: "jsrd.yaml"))
      } catch {
        check(error, lineCount: 2 + text.count(where: \.isNewline))
      }
    }
  }

  private static func file(_ bytes: UnsafeRawBufferPointer) -> String? {
    guard let first = bytes.first, (0x80...0xbf).contains(first) else {
      return String(validating: bytes, as: UTF8.self)
    }
    guard let chosen = String(validating: bytes.dropFirst(), as: UTF8.self) else { return nil }
    return values.enumerated().reduce(into: "") { text, entry in
      text += entry.element.before
      text += entry.offset == Int(first - 0x80) % values.count ? chosen : entry.element.value
    }
  }

  private static func check(_ error: ConfigurationError, lineCount: Int) {
    precondition(!error.message.isEmpty)
    precondition(error.description.hasPrefix("jsrd.yaml"), "no file is named")
    precondition(!error.description.contains(where: \.isNewline), "the error is not one line")
    if let line = error.line {
      precondition((1...lineCount).contains(line), "line \(line) of \(lineCount)")
    }
    // Without a key the text as a whole is no configuration: then it is YAML that is at fault, or empty.
    if error.key != nil { precondition(error.line != nil, "no line is named: \(error)") }
  }

  private static func check(_ configuration: Configuration) {
    precondition((1...64).contains(configuration.node.utf8.count) && configuration.slot <= 1)
    precondition(configuration.link.listen != configuration.link.connect)
    if case .tls(let tls) = configuration.link.security {
      precondition(
        tls.name != tls.peer && ![tls.certificate, tls.key, tls.ca, tls.name, tls.peer].contains(""))
    }
    precondition(!configuration.addresses.isEmpty && configuration.uplinks.count == 1)
    precondition(configuration.uplinks.allSatisfy { (1...15).contains($0.utf8.count) })
    for address in configuration.addresses {
      precondition((1...address.address.byteCount * 8).contains(address.prefixLength))
    }
    let keepalive = configuration.mastership.keepalive
    precondition(
      (0...255).contains(configuration.mastership.priority) && (2...100).contains(keepalive.misses))
    let timeouts = [configuration.timeouts.prl, configuration.timeouts.sdrl, configuration.timeouts.psrm]
    precondition(
      (timeouts + [keepalive.interval]).allSatisfy { $0 >= .milliseconds(10) && $0 <= .seconds(60) })
    let limits = configuration.limits
    precondition(limits.sockets >= 1 && limits.record >= 128 << 10 && limits.holdBuffer >= 1 << 20)
    precondition(configuration.control.hasPrefix("/") && configuration.control.utf8.count <= 107)
  }
}
