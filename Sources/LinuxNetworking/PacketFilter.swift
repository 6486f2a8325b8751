// Theory of operation
//
// One table, `netdev jsr` unless it is given another name, does two things on every uplink.
//
// Steering (DESIGN 4.1): packets of the flows in a set are forwarded to the TAP, on the ingress hook before
// the local stack sees them, and on the egress hook after it has built the whole frame. Packets that carry
// the engine's mark are those it has released, and pass. What arrives of a flow that is mirrored as well is copied to the
// TAP, and goes on its way: the copy is in the device's queue before the local stack sees the packet, and so before
// whatever that makes of it.
//
// The fence (DESIGN 4.6): on egress, before anything else, whatever speaks for a replicated address that
// has no lease is dropped: packets from it, ARP that names it as the sender, neighbour advertisements for
// it. The mark makes no difference. A lease is a set element with a timeout, which the kernel ends by
// itself. The table has no owner (`flags owner`), so that it outlives the process: an engine that died
// leaves the fence behind, shut as soon as the lease has run out.
//
// The ingress chain has priority -300, so that a flow is steered before anything else on the device looks at
// it; the egress chain has 300, so that the fence has the last word, after whatever other tables made of
// the packet.
//
// Relied on; all but the race of two hooks, which is too short to be seen, is shown by the tests:
//
// - One run of libnftables is one netlink batch, and so is what `SetElements` lays out, which the kernel commits whole or not at all
//   (net/netfilter/nf_tables_api.c, nf_tables_commit): one flip of the generation, which a chain reads once
//   per packet. This holds within a chain. Two hooks can see the flip between them, so replacing a base
//   chain by a new one would open the fence for an instant; therefore chains of an earlier run are kept, and
//   flushed and filled again in one transaction. Chains are named after the index of their interface, which
//   is what makes them the same chain.
// - When an interface goes, its chains go with it before Linux 6.16; since then they stay, and are in force
//   again at once on a new interface of the same name (nft_netdev_event, net/netfilter/nf_tables_api.c). Such
//   a chain is left alone until that interface has chains after its own index.
// - An element that has run out counts as gone at once, though its memory is collected later
//   (nft_rhash_cmp in net/netfilter/nft_set_hash.c). Deleting it fails with ENOENT, and with it the batch:
//   `delete` and `add` in one batch are a compare-and-swap.
// - Adding an element that is there already changes nothing and is no error. Hence `add`, `delete`, `add`
//   in one batch is an unconditional replacement, and `add`, `delete` an unconditional removal.
// - A packet forwarded to a device that is gone is dropped (net/netfilter/nf_dup_netdev.c).
// - `fwd` on egress hands over the frame as it is, before segmentation and checksums.
//
// Fragments: the ports of a datagram are in its first fragment only, so a rule on ports sees none of the others
// (nft_set_pktinfo leaves the transport out where the offset is not 0). Those of every address that has a UDP flow are
// steered, whosever they are; on egress the kernel has cut its datagrams by then.
//
// Neighbour advertisements: nft 1.0.6 has no word for their target field, so it is matched as 128 bits at
// offset 64 of the ICMPv6 header, in a set of its own type (`typeof @th,64,128`). The kernel itself sends
// an advertisement from the address that it is for, which the rule on source addresses catches; the rule on
// the target is for proxies and for tools.

import CNftables
import CNftnl
import Descriptors
import Glibc
import Packet

/// The packet filter of one network namespace, the one that the thread was in when it was made: which flows
/// go through the engine, and whether replicated addresses may be heard on the uplinks.
///
/// Calls block until the kernel has committed. An instance belongs to one thread at a time.
public final class PacketFilter {
  /// An uplink and the TAP device that its replicated flows are steered to.
  public struct Uplink: Sendable, Hashable {
    public var interface: NetworkInterface
    public var tapName: String

    public init(_ interface: NetworkInterface, tapName: String) {
      self.interface = interface
      self.tapName = tapName
    }
  }

