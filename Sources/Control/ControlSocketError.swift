public import Descriptors

/// Why nothing was sent or received on a control socket.
public enum ControlSocketError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The call would have to wait.
  case wouldBlock
  /// The other end is gone.
  case ended
  /// A message was longer than `ControlProtocol.messageLimit`. It was thrown away with its descriptors, and the
  /// next one can be received.
  case oversized
  /// A message came with more than `ControlProtocol.descriptorLimit` descriptors. All of them are closed, and the
  /// next message can be received; `message` is what they came with, so that it can be answered.
  case tooManyDescriptors(message: [UInt8])
  case system(SystemError)

  public var description: String {
    switch self {
    case .wouldBlock: "the control socket is not ready"
    case .ended: "the control socket was closed by the other end"
    case .oversized: "the message is longer than \(ControlProtocol.messageLimit) bytes"
    case .tooManyDescriptors: "more than \(ControlProtocol.descriptorLimit) descriptors came with the message"
    case .system(let error): error.description
    }
  }
}
