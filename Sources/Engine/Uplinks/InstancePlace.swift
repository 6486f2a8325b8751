import Descriptors
import EngineConfiguration
import LinuxNetworking

/// Where a routing instance is: in the network namespace that the engine was started in, in another one, or in a VRF.
struct InstancePlace {
  /// `nil` for the engine's own.
  let namespace: NetworkNamespace?
  /// `nil` if it is all of the namespace that is in no VRF of another instance.
  let vrf: VRF?
  /// Indexes of the devices of these VRFs.
  private let vrfsOfOthers: Set<Int32>

  /// The main one.
  ///
  /// - Parameter others: those of all other instances.
  init(beside others: [InstancePlace]) {
    namespace = nil
    vrf = nil
    vrfsOfOthers = Set(others.compactMap(\.vrf?.index))
  }

  /// - Throws: `ENOENT` if there is no such namespace, `ENODEV` if there is no such VRF.
  init(_ place: Configuration.Instance.Place) throws(SystemError) {
    switch place {
    case .namespace(let path):
      namespace = try NetworkNamespace(path: path)
      vrf = nil
    case .vrf(let device):
      namespace = nil
      vrf = try VRF(named: device)
    }
    vrfsOfOthers = []
  }

  /// Does something there: whatever makes a socket, or names an interface.
  func inside<Result: ~Copyable, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    guard let namespace else { return try body() }
    return try namespace.visit(body)
  }

  /// Whether packets of `interface`, which is in the namespace, are looked up here.
  func has(_ interface: NetworkInterface) -> Bool { vrf?.has(interface) ?? true }

  /// Whether a socket of the namespace is here that is bound to the device of this index, or to none if it is 0.
  func hasSocket(boundTo device: Int32) -> Bool {
    vrf.map { device == $0.index } ?? !vrfsOfOthers.contains(device)
  }
}
