/// What has passed by one uplink since the engine started.
struct UplinkCounters {
  /// Frames read from the TAP device.
  var framesRead: UInt64 = 0
  /// Frames delivered to the kernel.
  var framesDelivered: UInt64 = 0
  /// Frames put on the uplink.
  var framesSent: UInt64 = 0

  static func + (one: Self, other: Self) -> Self {
    var sum = one
    sum.framesRead += other.framesRead
    sum.framesDelivered += other.framesDelivered
    sum.framesSent += other.framesSent
    return sum
  }
}