  /// As nft writes it, with its family.
  private let table: String
  private let tableName: String
  private let context: OpaquePointer
  /// For elements of sets, which come and go all the time; what is seldom done goes through libnftables.
  private let elementSocket: NetlinkSocket
  private let mark: UInt32
  /// What is in the kernel's sets, so that steering is idempotent: removing an unknown element would fail.
  private var steered: Set<Flow> = []
  /// Of these, the ones that are mirrored.
  private var mirrored: Set<Flow> = []
  /// How many of these are UDP, by local address: fragments of datagrams of such an address are steered.
  private var datagramFlowCounts: [IPAddress: Int] = [:]

  /// - Parameters:
  ///   - mark: of the packets that the engine has released (SO_MARK). Not 0.
  ///   - table: its name, where several engines, or several routing instances of one, share a namespace: a letter, then
  ///     letters, digits and underscores.
  public init(mark: UInt32, table: String = "jsr") throws(PacketFilterError) {
    precondition(mark != 0, "unmarked packets are the ones to be steered")
    do throws(SystemError) {
      elementSocket = try NetlinkSocket(NETLINK_NETFILTER)
      try elementSocket.prepareForBatches()
    } catch {
      throw .unavailable
    }
    guard let context = nft_ctx_new(UInt32(NFT_CTX_DEFAULT)) else { throw .unavailable }
    self.context = context
    self.mark = mark
    self.table = "netdev \(table)"
    tableName = table
    guard nft_ctx_buffer_output(context) == 0, nft_ctx_buffer_error(context) == 0 else {
      nft_ctx_free(context)
      throw .unavailable
    }
    // No names for addresses and ports in what is read back, and no elements of sets, which can be many.
    nft_ctx_output_set_flags(
      context, UInt32(NFT_CTX_OUTPUT_NUMERIC_ALL | NFT_CTX_OUTPUT_TERSE))
  }

  deinit { nft_ctx_free(context) }

  /// Puts the table in place, with no flow steered and no lease granted, in one transaction. The calling
  /// thread has to be in the namespace, where the names of interfaces are looked up.
  ///
  /// What an earlier run left is replaced, and the fence does not open in between. Only if a table of that
  /// name is in the way that this version did not make is it thrown away first, in the same transaction;
  /// then a packet can slip between the old and the new chains.
  public func install(uplinks: [Uplink], replicated: [IPAddress]) throws(PacketFilterError) {
    let rules =
      rules(replicated: replicated) + (try chains(of: uplinks, mark: mark))
    let removal = try removal(keeping: uplinks.map(\.interface))

    do {
      try run("add table \(table)\n" + removal + rules)
    } catch .refused {
      try run("add table \(table)\ndelete table \(table)\nadd table \(table)\n" + rules)
    }
    steered = []
    mirrored = []
    datagramFlowCounts = [:]
  }

  /// Steers and fences `uplinks` from now on: for interfaces that have come, or come back, while everything else stays
  /// as it is. What else there was goes only when the new chains are in force.
  ///
  /// - Parameter absent: interfaces that are gone. Their chains, where the kernel has kept them, stay for whatever comes
  ///   under their names.
  public func update(uplinks: [Uplink], absent: [NetworkInterface]) throws(PacketFilterError) {
    try run(try chains(of: uplinks, mark: mark))
    try run(try removal(keeping: uplinks.map(\.interface) + absent))
  }

  /// What takes away the chains of all other interfaces.
  private func removal(keeping interfaces: [NetworkInterface]) throws(PacketFilterError) -> String {
    let wanted = Set(interfaces.flatMap { Self.chainNames($0) })
    return try existingChains().filter { !wanted.contains($0) && $0 != "fence" }.map {
      "add chain \(table) \($0)\nflush chain \(table) \($0)\ndelete chain \(table) \($0)\n"
    }.joined()
  }

  /// The flows that are steered at this moment, whoever put them there, but for those that stand for all flows of
  /// their local end: before `install` those of an earlier run, whose table outlives it.
  public func steeredFlows() throws(PacketFilterError) -> Set<Flow> {
    let listing = try listTable()
    nft_ctx_output_set_flags(context, UInt32(NFT_CTX_OUTPUT_NUMERIC_ALL))
    defer {
      nft_ctx_output_set_flags(context, UInt32(NFT_CTX_OUTPUT_NUMERIC_ALL | NFT_CTX_OUTPUT_TERSE))
    }
    var flows: Set<Flow> = []
    for set in [FlowSet.flows4, .flows6] where listing.contains("set \(set.rawValue) {") {
      let text = try run("list set \(table) \(set.rawValue)\n")
      guard let start = text.firstRange(of: "elements = {")?.upperBound else { continue }
      flows.formUnion(text[start...].prefix { $0 != "}" }.split(separator: ",").compactMap { Self.flow($0) })
    }
    return flows
  }

