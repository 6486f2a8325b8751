/// Where a handle stands in its life.
public enum SocketState: String, Sendable, Hashable, Codable, CaseIterable {
  /// Allocated, no socket yet.
  case allocated
  /// The handshake is under way; the socket is neither readable nor writable.
  case starting
  /// A socket of the primary, replicated.
  case replicating
  /// A snoop pair of the secondary.
  case snooping
  /// Replication has ended; the handle waits to be freed or closed.
  case unreplicated
  /// A snoop pair that has become a live socket.
  case merged
  /// Closed by the application, its last bytes and FIN still under way.
  case closing
}
