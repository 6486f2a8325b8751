/// What `jsrpeer` was asked to do.
public struct TrafficPeerOptions: Sendable {
  /// What the server is asked to do with each message.
  public enum Kind: String, Sendable, CaseIterable {
    /// Send it back.
    case echo
    /// Read it, and answer with a header.
    case sink
    /// Send as many bytes as its header says.
    case source
  }

  /// The server's addresses or names; the connections go to them in turn.
  public var hosts: [String]
  public var port: UInt16 = 16000
  /// The local address to connect from, of the family of all `hosts`; `nil` leaves it to the kernel.
  public var sourceAddress: String?
  public var connections = 5
  /// Messages on each connection; 0 for no end.
  public var messages: UInt32 = 1
  /// Payload bytes of each message.
  public var length: UInt32 = 100
  /// Milliseconds between an answer and the next message.
  public var pauseMilliseconds: UInt64 = 0
  /// Messages on their way at once on each connection.
  public var pipeline = 1
  /// How often each connection is closed and made again when its messages are through.
  public var rounds: UInt64 = 1
  /// Seconds after which no more is sent; `nil` for no limit.
  public var duration: Double?
  public var kind = Kind.echo
  /// Close the sending direction after the last message, and expect the server to close behind its last
  /// answer.
  public var halfCloses = false
  /// What every segment is signed with (RFC 2385), 1 to 80 bytes; `nil` for unsigned connections.
  public var signingKey: [UInt8]?
  public var isVerbose = false
  /// No line for each message.
  public var isQuiet = false
  /// The summary as one line of JSON.
  public var printsJSON = false

  public init(hosts: [String]) { self.hosts = hosts }
}
