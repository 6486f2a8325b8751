import CJSR
import Control
import Descriptors
import Glibc
import JSR

// The sessions of jsr.h, which says what each function does.

private let version = CString(JSR_VERSION)

@c @implementation
public func jsr_version() -> UnsafePointer<CChar>! { version.pointer }

@c @implementation
public func jsr_connect(
  _ path: UnsafePointer<CChar>!, _ application: UnsafePointer<CChar>!,
  _ session: UnsafeMutablePointer<OpaquePointer?>!
) -> Int32 {
  status { () throws(CFailure) in
    let place = try require(session, "session")
    place.pointee = nil
    guard let name = String(validatingCString: try require(application, "application")) else {
      throw CFailure(EILSEQ, "application is not UTF-8")
    }
    guard name.utf8.count <= ControlProtocol.applicationNameLimit else {
      throw CFailure(
        ENAMETOOLONG, "application has more than \(ControlProtocol.applicationNameLimit) bytes: \(name)")
    }
    guard !name.isEmpty, !name.unicodeScalars.contains(where: { $0.properties.generalCategory == .control })
    else { throw CFailure(EINVAL, "application must be a name on one line") }
    guard let path = path.map(String.init(validatingCString:)) ?? Session.defaultPath else {
      throw CFailure(EILSEQ, "path is not UTF-8")
    }
    do throws(BlockingSession.ConnectFailure) {
      let opened = CSession(try BlockingSession(path: path, application: name))
      place.pointee = OpaquePointer(Unmanaged.passRetained(opened).toOpaque())
    } catch {
      throw CFailure(error.error, code: error.code)
    }
  }
}

@c @implementation
public func jsr_disconnect(_ session: OpaquePointer!) {
  guard let session else { return }
  let opened = unchecked(session)
  guard opened.isOurs else { return opened.abandon() }
  opened.session.close()
  Unmanaged<CSession>.fromOpaque(UnsafeRawPointer(session)).release()
}

@c @implementation
public func jsr_set_timeout(_ session: OpaquePointer!, _ milliseconds: Int64) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    guard CSession.timeoutRange.contains(milliseconds) else {
      throw CFailure(
        EINVAL,
        "milliseconds must be from \(CSession.timeoutRange.lowerBound) to \(CSession.timeoutRange.upperBound),"
          + " not \(milliseconds)")
    }
    session.timeout = .milliseconds(milliseconds)
  }
}

@c @implementation
public func jsr_node(_ session: OpaquePointer!) -> UnsafePointer<CChar>! {
  session.map { unchecked($0).node.pointer }
}

@c @implementation
public func jsr_slot(_ session: OpaquePointer!) -> Int32 {
  number { () throws(CFailure) in Int32(unchecked(try require(session, "session")).session.slot) }
}

@c @implementation
public func jsr_engine_version(_ session: OpaquePointer!) -> UnsafePointer<CChar>! {
  session.map { unchecked($0).engineVersion.pointer }
}

@c @implementation
public func jsr_role(_ session: OpaquePointer!, _ role: UnsafeMutablePointer<UInt32>!) -> Int32 {
  status { () throws(CFailure) in
    let session = try require(session)
    let place = try require(role, "role")
    place.pointee = number(
      of: try asking { () throws(CallFailure) in try session.session.role(within: session.timeout) })
  }
}

/// The value of `enum jsr_role`.
func number(of role: Role) -> UInt32 {
  switch role {
  case .none: JSR_ROLE_NONE.rawValue
  case .primary: JSR_ROLE_PRIMARY.rawValue
  case .secondary: JSR_ROLE_SECONDARY.rawValue
  }
}
