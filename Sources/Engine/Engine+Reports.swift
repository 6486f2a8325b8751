import Control
import Descriptors
import EngineConfiguration
import Glibc
import LinuxNetworking
import Packet
import Replication

// What `jsrctl show` shows.
extension Engine {
  func show(_ what: ControlRequest.Report, reply: ReplyPort) {
    switch what {
    case .status: reply.send(.status(status()))
    case .sockets: reply.send(.sockets(node.sockets.map(report)))
    case .connections: reply.send(.connections(node.sockets.compactMap(connection)))
    case .statistics: reply.send(.statistics(statistics()))
    case .memory: reply.send(.memory(memory()))
    }
  }

  private func status() -> StatusReport {
    let arbiter = node.arbiter
    let lease: StatusReport.Lease =
      switch arbiter.lease {
      case .none: .none
      case .timed: .timed
      case .endless: .endless
      }
    return StatusReport(
      node: configuration.node, slot: configuration.slot, role: MastershipRole(arbiter.phase),
      mastership: "\(arbiter.phase)",
      lease: lease, term: arbiter.term,
      peer: StatusReport.Peer(
        node: node.peerName, slot: 1 - configuration.slot, linkUp: arbiter.linkIsUp,
        linkVersion: node.linkVersion,
        role: arbiter.linkIsUp ? arbiter.peerPhase.map(MastershipRole.init) ?? .none : .none,
        inStep: arbiter.standbyIsReady || (arbiter.phase == .secondary && arbiter.linkIsUp)),
      arbiter: configuration.mastership.arbiter.rawValue, mode: configuration.mode.rawValue,
      addresses: configuration.addresses.map(\.description),
      uplinks: instances[0].uplinks.map { StatusReport.Uplink(name: $0.name, running: $0.isRunning) },
      instances: instances.count == 1 ? nil : zip(configuration.instances, instances.dropFirst()).map(report),
      linkSecurity: linkCredentials == nil ? .insecure : .tls,
      certificateExpires: linkCredentials.map { UTC.text($0.certificateEnd) },
      authorityExpires: linkCredentials.map { UTC.text($0.authorityEnd) },
      version: Self.version, uptimeMilliseconds: (Self.now() - startedAt).milliseconds)
  }

  private func report(_ configured: Configuration.Instance, _ instance: RoutingInstance)
    -> StatusReport.Instance
  {
    var report = StatusReport.Instance(
      name: configured.name, addresses: configured.addresses.map(\.description),
      uplinks: instance.uplinks.map { StatusReport.Uplink(name: $0.name, running: $0.isRunning) })
    switch configured.place {
    case .namespace(let path): report.namespace = path
    case .vrf(let device): report.vrf = device
    }
    return report
  }

  /// The name of the routing instance of a flow, unless it is the main one.
  private func instanceName(_ flow: Flow?) -> String? { flow.flatMap { instance(of: $0)?.name } }

  private func role(of view: ReplicationNode.SocketView) -> MastershipRole {
    switch view.phase {
    case .starting, .replicating, .ending: .primary
    case .attached, .receiving, .snooping, .merging: .secondary
    case .allocated, .unreplicated: .none
    }
  }

  func report(_ view: ReplicationNode.SocketView) -> SocketReport {
    let isReplicated =
      switch view.phase {
      case .replicating, .ending, .snooping: true
      case .allocated, .attached, .starting, .unreplicated, .receiving, .merging: false
      }
    func layer(_ position: UInt64) -> SocketReport.Layer {
      SocketReport.Layer(initialized: isReplicated, logPosition: position)
    }
    let state: SocketState =
      switch view.phase {
      case .allocated, .attached: .allocated
      case .starting, .receiving: .starting
      case .replicating, .ending: sockets[view.handle]?.closeRequested == nil ? .replicating : .closing
      case .snooping: .snooping
      case .merging: .merged
      case .unreplicated: .unreplicated
      }
    return SocketReport(
      handle: view.handle, peerHandle: view.peer, role: role(of: view), state: state,
      application: owners[view.handle].flatMap { control.description(of: $0)?.application } ?? "",
      instance: instanceName(view.flow), proto: view.flow.map { "\($0.transport)" },
      local: view.flow.map { "\($0.local)" },
      foreign: view.flow.map { "\($0.remote)" }, sdrl: layer(view.positions.sdrl),
      prl: layer(view.positions.prl), psrm: layer(view.positions.psrm))
  }

