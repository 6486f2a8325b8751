import Control
import Fuzzing
import Replication

/// The control socket, from both ends: requests as `jsrd` reads them, replies and events as the library and
/// `jsrctl` do.
///
/// An input is one message.
@main
struct ControlMessages {
  /// What is cut when it is written, so that every message stays within its limit.
  private static let textLimit = 1024

  static func main() {
    fuzz { input in
      let bytes = [UInt8](input)
      readRequest(bytes)
      readAnswer(bytes)
      if let text = String(validating: bytes, as: UTF8.self), let handle = Handle(text) {
        precondition(Handle(handle.description) == handle, "\(handle) is not read as it is written")
      }
    }
  }

  private static func readRequest(_ bytes: [UInt8]) {
    do throws(ControlRequest.Unreadable) {
      let request = try ControlRequest(reading: bytes)
      precondition((0...ControlProtocol.descriptorLimit).contains(request.descriptorCount))
      do {
        let again = try ControlRequest(reading: request.message())
        precondition(again == request, "a request is not read as it is written")
      } catch {
        preconditionFailure("a request cannot be read again: \(error)")
      }
    } catch {
      precondition(!error.error.message.isEmpty, "a refusal without a word")
      checkPages(ControlReply(id: error.id, outcome: .failure(error.error)))
    }
  }

  private static func readAnswer(_ bytes: [UInt8]) {
    do throws(ControlError) {
      switch try EngineMessage(reading: bytes) {
      case .reply(let reply):
        if case .success(let body) = reply.outcome {
          _ = body.text
          _ = try body.document()
        }
        checkPages(reply)
      case .event(let event):
        precondition(!event.description.isEmpty)
        guard bytes.count <= textLimit else { return }
        guard case .event(let again) = try EngineMessage(reading: event.message()) else {
          preconditionFailure("an event becomes a reply")
        }
        precondition(again == event, "an event is not read as it is written")
      }
    } catch {
      precondition(!error.message.isEmpty, "a refusal without a word")
    }
  }

  /// Written in as many messages as it takes and joined again, a reply is what it was.
  private static func checkPages(_ reply: ControlReply) {
    var pages = ReplyPages(reply)
    var whole: ControlReply?
    while let message = pages.next() {
      precondition(message.count <= ControlProtocol.messageLimit, "a message of \(message.count) bytes")
      do throws(ControlError) {
        guard case .reply(let part) = try EngineMessage(reading: message) else {
          preconditionFailure("a reply becomes an event")
        }
        if whole == nil { whole = part } else { try whole?.append(part) }
      } catch {
        preconditionFailure("a reply cannot be read again: \(error)")
      }
    }
    guard let whole else { preconditionFailure("a reply without a message") }
    precondition(whole.id == reply.id && !(whole.more && !reply.more))
    switch (whole.outcome, reply.outcome) {
    case (.success(let read), .success(let written)):
      precondition(read == written, "a reply is not read as it is written")
    case (.failure(let read), .failure(let written)):
      precondition(read.code == written.code)
      precondition(written.message.utf8.count > textLimit || read.message == written.message)
    default: preconditionFailure("a reply becomes a refusal, or the other way round")
    }
  }
}
