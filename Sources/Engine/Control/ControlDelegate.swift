public import Control

/// Who does what clients of the control socket ask for. Called on the server's event loop only.
public protocol ControlDelegate: AnyObject {
  /// A client that has said hello asks for something; also its `hello` itself comes here, to be answered with
  /// `welcome`. `subscribe` does not: the server does that itself.
  ///
  /// - Parameters:
  ///   - descriptors: exactly as many as the request takes (`ControlRequest.descriptorCount`).
  ///   - reply: to be used once, now or later. Letting it go unused is a refusal.
  func control(
    _ request: ControlRequest.Body, descriptors: consuming DescriptorParcel, from client: ClientID,
    reply: ReplyPort)

  /// Several things may have been asked for in a row; there is nothing more for now. What has to be done for all of them
  /// can be done now, at once.
  func controlBatchEnded()

  /// A client that had said hello is gone. What is answered to it from now on is dropped.
  func clientGone(_ client: ClientID)
}
