public import CJSR
import Glibc
import JSR

// Handles and sockets of jsr.h, which says what each function does.

@c @implementation
public func jsr_allocate(_ session: OpaquePointer!, _ handle: UnsafeMutablePointer<jsr_handle>!) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let place = try require(handle, "handle")
    place.pointee =
      try asking { () throws(CallFailure) in try session.session.allocate(within: session.timeout) }.rawValue
  }
}

@c @implementation
public func jsr_free(_ session: OpaquePointer!, _ handle: jsr_handle) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    try asking { () throws(CallFailure) in
      try session.session.free(Handle(rawValue: handle), within: session.timeout)
    }
  }
}

@c @implementation
public func jsr_status(
  _ session: OpaquePointer!, _ handle: jsr_handle, _ status: UnsafeMutablePointer<jsr_socket_status>!,
  _ size: Int
) -> Int32 {
  JSRC.status { () throws(CFailure) in
    let session = try require(session)
    let place = try require(status, "status")
    try requireSize(size, atLeast: jsr_socket_status.firstSize)
    let answer = try asking { () throws(CallFailure) in
      try session.session.status(of: Handle(rawValue: handle), within: session.timeout)
    }
    try copy(jsr_socket_status(answer), to: place, size: size, first: jsr_socket_status.firstSize)
  }
}

@c @implementation
public func jsr_replicate(
  _ session: OpaquePointer!, _ socket: Int32, _ primary: jsr_handle, _ secondary: jsr_handle
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    try require(open: socket)
    try asking { () throws(CallFailure) in
      try session.session.replicate(
        socket, primary: Handle(rawValue: primary), secondary: Handle(rawValue: secondary),
        within: session.timeout)
    }
  }
}

@c @implementation
public func jsr_unreplicate(_ session: OpaquePointer!, _ handle: jsr_handle) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    try asking { () throws(CallFailure) in
      try session.session.unreplicate(Handle(rawValue: handle), within: session.timeout)
    }
  }
}

@c @implementation
public func jsr_close(_ session: OpaquePointer!, _ socket: Int32, _ handle: jsr_handle) -> Int32 {
  status { () throws(CFailure) in
    try require(open: socket)
    let owned = Socket(owning: socket)
    let session = try require(session)
    do throws(CallFailure) {
      try session.session.close(owned, handle: Handle(rawValue: handle), within: session.timeout)
    } catch { throw CFailure(error) }
  }
}

@c @implementation
public func jsr_attach(
  _ session: OpaquePointer!, _ primary: jsr_handle, _ handle: UnsafeMutablePointer<jsr_handle>!,
  _ rcv: UnsafeMutablePointer<Int32>!, _ snd: UnsafeMutablePointer<Int32>!
) -> Int32 {
  status { () throws(CFailure) in try attach(.tcp, session, primary, handle, rcv, snd) }
}

@c @implementation
public func jsr_attach_datagrams(
  _ session: OpaquePointer!, _ primary: jsr_handle, _ handle: UnsafeMutablePointer<jsr_handle>!,
  _ rcv: UnsafeMutablePointer<Int32>!, _ snd: UnsafeMutablePointer<Int32>!
) -> Int32 {
  status { () throws(CFailure) in try attach(.udp, session, primary, handle, rcv, snd) }
}

private func attach(
  _ transport: TransportProtocol, _ session: OpaquePointer?, _ primary: jsr_handle,
  _ handle: UnsafeMutablePointer<jsr_handle>?, _ rcv: UnsafeMutablePointer<Int32>?,
  _ snd: UnsafeMutablePointer<Int32>?
) throws(CFailure) {
  let session = try require(session)
  let places = (try require(handle, "handle"), try require(rcv, "rcv"), try require(snd, "snd"))
  let pair = try asking { () throws(CallFailure) in
    try session.session.attach(
      primary: Handle(rawValue: primary), transport: transport, within: session.timeout)
  }.release()
  places.0.pointee = pair.handle.rawValue
  places.1.pointee = pair.rcv
  places.2.pointee = pair.snd
}

@c @implementation
public func jsr_merge(
  _ session: OpaquePointer!, _ handle: jsr_handle, _ socket: UnsafeMutablePointer<Int32>!
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let place = try require(socket, "socket")
    place.pointee =
      try asking { () throws(CallFailure) in
        try session.session.merge(Handle(rawValue: handle), within: session.timeout)
      }.release()
  }
}

@c @implementation
public func jsr_merge_signed(
  _ session: OpaquePointer!, _ handle: jsr_handle, _ key: UnsafeRawPointer!, _ keySize: Int,
  _ socket: UnsafeMutablePointer<Int32>!
) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let place = try require(socket, "socket")
    // TCP_MD5SIG_MAXKEYLEN (include/uapi/linux/tcp.h).
    guard (1...80).contains(keySize) else {
      throw CFailure(EINVAL, "a key has 1 to 80 bytes, not \(keySize)")
    }
    let key = [UInt8](UnsafeRawBufferPointer(start: try require(key, "key"), count: keySize))
    place.pointee =
      try asking { () throws(CallFailure) in
        try session.session.merge(Handle(rawValue: handle), signingKey: key, within: session.timeout)
      }.release()
  }
}

extension jsr_socket_status {
  /// Bytes of the structure in version 0.1.
  static let firstSize = 152

  init(_ status: SocketStatus) {
    self.init()
    handle = status.handle.rawValue
    peer_handle = status.peerHandle?.rawValue ?? 0
    role = JSRC.number(of: status.role)
    state = Self.number(of: status.state).rawValue
    withUnsafeMutableBytes(of: &local) { store(status.local ?? "", in: $0) }
    withUnsafeMutableBytes(of: &remote) { store(status.remote ?? "", in: $0) }
  }

  private static func number(of state: SocketState) -> jsr_state {
    switch state {
    case .allocated: JSR_STATE_ALLOCATED
    case .starting: JSR_STATE_STARTING
    case .replicating: JSR_STATE_REPLICATING
    case .snooping: JSR_STATE_SNOOPING
    case .unreplicated: JSR_STATE_UNREPLICATED
    case .merged: JSR_STATE_MERGED
    case .closing: JSR_STATE_CLOSING
    }
  }
}
