public import CJSR
import Descriptors
import Glibc
import JSR

// The events of jsr.h, which says what each function does.

@c @implementation
public func jsr_event_descriptor(_ session: OpaquePointer!) -> Int32 {
  number { () throws(CFailure) in
    let session = try require(session)
    do throws(SystemError) { return try session.eventDescriptor() } catch { throw CFailure(error) }
  }
}

@c @implementation
public func jsr_next_event(
  _ session: OpaquePointer!, _ event: UnsafeMutablePointer<jsr_event>!, _ size: Int
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let place = try require(event, "event")
    try requireSize(size, atLeast: jsr_event.firstSize)
    switch session.session.nextEvent() {
    case .event(let event):
      try copy(jsr_event(event), to: place, size: size, first: jsr_event.firstSize)
    case .nothingYet: throw CFailure(EAGAIN, "there is no event")
    case .ended: throw CFailure(ENOTCONN, "there are no more events: the session has ended")
    }
  }
}

extension jsr_event {
  /// Bytes of the structure in version 0.1.
  static let firstSize = 256

  init(_ event: Event) {
    self.init()
    var about: Handle?
    var text = ""
    var of = ""
    let kind: jsr_event_type
    switch event {
    case .replicated(let handle): (kind, about) = (JSR_EVENT_REPLICATED, handle)
    case .unreplicated(let handle, let why): (kind, about, text) = (JSR_EVENT_UNREPLICATED, handle, why)
    case .secondaryUp: kind = JSR_EVENT_SECONDARY_UP
    case .secondaryDown: kind = JSR_EVENT_SECONDARY_DOWN
    case .mastershipGained: kind = JSR_EVENT_MASTERSHIP_GAINED
    case .mastershipLost: kind = JSR_EVENT_MASTERSHIP_LOST
    case .peerClosed(let handle): (kind, about) = (JSR_EVENT_PEER_CLOSED, handle)
    case .serviceAvailable(let name): (kind, of) = (JSR_EVENT_SERVICE_AVAILABLE, name)
    case .serviceUnavailable(let name): (kind, of) = (JSR_EVENT_SERVICE_UNAVAILABLE, name)
    case .replicationRequested(let request):
      (kind, about, of) = (JSR_EVENT_REPLICATION_REQUESTED, request.primary, request.service)
      `protocol` = UInt32(request.transport.rawValue)
      withUnsafeMutableBytes(of: &local) { store(request.local, in: $0) }
      withUnsafeMutableBytes(of: &remote) { store(request.foreign, in: $0) }
      withUnsafeMutableBytes(of: &note) { place in
        let count = min(request.note.count, place.count)
        place.copyBytes(from: request.note.prefix(count))
        note_size = UInt32(count)
      }
    case .requestWithdrawn(let name, let primary):
      (kind, about, of) = (JSR_EVENT_REQUEST_WITHDRAWN, primary, name)
    case .missed(let number):
      kind = JSR_EVENT_MISSED
      count = UInt64(number)
    case .engineGone: kind = JSR_EVENT_ENGINE_GONE
    }
    type = kind.rawValue
    handle = about?.rawValue ?? 0
    withUnsafeMutableBytes(of: &reason) { store(text, in: $0) }
    withUnsafeMutableBytes(of: &service) { store(of, in: $0) }
  }
}
