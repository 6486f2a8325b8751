/// What the engine has counted since it started, beside what the protocol and the uplinks count.
struct EngineCounters {
  /// Frames that were neither TCP nor UDP: chatter of the TAP device itself.
  var framesIgnored: UInt64 = 0
  /// Frames that the kernel did not take; they are lost, as on any network.
  var framesRefused: UInt64 = 0
  /// Fragments that contradicted others, or whose packet did not become whole.
  var fragmentsDropped: UInt64 = 0
  /// Segments resent at a merge.
  var segmentsResent: UInt64 = 0
  /// Time that merges took in this process, all together, in nanoseconds.
  var mergeNanoseconds: UInt64 = 0
  /// Of that, to rebuild the sockets of connections in the kernel.
  var restoreNanoseconds: UInt64 = 0
  /// Segments of signed connections that the peer cannot have signed.
  var wrongSignatures: UInt64 = 0
  var probesSent: UInt64 = 0
  var leasesLost: UInt64 = 0
}
