import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Packet
import Replication

/// What replicated addresses need of one routing instance, which is a network namespace or a VRF: its uplinks, its packet
/// filter, and the sockets through which the engine sends what it has built itself.
///
/// Whatever depends on where an address is valid is here, and nothing else of the engine asks the kernel for it.
final class RoutingInstance {
  /// What has become of an uplink since it was looked at last.
  enum UplinkNews {
    case came
    case gone
    /// Its MTU or its hardware address is another.
    case changed
    /// Something else has happened to it: it may have been down and up again between two looks.
    case stirred
    /// It is there, and cannot be used for this reason.
    case unusable(String)
    case running
    case down
  }

  /// `nil` for the one that the engine itself is in.
  let name: String?
  /// By which flows name it: the same on both routing engines, whatever else either of them has.
  let id: RoutingInstanceID
  private let place: InstancePlace
  let replicated: [Configuration.ReplicatedAddress]
  /// Of the network namespace that it is in.
  let socketDefaults = SocketDefaults()
  /// Those of `replicated`, without their prefixes.
  let addresses: [IPAddress]
  private let parts: Parts
  /// The addresses are to be here.
  private(set) var holdsAddresses = false

  /// In the order of the configuration. There is at least one.
  var uplinks: [Uplink] { parts.uplinks }
  var filter: PacketFilter { parts.filter }
  /// To which its sockets are bound, if it is one.
  var vrf: VRF? { place.vrf }
  /// What an earlier run of the engine had steered.
  var formerFlows: Set<Flow> { parts.formerFlows }

  /// How long an uplink that could not be used is left alone.
  private static let retryDelay = Nanoseconds.seconds(1)

  /// Prepares the namespace that the engine is in: TAP devices, packet filter, sockets. No flow is steered yet, and the
  /// fence is shut.
  ///
  /// - Parameters:
  ///   - others: where all other instances are.
  ///   - mark: of the frames that the engine itself sends, so that the packet filter does not steer them back.
  /// - Throws: if none of the uplinks is there; others may come later.
  convenience init(
    replicated: [Configuration.ReplicatedAddress], uplinks: [String], beside others: [InstancePlace],
    mark: UInt32
  ) throws(EngineError) {
    try self.init(
      nil, .main, in: InstancePlace(beside: others), replicated: replicated, uplinks: uplinks,
      names: PartNames(),
      mark: mark)
  }

  /// Does the same in another place.
  ///
  /// - Parameter number: the how-manieth of the configuration it is, from 1.
  convenience init(
    _ instance: Configuration.Instance, in place: InstancePlace, number: Int, mark: UInt32
  ) throws(EngineError) {
    let id = RoutingInstanceID(name: instance.name)
    try self.init(
      instance.name, id, in: place, replicated: instance.addresses, uplinks: instance.uplinks,
      names: place.vrf == nil ? PartNames() : PartNames(id, number: number), mark: mark)
  }

  private init(
    _ name: String?, _ id: RoutingInstanceID, in place: InstancePlace,
    replicated: [Configuration.ReplicatedAddress], uplinks: [String], names: PartNames, mark: UInt32
  ) throws(EngineError) {
    self.name = name
    self.id = id
    self.place = place
    self.replicated = replicated
    let addresses = replicated.map(\.address)
    self.addresses = addresses
    parts = try place.inside { () throws(EngineError) in
      try Parts(id, in: place, addresses: addresses, uplinks: uplinks, names: names, mark: mark)
    }
  }

  /// What the parts are called, so that those of instances in the same namespace differ.
  private struct PartNames {
    let table: String
    private let tapPrefix: String

    init() {
      table = "jsr"
      tapPrefix = "jsr"
    }

    /// The table has to be found again by the next run, in which the instance may have another number.
    init(_ id: RoutingInstanceID, number: Int) {
      table = "jsr_" + String(id.rawValue, radix: 16)
      tapPrefix = "jsr-\(number)-"
    }

    func tap(_ number: Int) -> String { tapPrefix + "\(number)" }
  }

  /// What is made in the namespace.
  private final class Parts {
    let uplinks: [Uplink]
    /// For the families of the addresses.
    let rawSockets: [IPAddress.Family: RawIPSocket]
    let namespace: NetworkNamespaceCookie
    let filter: PacketFilter
    let formerFlows: Set<Flow>
    let interfaceNews: InterfaceNews