  private func connection(_ view: ReplicationNode.SocketView) -> ConnectionReport? {
    guard let flow = view.flow else { return nil }
    if flow.transport == .udp { return datagramReport(view, flow) }
    guard let block = view.block else { return nil }
    var unread = 0
    var unacknowledged = max(0, block.sendNext - block.sendUnacknowledged)
    var state = "ESTABLISHED"
    if let socket = sockets[view.handle], socket.closeRequested == nil,
      let info = try? TCPRepair.info(of: socket.descriptor)
    {
      unread = Int(info.unread)
      unacknowledged = Int(info.unacknowledged)
      state = Self.stateName(info.state)
    } else if let pair = pairs[view.handle] {
      unread = pair.queuedByteCount
    }
    return ConnectionReport(
      instance: instanceName(flow), proto: "\(flow.transport)", receiveQueue: unread,
      sendQueue: unacknowledged, local: "\(flow.local)",
      foreign: "\(flow.remote)", state: state, role: role(of: view), handle: view.handle,
      sendUnacknowledged: block.sendUnacknowledged.rawValue, sendNext: block.sendNext.rawValue,
      receiveNext: block.receiveNext.rawValue, sendWindow: block.sendWindow,
      receiveWindow: block.receiveWindow, receiveRightEdge: block.advertisedEdge.rawValue,
      maximumSegmentSize: Int(block.negotiated.maximumSegmentSize),
      sendWindowScale: block.negotiated.sendWindowScale,
      receiveWindowScale: block.negotiated.receiveWindowScale, sack: block.negotiated.sackPermitted,
      timestamps: block.negotiated.timestamps,
      timestampRecent: block.negotiated.timestamps ? block.timestampRecent : nil,
      timestampLast: block.negotiated.timestamps ? block.timestampSent : nil)
  }

  private func datagramReport(_ view: ReplicationNode.SocketView, _ flow: Flow) -> ConnectionReport? {
    var queues = UDPSocket.Queues()
    if let socket = sockets[view.handle], socket.closeRequested == nil {
      queues = (try? UDPSocket.queues(of: socket.descriptor)) ?? queues
    } else if let pair = pairs[view.handle] {
      queues.received = pair.queuedByteCount
    }
    return ConnectionReport(
      instance: instanceName(flow), proto: "\(flow.transport)", receiveQueue: queues.received,
      sendQueue: queues.sent,
      local: "\(flow.local)", foreign: "\(flow.remote)",
      state: flow.isUnconnected ? "UNCONNECTED" : "CONNECTED", role: role(of: view), handle: view.handle)
  }

  /// The names of RFC 9293 for the kernel's numbers (include/net/tcp_states.h).
  private static func stateName(_ state: UInt8) -> String {
    let names = [
      "", "ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED",
      "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING",
    ]
    return Int(state) < names.count ? names[Int(state)] : "\(state)"
  }

