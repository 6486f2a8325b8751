/// What became of a socket that was given to `Session.replicate`: it comes back either way.
@frozen
public enum ReplicationOutcome: ~Copyable, Sendable {
  /// The handshake is over and the socket is replicated.
  case replicating(Socket)
  /// The engine refused, or went away; the socket is an ordinary one as before.
  case refused(Socket, JSRError)
}
