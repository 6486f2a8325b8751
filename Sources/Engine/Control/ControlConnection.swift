import Control
import DequeModule
import Descriptors

/// What the server keeps for one client. For the server's event loop only.
final class ControlConnection {
  /// One reply or event that waits to be sent.
  final class Outgoing {
    private var pages: ReplyPages?
    /// The message to be sent next; made when its turn comes.
    private var message: [UInt8]?
    private var descriptors: DescriptorParcel
    let isEvent: Bool

    init(_ reply: ControlReply, descriptors: consuming DescriptorParcel) {
      pages = ReplyPages(reply)
      self.descriptors = descriptors
      isEvent = false
    }

    init(event message: [UInt8]) {
      self.message = message
      descriptors = DescriptorParcel()
      isEvent = true
    }

    /// Sends the next message of it; the descriptors go with the first.
    ///
    /// - Returns: whether there was one left.
    func sendNext(to socket: borrowing ControlSocket) throws(ControlSocketError) -> Bool {
      if message == nil { message = pages?.next() }
      guard let message else { return false }
      let result = descriptors.withNumbers { numbers -> Result<Void, ControlSocketError> in
        do throws(ControlSocketError) {
          return .success(try socket.send(message, descriptors: numbers, waiting: false))
        } catch {
          return .failure(error)
        }
      }
      try result.get()
      self.message = nil
      descriptors = DescriptorParcel()
      return true
    }
  }

  let id: ClientID
  let socket: ControlSocket
  var description: ClientDescription
  /// It has said hello and was handed to the delegate.
  var isIntroduced = false
  /// Whose events it wants; `nil` for none.
  var subscription: ControlRequest.SubscriptionScope?
  /// What it was not told for want of room, since it was last told that.
  var missedEvents = 0
  /// Requests handed to the delegate and not yet answered.
  var unanswered = 0
  /// Sending has failed; nothing is sent any more, and the hang-up is going to be noticed.
  var isBroken = false
  /// What it has asked for was dealt with in this turn of the event loop.
  var isAttended = false
  /// The loop is going to go on sending by itself.
  var isSendingLater = false

  private var outgoing: Deque<Outgoing> = []
  private(set) var queuedEvents = 0

  init(id: ClientID, socket: consuming ControlSocket, description: ClientDescription) {
    self.id = id
    self.socket = socket
    self.description = description
  }

  var hasOutgoing: Bool { !outgoing.isEmpty }

  var firstOutgoing: Outgoing? { outgoing.first }

  func append(_ item: Outgoing) {
    outgoing.append(item)
    if item.isEvent { queuedEvents += 1 }
  }

  func removeFirstOutgoing() {
    if outgoing.removeFirst().isEvent { queuedEvents -= 1 }
  }

  /// Gives up on sending.
  func breakOff() {
    isBroken = true
    outgoing = []
    queuedEvents = 0
    missedEvents = 0
    socket.shutdown()
  }
}