  /// Reads `5.5.5.5 . 16000 . 5.5.5.4 . 40000 . 6`.
  private static func flow(_ element: Substring) -> Flow? {
    let words = element.split { $0.isWhitespace }
    guard words.count == 9, let local = IPAddress(String(words[0])), let localPort = UInt16(words[2]),
      let remote = IPAddress(String(words[4])), let remotePort = UInt16(words[6]),
      let transport = UInt8(words[8]).flatMap(TransportProtocol.init(rawValue:))
    else { return nil }
    return Flow(transport, local: Endpoint(local, localPort), remote: Endpoint(remote, remotePort))
  }

  /// Changes which flows go through the engine, in one transaction. Adding a flow twice, or removing one that
  /// is not there, is no error.
  ///
  /// A flow whose remote port is 0 stands for all flows of its local end: an unconnected UDP socket. With a UDP flow
  /// come all fragments from and to its local address: only the first one of a datagram has its ports, and need not
  /// come first. A flow that is added is not mirrored, whatever it was before.
  public func steer(adding: [Flow] = [], removing: [Flow] = []) throws(PacketFilterError) {
    let added = Set(adding).subtracting(steered)
    let removed = Set(removing).intersection(steered).subtracting(adding)
    let unmirrored = mirrored.intersection(Set(adding).union(removed))
    guard !added.isEmpty || !removed.isEmpty || !unmirrored.isEmpty else { return }

    var elements = SetElements(table: tableName)
    append(.remove, unmirrored, of: \.mirrored, to: &elements)
    append(.remove, removed, of: { $0.rawValue }, to: &elements)
    append(.add, added, of: { $0.rawValue }, to: &elements)
    var counts = datagramFlowCounts
    for flow in added where flow.transport == .udp { counts[flow.local.address, default: 0] += 1 }
    for flow in removed where flow.transport == .udp { counts[flow.local.address, default: 0] -= 1 }
    counts = counts.filter { $0.value > 0 }
    let (before, after) = (Set(datagramFlowCounts.keys), Set(counts.keys))
    for (change, addresses) in [(.remove, before.subtracting(after)), (.add, after.subtracting(before))]
      as [(SetElements.Change, Set<IPAddress>)]
    {
      for (family, set) in [(IPAddress.Family.v4, "fragments4"), (.v6, "fragments6")] {
        elements.append(change, addresses.filter { $0.family == family }.map { Array($0.bytes) }, of: set)
      }
    }
    try commit(elements)
    steered.subtract(removed)
    steered.formUnion(added)
    mirrored.subtract(unmirrored)
    datagramFlowCounts = counts
  }

  /// Whether `mirror` is in force for a flow.
  public func isMirrored(_ flow: Flow) -> Bool { mirrored.contains(flow) }

  /// Lets what arrives of these flows, as far as they are steered, go to the local stack at once, and copies of it to the
  /// engine; until they are steered anew, or not any more. Of TCP, with both ends.
  public func mirror(_ flows: [Flow]) throws(PacketFilterError) {
    let added = Set(flows).intersection(steered).subtracting(mirrored)
    var elements = SetElements(table: tableName)
    append(.add, added, of: \.mirrored, to: &elements)
    try commit(elements)
    mirrored.formUnion(added)
  }

  /// What arrives of any flow that is steered is the engine's alone from now on.
  public func endMirroring() throws(PacketFilterError) {
    var elements = SetElements(table: tableName)
    append(.remove, mirrored, of: \.mirrored, to: &elements)
    try commit(elements)
    mirrored = []
  }

  /// - Parameter name: of the set in the table.
  private func append(
    _ change: SetElements.Change, _ flows: Set<Flow>, of name: (FlowSet) -> String?,
    to elements: inout SetElements
  ) {
    for set in FlowSet.allCases {
      guard let name = name(set) else { continue }
      elements.append(change, flows.filter { FlowSet($0) == set }.map(set.key), of: name)
    }
  }

