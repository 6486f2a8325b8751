import CLinux
import Glibc
import JSR
import Testing

extension LabSuite {
  /// DESIGN 4.4: the options of a socket are part of what is replicated when the handshake is made.
  @Suite("socket options")
  struct SocketOptions {
    private struct Setting {
      let title: String
      let level: Int32
      let name: Int32
      let value: Int32
      /// What getsockopt(2) says afterwards, if it is not the value itself.
      var read: Int32?
    }

    private static let tcp = Int32(IPPROTO_TCP)
    private static let ip = Int32(IPPROTO_IP)
    private static let ip6 = Int32(IPPROTO_IPV6)

    /// What is called otherwise for each version of IP.
    private static func settings(_ family: Family) -> [Setting] {
      switch family {
      case .v4:
        [
          Setting(title: "IP_TTL", level: ip, name: IP_TTL, value: 200),
          Setting(title: "IP_MINTTL", level: ip, name: IP_MINTTL, value: 32),
          Setting(title: "IP_TOS", level: ip, name: IP_TOS, value: 0xc0),
          Setting(title: "IP_MTU_DISCOVER", level: ip, name: IP_MTU_DISCOVER, value: IP_PMTUDISC_DO),
        ] + settings
      case .v6:
        [
          Setting(title: "IPV6_UNICAST_HOPS", level: ip6, name: IPV6_UNICAST_HOPS, value: 200),
          Setting(title: "IPV6_MINHOPCOUNT", level: ip6, name: JSR_IPV6_MINHOPCOUNT, value: 32),
          Setting(title: "IPV6_TCLASS", level: ip6, name: IPV6_TCLASS, value: 0xc0),
          Setting(title: "IPV6_MTU_DISCOVER", level: ip6, name: IPV6_MTU_DISCOVER, value: IPV6_PMTUDISC_DO),
        ] + settings
      }
    }

    /// None of the values is the default.
    private static let settings = [
      Setting(title: "TCP_NODELAY", level: tcp, name: TCP_NODELAY, value: 1),
      Setting(title: "SO_KEEPALIVE", level: SOL_SOCKET, name: SO_KEEPALIVE, value: 1),
      Setting(title: "TCP_KEEPIDLE", level: tcp, name: TCP_KEEPIDLE, value: 77),
      Setting(title: "TCP_KEEPINTVL", level: tcp, name: TCP_KEEPINTVL, value: 11),
      Setting(title: "TCP_KEEPCNT", level: tcp, name: TCP_KEEPCNT, value: 4),
      Setting(title: "TCP_USER_TIMEOUT", level: tcp, name: TCP_USER_TIMEOUT, value: 12_345),
      Setting(title: "TCP_NOTSENT_LOWAT", level: tcp, name: TCP_NOTSENT_LOWAT, value: 16_384),
      Setting(title: "TCP_LINGER2", level: tcp, name: TCP_LINGER2, value: 17),
      Setting(title: "SO_PRIORITY", level: SOL_SOCKET, name: SO_PRIORITY, value: 5),
      Setting(title: "SO_MARK", level: SOL_SOCKET, name: SO_MARK, value: 0x77),
      Setting(title: "SO_OOBINLINE", level: SOL_SOCKET, name: SO_OOBINLINE, value: 1),
      Setting(title: "SO_RCVLOWAT", level: SOL_SOCKET, name: SO_RCVLOWAT, value: 3),
      // The kernel doubles them, and sets the locks.
      Setting(title: "SO_SNDBUF", level: SOL_SOCKET, name: SO_SNDBUF, value: 50_000, read: 100_000),
      Setting(title: "SO_RCVBUF", level: SOL_SOCKET, name: SO_RCVBUF, value: 90_000, read: 180_000),
      Setting(title: "SO_BUF_LOCK", level: SOL_SOCKET, name: JSR_SO_BUF_LOCK, value: 3),
    ]

    private static func get(_ setting: Setting, of descriptor: Int32) -> Int32? {
      var value: Int32 = -1
      var length = socklen_t(MemoryLayout.size(ofValue: value))
      return getsockopt(descriptor, setting.level, setting.name, &value, &length) == 0 ? value : nil
    }

    private static func congestionControl(of descriptor: Int32) -> String {
      var name = [UInt8](repeating: 0, count: 16)
      var length = socklen_t(name.count)
      getsockopt(descriptor, tcp, TCP_CONGESTION, &name, &length)
      return String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
    }

    @Test(
      "are on the new primary what they were on the old one", .timeLimit(.minutes(1)),
      arguments: Family.allCases)
    func survive(_ family: Family) async throws {
      try await Lab.run("socket-options-\(family)") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let listening = try await ListeningSocket(on: .re0, in: lab, sendBuffer: 64 << 10)
        let peer = try await StreamEnd(
          connectedFrom: .peer, in: lab, receiveBuffer: 64 << 10, family: family)
        let server = try await listening.accept().release()
        for setting in Self.settings(family) where setting.name != JSR_SO_BUF_LOCK {
          var value = setting.value
          let result = setsockopt(server.descriptor, setting.level, setting.name, &value, 4)
          #expect(result == 0, "\(setting.title)")
        }
        let algorithm = Array("reno".utf8)
        #expect(setsockopt(server.descriptor, Self.tcp, TCP_CONGESTION, algorithm, 4) == 0)

        let name = try await primary.allocate()
        let snoop = try await secondary.attach(primary: name)
        let handle = snoop.handle
        let old: Socket
        switch await primary.replicate(server, primary: name, secondary: handle) {
        case .replicating(let socket): old = socket
        case .refused(_, let reason): throw LabFailure("replication was refused: \(reason)")
        }
        try await pair.re1.requestMaster("acquire")
        try await pair.re1.waitUntilPrimary()
        let merged = try await secondary.merge(handle)
        _ = consume old

        for setting in Self.settings(family) {
          #expect(
            Self.get(setting, of: merged.descriptor) == setting.read ?? setting.value, "\(setting.title)")
        }
        #expect(Self.congestionControl(of: merged.descriptor) == "reno")
        // The harness has made it so.
        #expect(fcntl(merged.descriptor, F_GETFL) & O_NONBLOCK != 0, "O_NONBLOCK")
        let live = try StreamEnd(merged)
        try await peer.write([1, 2, 3, 4])
        #expect(try await live.read(4) == [1, 2, 3, 4])
        try await live.write([5])
        #expect(try await peer.read(1) == [5])
      }
    }
  }
}