    init(
      _ id: RoutingInstanceID, in place: InstancePlace, addresses: [IPAddress], uplinks uplinkNames: [String],
      names: PartNames, mark: UInt32
    ) throws(EngineError) {
      var uplinks: [Uplink] = []
      var present: [(uplink: Uplink, interface: NetworkInterface)] = []
      do throws(SystemError) {
        // Before anything is looked at, so that nothing can happen unnoticed.
        interfaceNews = try InterfaceNews()
        for (number, name) in uplinkNames.enumerated() {
          let uplink = try Uplink(name, of: id, in: place, tapName: names.tap(number), mark: mark)
          uplinks.append(uplink)
          if let interface = uplink.present {
            try uplink.adapt(to: interface)
            present.append((uplink, interface))
          }
        }
        // Says what is wrong with the first one.
        if present.isEmpty { _ = try NetworkInterface(named: uplinkNames[0]) }
        var rawSockets: [IPAddress.Family: RawIPSocket] = [:]
        for family in Set(addresses.map(\.family)) {
          rawSockets[family] = try RawIPSocket(family, mark: mark, in: place.vrf)
        }
        self.rawSockets = rawSockets
        namespace = try NetworkNamespaceCookie.own()
      } catch {
        throw EngineError(error)
      }
      if present.isEmpty, let vrf = place.vrf { throw .outsideVRF(uplink: uplinkNames[0], vrf: vrf.name) }
      self.uplinks = uplinks
      do throws(PacketFilterError) {
        filter = try PacketFilter(mark: mark, table: names.table)
        formerFlows = try filter.steeredFlows()
        try filter.install(uplinks: present.map { $0.uplink.steering($0.interface) }, replicated: addresses)
      } catch {
        throw .packetFilter(error)
      }
      do throws(SystemError) {
        for (uplink, interface) in present { try uplink.attach(interface) }
      } catch {
        throw EngineError(error)
      }
    }
  }

