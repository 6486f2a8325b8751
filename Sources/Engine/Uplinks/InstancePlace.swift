import LinuxNetworking

/// Where a routing instance is: in the network namespace that the engine was started in, or in another one.
struct InstancePlace {
  /// `nil` for the engine's own.
  let namespace: NetworkNamespace?

  /// Does something there: whatever makes a socket, or names an interface.
  func inside<Result: ~Copyable, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    guard let namespace else { return try body() }
    return try namespace.visit(body)
  }
}