  private func statistics() -> [StatisticsReport] {
    var lines: [StatisticsReport] = []
    func add(_ layer: String, _ name: String, _ value: some BinaryInteger, _ unit: String) {
      lines.append(
        StatisticsReport(layer: layer, name: name, value: Int64(clamping: value), unit: unit))
    }
    let now = node.occupancy
    let peaks = node.peaks
    let snooped = snoopedByteCount
    add("engine", "sockets", now.sockets, "sockets")
    add("engine", "flows", now.flows + steeringRemovals.count, "flows")
    add("engine", "held_packets", now.heldPackets, "packets")
    add("engine", "held_bytes", now.heldBytes, "bytes")
    add("engine", "waiting_packets", now.waitingPackets, "packets")
    add("engine", "waiting_bytes", now.waitingBytes, "bytes")
    add("engine", "held_packets_max", peaks.heldPackets, "packets")
    add("engine", "held_bytes_max", peaks.heldBytes, "bytes")
    add("engine", "stored_frames", store.count + fragments.count, "packets")
    add("engine", "buffered_bytes", now.bufferedBytes + snooped, "bytes")
    add("engine", "snoop_pairs", pairs.count + endingPairs.count, "pairs")
    add("engine", "descriptors", Self.openDescriptors(), "descriptors")
    let passed = instances.reduce(UplinkCounters()) { $0 + $1.counters }
    add("engine", "frames_read", passed.framesRead, "packets")
    add("engine", "frames_ignored", counters.framesIgnored, "packets")
    add("engine", "frames_delivered", passed.framesDelivered, "packets")
    add("engine", "frames_sent", passed.framesSent, "packets")
    add("engine", "frames_refused", counters.framesRefused, "packets")
    add("engine", "fragments_dropped", counters.fragmentsDropped, "packets")

    let counts = node.statistics
    add("kkcm", "link_sessions", counts.linkSessions, "links")
    add("kkcm", "connections_refused", link.refusalCount, "connections")
    add("kkcm", "records_received", counts.recordsReceived, "records")
    add("kkcm", "records_stale", counts.staleRecords, "records")
    add("kkcm", "records_unacknowledged", now.unacknowledgedRecords, "records")
    add("kkcm", "bytes_unacknowledged", now.unacknowledgedRecordBytes, "bytes")
    add("kkcm", "records_unacknowledged_max", peaks.unacknowledgedRecords, "records")
    add("kkcm", "bytes_unacknowledged_max", peaks.unacknowledgedRecordBytes, "bytes")
    add("kkcm", "acknowledgements_sent", counts.acknowledgementsSent, "records")
    add("kkcm", "acknowledgements_received", counts.acknowledgementsReceived, "records")
    add("iha", "sockets_replicated", counts.socketsReplicated, "sockets")
    add("iha", "sockets_unreplicated", counts.socketsUnreplicated, "sockets")
    add("iha", "sockets_merged", counts.socketsMerged, "sockets")
    add("sdrl", "replication_buffer_bytes", now.replicationBufferBytes, "bytes")
    add("sdrl", "packets", counts.outboundPackets, "packets")
    add("sdrl", "records", counts.sdrlRecordsSent, "records")
    add("sdrl", "bytes", counts.sdrlBytesSent, "bytes")
    add("sdrl", "dropped_gap", counts.droppedForGap, "packets")
    add("sdrl", "dropped_acknowledged", counts.droppedAsAcknowledged, "packets")
    add("prl", "dropped_unknown_acknowledgment", counts.droppedForUnknownAcknowledgment, "packets")
    add("prl", "packets", counts.inboundPackets, "packets")
    add("prl", "records", counts.prlRecordsSent, "records")
    add("prl", "bytes", counts.prlBytesSent, "bytes")
    add("prl", "dropped_checksum", counts.droppedForChecksum, "packets")
    add("prl", "old_duplicates", counts.oldDuplicates, "packets")
    add("iha", "pauses", counts.pauses, "pauses")
    add("prl", "forwarded_late", counts.forwardedLate, "packets")
    add("psrm", "records", counts.psrmRecordsSent, "records")
    add("engine", "passed_at_once", counts.passedAtOnce, "packets")
    add("engine", "held", counts.held, "packets")
    let (sdrl, prl) = (counts.sdrlReinjection, counts.prlReinjection)
    add("engine", "released_acknowledged", sdrl.acknowledged + prl.acknowledged, "packets")
    add("engine", "released_unreplicated", sdrl.afterUnreplication + prl.afterUnreplication, "packets")
    add("engine", "discarded_handover", sdrl.discarded + prl.discarded, "packets")
    for (layer, reinjection) in [("sdrl", sdrl), ("prl", prl)] {
      add(layer, "reinjected_acknowledged", reinjection.acknowledged, "packets")
      add(layer, "reinjected_rejected", reinjection.rejected, "packets")
      add(layer, "reinjected_timeout", reinjection.timedOut, "packets")
      add(layer, "reinjected_unreplicated", reinjection.unreplicated, "packets")
      add(layer, "reinjected_replayed", reinjection.replayed, "packets")
      add(layer, "discarded", reinjection.discarded, "packets")
    }
    add("engine", "dropped_limit", counts.droppedForLimit, "packets")
    add("engine", "datagrams_dropped", counts.datagramsDropped, "packets")
    add("engine", "dropped_secondary", counts.droppedAsSecondary, "packets")
    add("engine", "stray_packets", counts.strayPackets, "packets")
    add("engine", "segments_resent", counters.segmentsResent, "packets")
    add("engine", "merge_time", counters.mergeNanoseconds / 1_000, "microseconds")
    add("engine", "restore_time", counters.restoreNanoseconds / 1_000, "microseconds")
    add("engine", "wrong_signatures", counters.wrongSignatures, "packets")
    add("mastership", "term", node.arbiter.term, "terms")
    add("mastership", "probes_sent", counters.probesSent, "probes")
    add("mastership", "leases_lost", counters.leasesLost, "leases")
    return instances.count == 1 ? lines : lines + instances.flatMap(statistics)
  }