  /// Does something where the instance is: whatever makes a socket, or asks the kernel about what is there.
  func inside<Result: ~Copyable, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    try place.inside(body)
  }

  /// For people, behind something that is said of it.
  var mention: String { name.map { " of instance \($0)" } ?? "" }

  // MARK: Sockets

  /// Whether packets of a socket come by here: one of this namespace that is bound to the device of index `device`, or
  /// to none if that is 0.
  func has(socketIn namespace: NetworkNamespaceCookie, boundTo device: Int32) -> Bool {
    namespace == parts.namespace && place.hasSocket(boundTo: device)
  }

  /// The interface that a socket of this instance takes packets from alone; `nil` if it takes those of all uplinks.
  func foreignInterface(of socket: Int32) -> String? {
    guard let device = try? VRF.device(of: socket), device != vrf?.index ?? 0 else { return nil }
    return inside { NetworkInterface.name(of: device) } ?? "interface \(device)"
  }

  /// Ends all TCP connections of `address` that are here, or only those, and the UDP sockets, of `flows`.
  ///
  /// - Returns: how many there were.
  func endConnections(of address: IPAddress, among flows: Set<Flow>? = nil) throws(SystemError) -> Int {
    try inside { () throws(SystemError) in
      guard let flows else {
        return try StaleConnections.destroy(local: address, boundTo: place.hasSocket)
      }
      return try StaleConnections.destroy(local: address, among: flows, boundTo: place.hasSocket)
    }
  }

  /// Whether the kernel has the TCP connection `flow` here.
  func hasConnection(_ flow: Flow) throws(SystemError) -> Bool {
    try inside { () throws(SystemError) in try LiveConnection.exists(flow, in: vrf) }
  }

  /// The key that the TCP connection `flow` is signed with here; `nil` if it is not signed.
  func signingKey(of flow: Flow) throws(SystemError) -> [UInt8]? {
    try inside { () throws(SystemError) in try LiveConnection.signingKey(of: flow, in: vrf) }
  }

  // MARK: Addresses

  /// Whether packets of `address` come by here.
  func has(_ address: IPAddress) -> Bool { addresses.contains(address) }

  /// Gives the addresses to the first uplink that is there, and takes them from all others. The new place comes first:
  /// in between an address is at both, and never at none.
  ///
  /// - Parameter failed: told of each that cannot be given or taken.
  func placeAddresses(failed: (Configuration.ReplicatedAddress, SystemError) -> Void) {
    holdsAddresses = true
    let interfaces = uplinks.compactMap(\.interface)
    for (place, interface) in interfaces.enumerated() { give(place == 0, interface, failed) }
  }

  /// Takes the addresses away.
  ///
  /// - Parameter failed: told of each that cannot be taken.
  func removeAddresses(failed: (Configuration.ReplicatedAddress, SystemError) -> Void) {
    holdsAddresses = false
    for interface in uplinks.compactMap(\.interface) { give(false, interface, failed) }
  }

  /// Gives an interface the addresses, or takes them from it.
  private func give(
    _ isToHave: Bool, _ interface: NetworkInterface,
    _ failed: (Configuration.ReplicatedAddress, SystemError) -> Void
  ) {
    for replicated in replicated {
      let length = UInt8(replicated.prefixLength)
      do throws(SystemError) {
        try inside { () throws(SystemError) in
          if isToHave {
            try AddressConfiguration.add(
              replicated.address, prefixLength: length, to: interface, in: vrf)
          } else {
            try AddressConfiguration.remove(replicated.address, prefixLength: length, from: interface)
          }
        }
      } catch {
        failed(replicated, error)
      }
    }
  }

  /// Throws away what connections that have ended had still to say, and what would be said when the fence opens.
  ///
  /// - Parameter failed: told of each uplink where it may be left.
  func forgetUnsent(failed: (Uplink, SystemError) -> Void) {
    for uplink in uplinks {
      guard let interface = uplink.interface else { continue }
      do throws(SystemError) {
        try inside { () throws(SystemError) in try NeighborTable.forgetUnresolved(on: interface) }
      } catch {
        failed(uplink, error)
      }
    }
  }

  // MARK: Uplinks

  /// Takes up what has happened to the uplinks: begins to use those that have come, and lets go of those that are gone.
  /// Something that came under the name of one that is gone is another interface, which needs all of it again.
  ///
  /// - Parameter tell: told what has changed, when it has.
  func lookAtUplinks(now: Instant, tell: (Uplink, UplinkNews) -> Void) {
    let news = parts.interfaceNews.take()
    for uplink in uplinks {
      if news.concern(uplink.name, uplink.interface) || uplink.retryTime.map({ now >= $0 }) == true {
        look(at: uplink, now: now, tell)
      }
      if uplink.lookAtCarrier() { tell(uplink, uplink.isRunning ? .running : .down) }
    }
  }

  private func look(at uplink: Uplink, now: Instant, _ tell: (Uplink, UplinkNews) -> Void) {
    uplink.retryTime = nil
    let found = uplink.present
    if let known = uplink.interface, found?.index != known.index {
      uplink.detach()
      tell(uplink, .gone)
    }
    guard let found else { return }
    guard found != uplink.interface else { return tell(uplink, .stirred) }
    let isNew = uplink.interface == nil
    do {
      try inside {
        try uplink.adapt(to: found)
        if isNew { try begin(uplink, found) }
      }
      tell(uplink, isNew ? .came : .changed)
    } catch {
      uplink.retryTime = now + Self.retryDelay
      tell(uplink, .unusable("\(error)"))
    }
  }

  /// The packet filter first: what leaves by the interface, or comes in by it, must not pass the engine by.
  private func begin(_ uplink: Uplink, _ interface: NetworkInterface) throws {
    let others = uplinks.filter { $0 !== uplink }
    try filter.update(
      uplinks: others.compactMap { other in other.interface.map(other.steering) } + [
        uplink.steering(interface)
      ],
      absent: others.compactMap { $0.interface == nil ? $0.lastInterface : nil })
    try uplink.attach(interface)
  }

  /// What has passed by all its uplinks.
  var counters: UplinkCounters { uplinks.reduce(UplinkCounters()) { $0 + $1.counters } }

  /// Whether peers can be reached at all, as of the last look.
  var isRunning: Bool { uplinks.contains(where: \.isRunning) }

  /// Whether `address` is that of one of the uplinks.
  func owns(_ address: MACAddress) -> Bool { uplinks.contains { $0.hardwareAddress == address } }

  /// The uplink by which a packet came that does not tell: the other RE has sent it, or the engine has built it.
  var defaultUplink: Uplink { uplinks.first { $0.interface != nil } ?? uplinks[0] }

  /// Bytes of the largest IP packet that every uplink carries.
  var mtu: Int { uplinks.compactMap(\.interface?.mtu).min() ?? 1500 }

  /// Sends a frame on every uplink that is there, the first one last: where several of them lead to the same segment,
  /// the others there learn last what the first one says.
  ///
  /// - Parameter frame: makes it, from the hardware address of the uplink.
  /// - Returns: how often the kernel refused it.
  func sendOnUplinks(_ frame: (MACAddress) -> [UInt8]) -> UInt64 {
    var refused: UInt64 = 0
    for uplink in uplinks.reversed() where uplink.interface != nil {
      if uplink.send(plain: frame(uplink.hardwareAddress)) != 0 { refused += 1 }
    }
    return refused
  }

  /// Sends a packet that the engine has built. The kernel finds the way and the hardware address. Returns 0, or
  /// `errno`.
  func send(_ packet: UnsafeRawBufferPointer, to destination: IPAddress) -> Int32 {
    parts.rawSockets[destination.family]?.send(packet, to: destination) ?? EAFNOSUPPORT
  }
}
