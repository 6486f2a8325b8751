/// One connection to the control socket. Never used again while the engine runs.
public struct ClientID: Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue }

  public var description: String { "client \(rawValue)" }
}
