/// One message as it came from the control socket.
public struct ControlMessage: ~Copyable, Sendable {
  /// The JSON document, not yet looked at.
  public let bytes: [UInt8]
  public private(set) var descriptors: DescriptorParcel

  /// Takes the descriptors out, leaving none behind.
  public mutating func takeDescriptors() -> DescriptorParcel {
    exchange(&descriptors, with: DescriptorParcel())
  }

  public init(bytes: [UInt8], descriptors: consuming DescriptorParcel) {
    self.bytes = bytes
    self.descriptors = descriptors
  }
}
