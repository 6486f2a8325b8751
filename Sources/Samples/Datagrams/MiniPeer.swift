import Descriptors
import Glibc

/// The peer of the mini tools: exchanges numbered datagrams with whoever sends it some, and knows nothing of
/// replication.
public struct MiniPeer {
  public struct Options: Sendable {
    /// The UDP port that is listened at.
    public var port: UInt16
    /// Between two datagrams to the same partner.
    public var pauseMilliseconds: UInt64 = 100
    /// No line for each datagram.
    public var isQuiet = false

    public init(port: UInt16) { self.port = port }
  }

  private struct Partner {
    var address: SocketAddress
    var numbers = NumberSequence()
    var sent: UInt64 = 0
    /// By the name in the datagrams: who has sent.
    var counts: [String: UInt64] = [:]
    var lastHeard: UInt64
    var longestGap: UInt64 = 0
  }

  private let options: Options
  private let say = LineOutput(descriptor: STDOUT_FILENO)
  /// In the order in which they were heard of first.
  private var partners: [Partner] = []
  private var strange: UInt64 = 0

  public init(_ options: Options) { self.options = options }

  /// Runs until SIGINT or SIGTERM, and sums up.
  ///
  /// - Returns: whether of every partner each number came once and in order, and there was a partner.
  public mutating func run() throws -> Bool {
    let signals = try AwaitedSignals(SIGINT, SIGTERM)
    let any = try SocketAddress(host: "::", port: options.port, isNumeric: true)
    let socket = try DatagramSocket(local: any)
    say("listening on UDP port \(options.port)")
    var due = MonotonicClock.nanoseconds
    while signals.take() == nil {
      say.flush()
      var entry = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
      _ = poll(&entry, 1, 5)
      receive(socket)
      if MonotonicClock.nanoseconds >= due {
        due += options.pauseMilliseconds * 1_000_000
        send(socket)
      }
    }
    sumUp()
    say.flush()
    return !partners.isEmpty && strange == 0
      && partners.allSatisfy { $0.numbers.repeated == 0 && $0.numbers.late == 0 && $0.numbers.lost == 0 }
  }

  private mutating func receive(_ socket: DatagramSocket) {
    while true {
      do throws(SystemError) {
        guard let (payload, source) = try socket.receive() else { return }
        receive(payload, source)
      } catch {
        // Of an ICMP message: nobody is there at the moment.
        say("\(error)")
        return
      }
    }
  }

  private mutating func receive(_ payload: [UInt8], _ source: SocketAddress) {
    guard let text = NumberedText(payload) else {
      strange += 1
      return say("STRANGE datagram of \(payload.count) bytes from \(source)")
    }
    let now = MonotonicClock.nanoseconds
    let place =
      partners.firstIndex { $0.address.description == source.description }
      ?? {
        partners.append(Partner(address: source, lastHeard: now))
        return partners.count - 1
      }()
    let remark = partners[place].numbers.note(text.number)
    partners[place].counts[text.sender, default: 0] += 1
    partners[place].longestGap = max(partners[place].longestGap, now - partners[place].lastHeard)
    partners[place].lastHeard = now
    if !options.isQuiet || !remark.isEmpty {
      say("\(source): \(text), \(payload.count) bytes\(remark)")
    }
  }

  private mutating func send(_ socket: DatagramSocket) {
    for place in partners.indices {
      let text = NumberedText(sender: "peer", number: partners[place].sent + 1)
      let error = socket.send(text.description, to: partners[place].address)
      if error == 0 {
        partners[place].sent += 1
      } else {
        say("sending to \(partners[place].address): \(String(cString: strerror(error)))")
      }
    }
  }

  private func sumUp() {
    for partner in partners {
      let senders = partner.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
      say(
        """
        partner \(partner.address): received \(partner.numbers.received) (\(senders.joined(separator: ", "))), \
        \(partner.numbers.summary), sent \(partner.sent), \
        longest gap \(partner.longestGap / 1_000_000) ms
        """)
    }
    if strange > 0 { say("strange datagrams: \(strange)") }
  }
}
