import Control

/// The part that this routing engine plays.
public typealias Role = MastershipRole
