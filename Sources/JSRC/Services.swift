public import CJSR
import Descriptors
import Glibc
import JSR

// The rendezvous of jsr.h, which says what each function does.

@c @implementation
public func jsr_register(_ session: OpaquePointer!, _ service: UnsafePointer<CChar>!) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let name = try text(service, "service")
    try asking { () throws(CallFailure) in
      try session.session.register(service: name, within: session.timeout)
    }
  }
}

@c @implementation
public func jsr_unregister(_ session: OpaquePointer!, _ service: UnsafePointer<CChar>!) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let name = try text(service, "service")
    try asking { () throws(CallFailure) in
      try session.session.unregister(service: name, within: session.timeout)
    }
  }
}

@c @implementation
public func jsr_replicate_by_service(
  _ session: OpaquePointer!, _ socket: Int32, _ primary: jsr_handle, _ service: UnsafePointer<CChar>!,
  _ note: UnsafeRawPointer!, _ noteSize: Int
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    try require(open: socket)
    let name = try text(service, "service")
    guard (0...Int(JSR_NOTE_LIMIT)).contains(noteSize) else {
      throw CFailure(EMSGSIZE, "a note has at most \(JSR_NOTE_LIMIT) bytes, not \(noteSize)")
    }
    var bytes: [UInt8] = []
    if noteSize > 0 {
      bytes += UnsafeRawBufferPointer(start: try require(note, "note"), count: noteSize)
    }
    try asking { () throws(CallFailure) in
      try session.session.replicate(
        socket, primary: Handle(rawValue: primary), service: name, note: bytes, within: session.timeout)
    }
  }
}

@c @implementation
public func jsr_accept(
  _ session: OpaquePointer!, _ primary: jsr_handle, _ handle: UnsafeMutablePointer<jsr_handle>!,
  _ rcv: UnsafeMutablePointer<Int32>!, _ snd: UnsafeMutablePointer<Int32>!
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let places = (try require(handle, "handle"), try require(rcv, "rcv"), try require(snd, "snd"))
    let pair = try asking { () throws(CallFailure) in
      try session.session.accept(primary: Handle(rawValue: primary), within: session.timeout)
    }.release()
    places.0.pointee = pair.handle.rawValue
    places.1.pointee = pair.rcv
    places.2.pointee = pair.snd
  }
}

@c @implementation
public func jsr_decline(
  _ session: OpaquePointer!, _ primary: jsr_handle, _ reason: UnsafePointer<CChar>!
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let why = try text(reason, "reason")
    try asking { () throws(CallFailure) in
      try session.session.decline(primary: Handle(rawValue: primary), reason: why, within: session.timeout)
    }
  }
}

/// The argument, which must be UTF-8.
private func text(_ argument: UnsafePointer<CChar>?, _ name: StaticString) throws(CFailure) -> String {
  guard let text = String(validatingCString: try require(argument, name)) else {
    throw CFailure(EILSEQ, "\(name) is not UTF-8")
  }
  return text
}
