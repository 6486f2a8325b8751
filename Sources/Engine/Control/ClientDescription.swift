public import Control
import Glibc

/// Who is on the other end of a control connection.
public struct ClientDescription: Hashable, Sendable, CustomStringConvertible {
  /// The name that the client gave itself with `hello`; empty until then.
  public var application: String
  /// What it may ask for, as it said with `hello`.
  public var role = ControlRequest.ClientRole.application
  /// The process that connected, as the kernel says (`SO_PEERCRED`): it may have handed the connection on.
  public var process: Int32
  /// Its effective user at that time.
  public var user: UInt32
  /// Its effective group at that time.
  public var group: UInt32

  public var description: String {
    "\(application.isEmpty ? "unnamed" : application) (process \(process), user \(user))"
  }
}
