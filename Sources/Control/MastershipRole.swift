/// The part that a routing engine plays.
public enum MastershipRole: String, Sendable, Hashable, Codable, CaseIterable {
  /// Holds mastership of the replicated addresses.
  case primary
  /// Stands by, connected to a primary.
  case secondary
  /// Neither: mastership is not settled, or was released.
  case none
}
