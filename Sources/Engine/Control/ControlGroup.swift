import CLinux
import Glibc

/// The group whose members may control the engine, if it exists.
public enum ControlGroup {
  static let name = "jsr"

  /// Its number; `nil` if this machine has no such group.
  static var identifier: gid_t? {
    var entry = group()
    var found: UnsafeMutablePointer<group>?
    var space = [CChar](repeating: 0, count: 16_384)
    guard getgrnam_r(name, &entry, &space, space.count, &found) == 0, found != nil else { return nil }
    return entry.gr_gid
  }

  /// Makes the superuser a member, who may then give the control socket to the group without CAP_CHOWN.
  /// Before capabilities are given up, and before there are other threads.
  public static func join() {
    guard geteuid() == 0, let identifier else { return }
    // Where this fails, so does giving the socket away, which says so.
    _ = jsr_join_group(identifier)
  }
}