  /// What can be told apart by routing instance.
  private func statistics(of instance: RoutingInstance) -> [StatisticsReport] {
    let sockets = node.sockets.count { $0.flow?.instance == instance.id }
    let counters = instance.counters
    return [
      ("sockets", Int64(sockets), "sockets"),
      ("frames_read", Int64(clamping: counters.framesRead), "packets"),
      ("frames_delivered", Int64(clamping: counters.framesDelivered), "packets"),
      ("frames_sent", Int64(clamping: counters.framesSent), "packets"),
    ].map {
      StatisticsReport(
        layer: "engine", instance: instance.name ?? StatusReport.mainInstance, name: $0.0, value: $0.1,
        unit: $0.2)
    }
  }

  /// Bytes that snooping applications have not read.
  private var snoopedByteCount: Int {
    pairs.values.reduce(0) { $0 + $1.queuedByteCount } + endingPairs.reduce(0) { $0 + $1.queuedByteCount }
  }

  private func memory() -> [MemoryReport] {
    var lines: [MemoryReport] = []
    func add(_ area: String, _ used: Int, of limit: Int?, _ unit: String) {
      lines.append(MemoryReport(area: area, used: Int64(used), limit: limit.map { Int64($0) }, unit: unit))
    }
    let now = node.occupancy
    let limits = configuration.limits
    let snoopPairs = pairs.count + endingPairs.count
    add("resident", Self.residentByteCount(), of: nil, "bytes")
    add("hold_buffer", now.heldBytes, of: limits.holdBuffer, "bytes")
    add("replication_log", now.unacknowledgedRecordBytes, of: limits.holdBuffer, "bytes")
    add("snoop_buffers", snoopedByteCount, of: snoopPairs * 2 * limits.snoopBuffer, "bytes")
    // Streams of the secondary that wait for the peer's acknowledgement or for bytes before them.
    add("takeover_buffers", now.bufferedBytes, of: nil, "bytes")
    add("handles", now.sockets, of: limits.sockets, "handles")
    add("flows", now.flows + steeringRemovals.count, of: nil, "flows")
    add("clients", control.clientCount, of: ControlServer.clientLimit, "clients")
    add("descriptors", Self.openDescriptors(), of: Self.descriptorLimit(), "descriptors")
    return lines
  }

  /// Memory of the process that is not swapped out (proc_pid_statm(5)).
  private static func residentByteCount() -> Int {
    guard let file = fopen("/proc/self/statm", "re") else { return 0 }
    defer { fclose(file) }
    var text = [CChar](repeating: 0, count: 256)
    guard fgets(&text, Int32(text.count), file) != nil else { return 0 }
    let fields = text.prefix { $0 != 0 }.split(separator: CChar(bitPattern: UInt8(ascii: " ")))
    guard fields.count > 1 else { return 0 }
    let pages = fields[1].reduce(0) { $0 * 10 + Int($1) - 48 }
    return pages * sysconf(Int32(_SC_PAGESIZE))
  }

  private static func descriptorLimit() -> Int? {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur != .max else {
      return nil
    }
    return Int(clamping: limit.rlim_cur)
  }

  private static func openDescriptors() -> Int {
    guard let directory = opendir("/proc/self/fd") else { return 0 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
      if entry.pointee.d_name.0 != 46 { count += 1 }
    }
    // The directory itself was open while it was read.
    return count - 1
  }
}

extension MastershipRole {
  /// A primary that waits for its lease to come back is still the one that has the sockets.
  init(_ phase: MastershipPhase) {
    self =
      switch phase {
      case .primary, .suspended: .primary
      case .secondary: .secondary
      case .starting, .takingOver, .handingOver: .none
      }
  }
}
