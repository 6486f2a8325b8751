import Descriptors
import Glibc
import LinuxNetworking

/// Why the engine cannot start.
public enum EngineError: Error, Sendable, CustomStringConvertible {
  /// A privilege is missing.
  case notPermitted(SystemError)
  /// A feature of the kernel, or a device, is missing.
  case unavailable(SystemError)
  case packetFilter(PacketFilterError)
  /// An uplink of a routing instance is no port of its VRF, and there is no other.
  case outsideVRF(uplink: String, vrf: String)
  /// A file that `link.tls` names cannot be used.
  case linkCredentials(LinkCredentialsError)

  init(_ error: SystemError) {
    self = error.code == EPERM || error.code == EACCES ? .notPermitted(error) : .unavailable(error)
  }

  public var description: String {
    switch self {
    case .notPermitted(let error):
      "\(error); jsrd needs CAP_NET_ADMIN, CAP_NET_RAW and access to /dev/net/tun, and for network namespaces as routing instances CAP_SYS_ADMIN"
    case .unavailable(let error): "\(error)"
    case .packetFilter(let error): "packet filter: \(error)"
    case .outsideVRF(let uplink, let vrf):
      "uplink \(uplink) is not in VRF \(vrf): ip link set \(uplink) master \(vrf) puts it there"
    case .linkCredentials(let error): "\(error)"
    }
  }

  /// What `jsrd` ends with (sysexits.h): 77 for a missing privilege, 78 for what the configuration names and cannot be
  /// used, 69 for anything else that is not there.
  public var exitStatus: Int32 {
    switch self {
    case .notPermitted: EX_NOPERM
    case .linkCredentials: EX_CONFIG
    case .unavailable, .packetFilter, .outsideVRF: EX_UNAVAILABLE
    }
  }
}
