import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Packet

/// What replicated addresses need of one network namespace: its uplinks, its packet filter, and the sockets through
/// which the engine sends what it has built itself.
///
/// Whatever depends on where an address is valid is here, and nothing else of the engine asks the kernel for it.
final class RoutingInstance {
  let replicated: [Configuration.ReplicatedAddress]
  /// Those of `replicated`, without their prefixes.
  let addresses: [IPAddress]
  /// In the order of the configuration. There is at least one.
  let uplinks: [Uplink]
  let filter: PacketFilter
  /// Of all sockets whose packets come by here.
  let namespace: NetworkNamespaceCookie
  /// What an earlier run of the engine had steered.
  let formerFlows: Set<Flow>
  /// For the families of `addresses`.
  private let rawSockets: [IPAddress.Family: RawIPSocket]

  /// Prepares the namespace that the calling thread is in: TAP devices, packet filter, sockets. No flow is steered
  /// yet, and the fence is shut.
  ///
  /// - Parameter mark: of the frames that the engine itself sends, so that the packet filter does not steer them back.
  init(
    replicated: [Configuration.ReplicatedAddress], uplinks names: [String], mark: UInt32
  ) throws(EngineError) {
    self.replicated = replicated
    addresses = replicated.map(\.address)
    var uplinks: [Uplink] = []
    do throws(SystemError) {
      for (number, name) in names.enumerated() {
        uplinks.append(try Uplink(name, tapName: "jsr\(number)", mark: mark))
      }
      var rawSockets: [IPAddress.Family: RawIPSocket] = [:]
      for family in Set(addresses.map(\.family)) { rawSockets[family] = try RawIPSocket(family, mark: mark) }
      self.rawSockets = rawSockets
      namespace = try NetworkNamespaceCookie.own()
    } catch {
      throw EngineError(error)
    }
    self.uplinks = uplinks
    do throws(PacketFilterError) {
      filter = try PacketFilter(mark: mark)
      formerFlows = try filter.steeredFlows()
      try filter.install(uplinks: uplinks.map(\.steering), replicated: addresses)
    } catch {
      throw .packetFilter(error)
    }
  }

  // MARK: Addresses

  /// Whether packets of `address` come by here.
  func has(_ address: IPAddress) -> Bool { addresses.contains(address) }

  /// Gives the addresses to the first uplink.
  ///
  /// - Parameter failed: told of each that cannot be added.
  func addAddresses(failed: (Configuration.ReplicatedAddress, SystemError) -> Void) {
    for replicated in replicated {
      do throws(SystemError) {
        try AddressConfiguration.add(
          replicated.address, prefixLength: UInt8(replicated.prefixLength), to: uplinks[0].interface)
      } catch {
        failed(replicated, error)
      }
    }
  }

  /// Takes the addresses away.
  ///
  /// - Parameter failed: told of each that cannot be removed.
  func removeAddresses(failed: (Configuration.ReplicatedAddress, SystemError) -> Void) {
    for replicated in replicated {
      do throws(SystemError) {
        try AddressConfiguration.remove(
          replicated.address, prefixLength: UInt8(replicated.prefixLength), from: uplinks[0].interface)
      } catch {
        failed(replicated, error)
      }
    }
  }

  // MARK: Uplinks

  /// Whether peers can be reached at all.
  var isRunning: Bool { uplinks.contains(where: \.isRunning) }

  /// Whether `address` is that of one of the uplinks.
  func owns(_ address: MACAddress) -> Bool { uplinks.contains { $0.interface.hardwareAddress == address } }

  /// The uplink by which a packet came that does not tell: the other RE has sent it, or the engine has built it.
  var defaultUplink: Uplink { uplinks[0] }

  /// Bytes of the largest IP packet that every uplink carries.
  var mtu: Int { uplinks.reduce(.max) { min($0, $1.interface.mtu) } }

  /// Sends a frame on every uplink, the first one last: where several of them lead to the same segment, the others
  /// there learn last what the first one says.
  ///
  /// - Parameter frame: makes it, from the hardware address of the uplink.
  /// - Returns: how often the kernel refused it.
  func sendOnUplinks(_ frame: (MACAddress) -> [UInt8]) -> UInt64 {
    uplinks.reversed().reduce(0) { refused, uplink in
      uplink.send(plain: frame(uplink.interface.hardwareAddress)) == 0 ? refused : refused + 1
    }
  }

  /// Sends a packet that the engine has built. The kernel finds the way and the hardware address. Returns 0, or
  /// `errno`.
  func send(_ packet: UnsafeRawBufferPointer, to destination: IPAddress) -> Int32 {
    rawSockets[destination.family]?.send(packet, to: destination) ?? EAFNOSUPPORT
  }
}