  /// Opens the fence for `addresses`, whether or not it was open: for `duration` from now, or with no end.
  ///
  /// A duration counts in whole milliseconds, at least one.
  public func grantLease(_ addresses: [IPAddress], for duration: Duration?) throws(PacketFilterError) {
    guard !addresses.isEmpty else { return }
    var elements = SetElements(table: tableName)
    appendLease(.add, addresses, to: &elements)
    appendLease(.remove, addresses, to: &elements)
    appendLease(.add, addresses, timeout: duration, to: &elements)
    try commit(elements)
  }

  /// Prolongs the lease of all of `addresses` to `duration` from now, if none of them has run out.
  ///
  /// False, and nothing changed, if any had: a lease that was lost for a moment cannot come back this way. The
  /// kernel compares and swaps in one step.
  ///
  /// - Throws: if the table itself is gone, which means that the fence is, too.
  public func renewLease(_ addresses: [IPAddress], for duration: Duration?) throws(PacketFilterError) -> Bool
  {
    guard !addresses.isEmpty else { return true }
    var elements = SetElements(table: tableName)
    appendLease(.remove, addresses, to: &elements)
    appendLease(.add, addresses, timeout: duration, to: &elements)
    do throws(SystemError) {
      try elements.commit(on: elementSocket)
      return true
    } catch {
      guard error.code == ENOENT else { throw .refused("\(error)") }
      // An element is gone, or the table with all of them: then this throws.
      try run("list table \(table)\n")
      return false
    }
  }

  /// Shuts the fence for `addresses`, whether or not it was open.
  public func revokeLease(_ addresses: [IPAddress]) throws(PacketFilterError) {
    guard !addresses.isEmpty else { return }
    var elements = SetElements(table: tableName)
    appendLease(.add, addresses, to: &elements)
    appendLease(.remove, addresses, to: &elements)
    try commit(elements)
  }

  /// How many packets the fence has dropped since ``install(uplinks:replicated:)`` first made the table.
  public func fencedPacketCount() throws(PacketFilterError) -> UInt64 {
    let text = try run("list counter \(table) fenced\n")
    let words = text.split { $0.isWhitespace }
    guard let at = words.firstIndex(of: "packets"), at + 1 < words.count, let count = UInt64(words[at + 1])
    else { throw .refused("unexpected listing of a counter: \(text.prefix(100))") }
    return count
  }

  /// Takes the table away: no steering, and no fence. No error if there is none.
  public func remove() throws(PacketFilterError) {
    try run("add table \(table)\ndelete table \(table)\n")
    steered = []
    mirrored = []
    datagramFlowCounts = [:]
  }

  // MARK: -

  private func commit(_ elements: consuming SetElements) throws(PacketFilterError) {
    do throws(SystemError) {
      try elements.commit(on: elementSocket)
    } catch {
      throw .refused("\(error)")
    }
  }

  @discardableResult
  private func run(_ commands: String) throws(PacketFilterError) -> String {
    guard nft_run_cmd_from_buffer(context, commands) == 0 else {
      let text = nft_ctx_get_error_buffer(context).map { String(cString: $0) } ?? ""
      // Behind the first line stands the command itself, which can have thousands of elements.
      let line = text.split(separator: "\n", omittingEmptySubsequences: true).first ?? "no reason given"
      throw .refused(String(line.prefix(200)))
    }
    return nft_ctx_get_output_buffer(context).map { String(cString: $0) } ?? ""
  }

  private func existingChains() throws(PacketFilterError) -> [String] {
    try listTable().split(separator: "\n").compactMap { line in
      let words = line.split { $0.isWhitespace }
      return words.count == 3 && words[0] == "chain" && words[2] == "{" ? String(words[1]) : nil
    }
  }

  /// The table as nft prints it, without the elements of sets. `add` first, since listing a table that is not
  /// there is an error; an empty table does nothing.
  private func listTable() throws(PacketFilterError) -> String {
    try run("add table \(table)\n")
    return try run("list table \(table)\n")
  }

  private static func chainNames(_ interface: NetworkInterface) -> [String] {
    ["ingress_\(interface.index)", "egress_\(interface.index)"]
  }

