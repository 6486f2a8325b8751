public import Control
import NIOCore

/// Where the answer to one request goes, once. For the server's event loop only.
public final class ReplyPort {
  private weak var server: ControlServer?
  private let client: ClientID
  private let id: UInt64
  private var isUsed = false

  init(server: ControlServer, client: ClientID, id: UInt64) {
    self.server = server
    self.client = client
    self.id = id
  }

  deinit {
    // A forgotten request would leave the client waiting for ever.
    if !isUsed { refuse(.ending, "the engine dropped the request") }
  }

  /// Answers the request.
  ///
  /// - Parameter descriptors: go to the client with the answer and are closed here.
  public func send(
    _ body: ControlReply.Body, descriptors: consuming DescriptorParcel = DescriptorParcel()
  ) {
    answer(.success(body), descriptors: descriptors)
  }

  /// Refuses the request.
  ///
  /// - Parameter message: one line for people that says what to do.
  public func refuse(_ code: RefusalCode, _ message: String) {
    answer(.failure(ControlError(code, message)), descriptors: DescriptorParcel())
  }

  private func answer(
    _ outcome: Result<ControlReply.Body, ControlError>, descriptors: consuming DescriptorParcel
  ) {
    precondition(!isUsed, "a request is answered once")
    isUsed = true
    server?.answer(ControlReply(id: id, outcome: outcome), descriptors: descriptors, to: client)
  }
}
