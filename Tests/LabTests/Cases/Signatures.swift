import CLinux
import Descriptors
import Glibc
import JSR
import Packet
import Testing

extension LabSuite {
  /// RFC 2385: connections whose segments are signed (TCP_MD5SIG). The peer's kernel ignores whatever is not.
  @Suite("signed connections")
  struct Signatures {
    private static let key = "not much of a secret"

    @Test("go on, signed, when the primary is lost", .timeLimit(.minutes(1)))
    func primaryLost() async throws {
      try await Lab.run("signed") { lab in
        let pair = try await EnginePair(in: lab, servers: ["--quiet", "--md5", Self.key])
        // Every stack concerned puts the signature first: two bytes that align, kind and length.
        let unsigned = try await Capture(
          "unsigned", in: lab, port: .peer,
          filter: "tcp port 16000 and (tcp[20:4] != 0x01011312 or (ip6 and ip6[60:4] != 0x01011312))")
        let traffic = try await WatchedTraffic(
          pair, ["-m", "0", "-l", "20000", "-w", "1", "--quiet", "--md5", Self.key])
        try await traffic.waitUntilFlowing(100_000)
        try await pair.re0.lose()
        try await pair.re1.waitUntilPrimary(merged: 5)
        try await traffic.waitUntilFlowing(100_000)
        let summary = try await traffic.stop(living: [pair.re1])
        #expect(summary.echoedByRe0 > 0)
        #expect(summary.echoedByRe1 > 0)
        // The kernel alone would resend after three seconds more.
        #expect(summary.longestGapMs < 3000)
        print("signed: the longest gap a peer saw was \(summary.longestGapMs) ms")
        #expect(try await pair.re1.figures()["engine.segments_resent"] ?? 0 >= 5)
        #expect(try await unsigned.finish().isEmpty)
        // Nothing came either from somebody who had no key, such as a kernel that knows of no connection.
        for line in try await lab.run(["nstat", "-asz", "TcpExtTCPMD5*"], on: .peer)
        where line.hasPrefix("Tcp") {
          let words = line.split(separator: " ")
          #expect(words.count == 3 && words[1] == "0", "\(line)")
        }
      }
    }

    @Test(
      "take nothing in that the peer has not signed, and are merged with their key only",
      .timeLimit(.minutes(1)), arguments: Family.allCases)
    func forgery(_ family: Family) async throws {
      try await Lab.run("signed-forgery-\(family)") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let key = Array(Self.key.utf8)
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10, signingKey: key)
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, family: family, signingKey: key)
        let accepted = try await listening.accept().release()
        let name = try await primary.allocate()
        let (handle, rcvNumber, _) = try await secondary.attach(primary: name).release()
        let rcv = try StreamEnd(Socket(owning: rcvNumber))
        guard
          case .replicating(let socket) = await primary.replicate(accepted, primary: name, secondary: handle)
        else { throw LabFailure("replication was refused") }
        let server = try StreamEnd(socket)
        try await peer.write([1, 2, 3])
        #expect(try await server.read(3) == [1, 2, 3])

        let connection = try #require(try await pair.re0.connections().first)
        try await Self.forge(connection, in: lab)
        try await eventually(within: .seconds(5), "the forgery is noticed") {
          try await pair.re0.figures()["engine.wrong_signatures"] == 2
        }
        try await peer.write([4, 5])
        #expect(try await server.read(2) == [4, 5])
        #expect(try await rcv.read(5) == [1, 2, 3, 4, 5])

        // The peer's end of its direction comes to the new socket as a segment too.
        try peer.endWriting()
        try await rcv.readEnd()
        try await pair.re1.requestMaster("acquire")
        try await pair.re1.waitUntilPrimary()
        let wrongKeys: [([UInt8]?, RefusalCode)] = [
          (nil, .signingKey), ([], .invalidValue), ([UInt8](repeating: 7, count: 81), .invalidValue),
        ]
        for (wrong, expected) in wrongKeys {
          do throws(JSRError) {
            _ = try await secondary.merge(handle, signingKey: wrong).descriptor
            Issue.record("merged with the key \(wrong ?? [])")
          } catch {
            guard case .refused(expected, _) = error else {
              Issue.record("\(error)")
              continue
            }
          }
        }
        let live = try StreamEnd(try await secondary.merge(handle, signingKey: key))
        _ = consume server
        try await live.readEnd()
        try await live.write([6])
        #expect(try await peer.read(1) == [6])
      }
    }

    /// Sends the next bytes of the peer with a signature of another key, and without one.
    private static func forge(_ connection: ConnectionReport, in lab: Lab) async throws {
      let family = Family(ofEnd: connection.local)
      guard let port = connection.foreign.split(separator: ":").last.flatMap({ UInt16($0) }),
        let peer = IPAddress(family.peer), let local = IPAddress(family.replicated)
      else { throw LabFailure("strange connection: \(connection)") }
      try await lab.inside(.peer) {
        let socket = try OwnedDescriptor(
          returnedBy: "socket",
          Glibc.socket(
            family.number, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(IPPROTO_RAW)))
        for key in [Array("another".utf8), nil] {
          let builder = TCPFrameBuilder(
            sourceMAC: .zero, destinationMAC: .zero, source: Endpoint(peer, port),
            destination: Endpoint(local, ListeningSocket.port), signingKey: key)
          let frame = [UInt8]([9, 9]).withUnsafeBytes {
            builder.frame(
              sequence: SequenceNumber(connection.rcvNxt), acknowledgment: SequenceNumber(connection.sndNxt),
              flags: [.ack, .psh], window: 500, timestamps: nil, payload: $0)
          }
          let count = try frame.dropFirst(Ethernet.headerByteCount).withUnsafeBytes { packet in
            try family.withAddress(family.replicated, 0) { address, length in
              sendto(socket.rawValue, packet.baseAddress, packet.count, 0, address, length)
            }
          }
          guard count > 0 else { throw SystemError("sendto") }
        }
      }
    }
  }
}