  private func appendLease(
    _ change: SetElements.Change, _ addresses: [IPAddress], timeout: Duration? = nil,
    to elements: inout SetElements
  ) {
    // Each once: deleting the same element twice in one batch would fail.
    let addresses = Set(addresses)
    let v4 = addresses.filter { $0.family == .v4 }.map { Array($0.bytes) }
    let v6 = addresses.filter { $0.family == .v6 }.map { Array($0.bytes) }
    for (set, keys) in [("lease4", v4), ("lease6", v6), ("lease6target", v6)] {
      elements.append(change, keys, of: set, timeout: timeout)
    }
  }

  /// The chains of uplinks, filled anew.
  private func chains(of uplinks: [Uplink], mark: UInt32) throws(PacketFilterError) -> String {
    func usable(_ name: String) throws(PacketFilterError) -> String {
      let allowed = name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"),
          UInt8(ascii: "@"):
          true
        default: false
        }
      }
      guard allowed, !name.isEmpty else { throw .unusableName(name) }
      return name
    }

    var lines: [String] = []
    for uplink in uplinks {
      let name = try usable(uplink.interface.name)
      let tap = try usable(uplink.tapName)
      let chains = Self.chainNames(uplink.interface)
      for (chain, hook, priority) in [(chains[0], "ingress", -300), (chains[1], "egress", 300)] {
        lines.append(
          "add chain \(table) \(chain) { type filter hook \(hook) device \"\(name)\" "
            + "priority \(priority); policy accept; }")
        lines.append("flush chain \(table) \(chain)")
      }
      lines.append("add rule \(table) \(chains[1]) jump fence")
      lines.append("add rule \(table) \(chains[1]) meta mark \(mark) accept")
      // What is known of an IPv6 fragment's transport depends on which one it is.
      let isFragment = "meta l4proto udp ip frag-off & 0x3fff != 0"
      for (inbound, outbound) in [
        ("\(isFragment) ip daddr @fragments4", "\(isFragment) ip saddr @fragments4"),
        ("ip6 daddr @fragments6 exthdr frag exists", "ip6 saddr @fragments6 exthdr frag exists"),
      ] {
        lines.append("add rule \(table) \(chains[0]) \(inbound) fwd to \"\(tap)\"")
        lines.append("add rule \(table) \(chains[1]) \(outbound) fwd to \"\(tap)\"")
      }
      for set in FlowSet.allCases {
        let match = set.condition
        if let mirrored = set.mirrored {
          lines.append(
            "add rule \(table) \(chains[0]) \(set.inbound) @\(mirrored) dup to \"\(tap)\" accept"
          )
        }
        lines.append(
          "add rule \(table) \(chains[0]) \(match)\(set.inbound) @\(set.rawValue) fwd to \"\(tap)\"")
        lines.append(
          "add rule \(table) \(chains[1]) \(match)\(set.outbound) @\(set.rawValue) fwd to \"\(tap)\"")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// Sets and the fence, with no flow steered and no lease granted.
  private func rules(replicated: [IPAddress]) -> String {
    let v4 = replicated.filter { $0.family == .v4 }.map(\.description)
    let v6 = replicated.filter { $0.family == .v6 }
    var lines = [
      "add set \(table) replicated4 { type ipv4_addr; }",
      "add set \(table) replicated6 { type ipv6_addr; }",
      "add set \(table) replicated6target { typeof @th,64,128; }",
      "add set \(table) lease4 { type ipv4_addr; flags timeout; }",
      "add set \(table) lease6 { type ipv6_addr; flags timeout; }",
      "add set \(table) lease6target { typeof @th,64,128; flags timeout; }",
      "flush set \(table) replicated4", "flush set \(table) replicated6",
      "flush set \(table) replicated6target",
      "flush set \(table) lease4", "flush set \(table) lease6", "flush set \(table) lease6target",
      "add set \(table) fragments4 { type ipv4_addr; }", "flush set \(table) fragments4",
      "add set \(table) fragments6 { type ipv6_addr; }", "flush set \(table) fragments6",
      "add counter \(table) fenced",
      "add chain \(table) fence", "flush chain \(table) fence",
    ]
    for set in FlowSet.allCases {
      lines.append("add set \(table) \(set.rawValue) { type \(set.type); }")
      lines.append("flush set \(table) \(set.rawValue)")
      if let mirrored = set.mirrored {
        lines.append("add set \(table) \(mirrored) { type \(set.type); }")
        lines.append("flush set \(table) \(mirrored)")
      }
    }
    for (set, elements) in [
      ("replicated4", v4), ("replicated6", v6.map(\.description)),
      ("replicated6target", v6.map(\.hexadecimal)),
    ] where !elements.isEmpty {
      lines.append("add element \(table) \(set) { \(elements.joined(separator: ", ")) }")
    }
    for match in [
      "ip saddr @replicated4 ip saddr != @lease4",
      "ip6 saddr @replicated6 ip6 saddr != @lease6",
      "arp saddr ip @replicated4 arp saddr ip != @lease4",
      "icmpv6 type nd-neighbor-advert @th,64,128 @replicated6target @th,64,128 != @lease6target",
    ] {
      lines.append("add rule \(table) fence \(match) counter name fenced drop")
    }
    return lines.joined(separator: "\n") + "\n"
  }
}

/// The sets of steered flows, by the name they have in the table.
private enum FlowSet: String, CaseIterable {
  case flows4, flows6
  /// All flows of one local end.
  case services4, services6

  init(_ flow: Flow) {
    switch (flow.local.address.family, flow.remote.port == 0) {
    case (.v4, false): self = .flows4
    case (.v6, false): self = .flows6
    case (.v4, true): self = .services4
    case (.v6, true): self = .services6
    }
  }

  /// The set of those that are mirrored.
  var mirrored: String? {
    switch self {
    case .flows4: "mirrored4"
    case .flows6: "mirrored6"
    case .services4, .services6: nil
    }
  }

  var type: String {
    switch self {
    case .flows4: "ipv4_addr . inet_service . ipv4_addr . inet_service . inet_proto"
    case .flows6: "ipv6_addr . inet_service . ipv6_addr . inet_service . inet_proto"
    case .services4: "ipv4_addr . inet_service . inet_proto"
    case .services6: "ipv6_addr . inet_service . inet_proto"
    }
  }

  /// What a packet must be for a look into the set, which costs more than anything else in a chain. The transport is a
  /// part of the keys, so that others than those of replicated sockets are not found.
  var condition: String {
    switch self {
    case .flows4, .flows6: ""
    // Unconnected sockets are of UDP only.
    case .services4, .services6: "meta l4proto udp "
    }
  }

  /// The key of a packet that arrives.
  var inbound: String {
    switch self {
    case .flows4: "ip daddr . th dport . ip saddr . th sport . meta l4proto"
    case .flows6: "ip6 daddr . th dport . ip6 saddr . th sport . meta l4proto"
    case .services4: "ip daddr . th dport . meta l4proto"
    case .services6: "ip6 daddr . th dport . meta l4proto"
    }
  }

  /// The key of a packet that leaves.
  var outbound: String {
    switch self {
    case .flows4: "ip saddr . th sport . ip daddr . th dport . meta l4proto"
    case .flows6: "ip6 saddr . th sport . ip6 daddr . th dport . meta l4proto"
    case .services4: "ip saddr . th sport . meta l4proto"
    case .services6: "ip6 saddr . th sport . meta l4proto"
    }
  }

  /// The key of a flow's element: each part fills up 32-bit words of its own.
  func key(_ flow: Flow) -> [UInt8] {
    func end(_ endpoint: Endpoint) -> [UInt8] {
      endpoint.address.bytes + [UInt8(endpoint.port >> 8), UInt8(truncatingIfNeeded: endpoint.port), 0, 0]
    }
    let transport: [UInt8] = [flow.transport.rawValue, 0, 0, 0]
    switch self {
    case .flows4, .flows6: return end(flow.local) + end(flow.remote) + transport
    case .services4, .services6: return end(flow.local) + transport
    }
  }
}

extension IPAddress {
  /// All bits as one number, the way nft writes raw payload.
  fileprivate var hexadecimal: String {
    "0x"
      + bytes.map { byte in
        let text = String(byte, radix: 16)
        return byte < 16 ? "0" + text : text
      }.joined()
  }
}
