import CJSR
import Descriptors
import Glibc
import JSR

/// Why a function of the library returns a negative number: which, and what is said about it.
struct CFailure: Error {
  /// An errno value, above 0.
  let number: Int32
  let message: String

  init(_ number: Int32, _ message: String) {
    self.number = number
    self.message = message
  }

  init(_ failure: CallFailure) {
    switch failure {
    case .failed(let error): self.init(error)
    case .timedOut: self.init(ETIME, "the engine did not answer in time; the session has ended")
    }
  }

  /// - Parameter code: of the system call that failed, if one did.
  init(_ error: JSRError, code: Int32 = 0) {
    let number =
      switch error {
      case .unreachable: code != 0 ? code : ECONNREFUSED
      case .engineGone: ENOTCONN
      case .misunderstood: EPROTO
      case .recordsEnded: ESHUTDOWN
      case .connectionMoved: EREMOTE
      case .recordSize: EMSGSIZE
      case .refused(let code, _): Self.number(of: code)
      }
    self.init(number, "\(error)")
  }

  init(_ error: SystemError) { self.init(error.code, "\(error)") }

  /// What jsr.h says about each.
  private static func number(of code: RefusalCode) -> Int32 {
    switch code {
    case .malformed, .descriptors, .notIntroduced: EPROTO
    case .oversized: EMSGSIZE
    case .version: EPROTONOSUPPORT
    case .limit: ENOSPC
    case .unknownHandle: ESTALE
    case .foreignHandle: EACCES
    case .wrongState: EBADFD
    case .notPrimary, .notSecondary: EREMOTE
    case .noSecondary: ENOLINK
    case .unsuitableSocket: EOPNOTSUPP
    case .serviceTaken: EEXIST
    case .noService: ENOENT
    case .declined: ECONNREFUSED
    case .signingKey: ENOKEY
    case .timeout: ETIMEDOUT
    case .notPermitted: EPERM
    case .unknownSetting, .invalidValue: EINVAL
    case .system, .other: EIO
    case .ending: ESHUTDOWN
    }
  }
}

/// Runs the body of a function that returns 0 or a negative errno value, and notes what went wrong.
func status(_ body: () throws(CFailure) -> Void) -> Int32 {
  number { () throws(CFailure) in
    try body()
    return 0
  }
}

/// Runs the body of a function that returns a number, or a negative errno value.
func number(_ body: () throws(CFailure) -> Int32) -> Int32 {
  // errno belongs to the caller, who may look at it after several calls.
  let before = errno
  defer { errno = before }
  do throws(CFailure) {
    return try body()
  } catch {
    cjsr_set_last_error(error.message)
    return -error.number
  }
}

/// Does something that asks the engine.
func asking<Value: ~Copyable>(_ body: () throws(CallFailure) -> Value) throws(CFailure) -> Value {
  do throws(CallFailure) { return try body() } catch { throw CFailure(error) }
}

/// The argument, which must not be NULL.
func require<Argument>(_ argument: Argument?, _ name: StaticString) throws(CFailure) -> Argument {
  guard let argument else { throw CFailure(EINVAL, "\(name) is NULL") }
  return argument
}

/// The session, which must be this process's.
func require(_ session: OpaquePointer?) throws(CFailure) -> CSession {
  let session = unchecked(try require(session, "session"))
  guard session.isOurs else {
    throw CFailure(ECHILD, "the session was opened by another process: connect after fork, not before")
  }
  return session
}

/// The session, whosever it is.
func unchecked(_ session: OpaquePointer) -> CSession {
  Unmanaged<CSession>.fromOpaque(UnsafeRawPointer(session)).takeUnretainedValue()
}

/// The number of an open descriptor.
func require(open descriptor: Int32) throws(CFailure) {
  guard fcntl(descriptor, F_GETFD) >= 0 else {
    throw CFailure(EBADF, "descriptor \(descriptor) is not open")
  }
}

/// Copies a structure to a caller whose own may be older, and shorter, or newer, and longer.
///
/// - Parameters:
///   - first: the size of the structure when it was new.
///   - size: that of the caller's.
func copy<Structure>(
  _ structure: Structure, to place: UnsafeMutablePointer<Structure>, size: Int, first: Int
) throws(CFailure) {
  try requireSize(size, atLeast: first)
  withUnsafeBytes(of: structure) { bytes in
    let space = UnsafeMutableRawBufferPointer(start: place, count: size)
    let count = min(size, bytes.count)
    space.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    for index in count..<size { space[index] = 0 }
  }
}

/// Checks the size of a caller's structure before anything is taken that could not be given back.
func requireSize(_ size: Int, atLeast first: Int) throws(CFailure) {
  // A structure of kilobytes is none of ours: something else was given for the size.
  guard size >= first, size <= 65_536 else {
    throw CFailure(EINVAL, "size is \(size), and not that of the structure, which has \(first) bytes or more")
  }
}
