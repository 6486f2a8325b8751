import Replication

/// One run of a scenario, from power-up to the end of the last connection.
public enum Run {
  /// What a run came to.
  public struct Outcome: Sendable {
    public var violation: Violation?
    public var statistics: RunStatistics
  }

  /// Plays `scenario`; the same scenario gives the same outcome, always.
  ///
  /// - Parameter trace: is told what happens, a line at a time.
  public static func play(_ scenario: Scenario, trace: ((String) -> Void)? = nil) -> Outcome {
    let world = World(scenario, trace: trace)
    for machine in world.machines { machine.powerOn() }
    for (number, plan) in scenario.plans.enumerated() {
      world.after(plan.opensAt) { PeerHost.open(plan, number: number, in: world) }
    }
    for fault in scenario.faults { world.after(fault.at) { fault.strike(world) } }
    resolveNowAndThen(world)
    world.run(until: scenario.faultsEnd)
    if world.violation == nil { heal(world) }
    world.end()
    world.statistics.lost = world.conversations.count { if case .lost = $0.fate { true } else { false } }
    return Outcome(violation: world.violation, statistics: world.statistics)
  }

  private static func resolveNowAndThen(_ world: World) {
    world.after(.seconds(1)) {
      world.uplink.resolveAgain()
      resolveNowAndThen(world)
    }
  }

  /// Makes everything whole, and waits for the good end of whatever must live.
  private static func heal(_ world: World) {
    world.tell("world", "nothing goes wrong any more")
    world.isHealing = true
    Fault.undoAll(world)
    let bound: TrueTime = .seconds(150)
    let end = world.now + bound
    while world.violation == nil, world.now < end {
      world.run(until: world.now + .milliseconds(200))
      if isOver(world) { break }
    }
    guard world.violation == nil else { return }
    for conversation in world.conversations where conversation.mustLive {
      world.broken(
        .liveness,
        "\(conversation.name) has not come to its end \(bound / 1_000_000_000) s after the last fault: the peer has "
          + "\(conversation.peerRead) of \(conversation.plan.localTotal) bytes, sent "
          + "\(conversation.peerWritten) of \(conversation.plan.peerTotal)")
    }
    let isInStep = world.machines.contains { $0.engine?.node.arbiter.standbyIsReady == true }
    if !isInStep {
      world.broken(.liveness, "the pair is not in step \(bound / 1_000_000_000) s after the last fault")
    }
    for machine in world.machines {
      let leftovers = machine.engine!.leftovers
      if !leftovers.isEmpty {
        world.broken(.accounting, "\(machine.name) is left with \(leftovers.joined(separator: "; "))")
      }
    }
  }

  private static func isOver(_ world: World) -> Bool {
    let masters = world.machines.filter { $0.engine?.phase == .primary }
    return masters.count == 1 && masters[0].engine!.node.arbiter.standbyIsReady
      && !world.conversations.contains { $0.mustLive }
      && world.machines.allSatisfy { $0.sockets.isEmpty && $0.engine!.leftovers.isEmpty }
  }
}

// MARK: Faults

extension Fault {
  func strike(_ world: World) {
    guard !world.isHealing else { return }
    world.tell("FAULT", "\(self)")
    func later(_ body: @escaping () -> Void) {
      world.after(duration) { if !world.isHealing { body() } }
    }
    switch kind {
    case .machineCrash(let slot):
      let machine = world.machines[slot]
      machine.powerOff()
      later { machine.powerOn() }
    case .engineCrash(let slot, let place):
      let machine = world.machines[slot]
      machine.engine?.ambush(place) {
        machine.killEngine()
        later { machine.startEngine() }
      }
    case .engineSleep(let slot, let place):
      let engine = world.machines[slot].engine
      engine?.ambush(place) { [weak engine] in engine?.sleep(for: duration) }
    case .applicationCrash(let slot):
      let machine = world.machines[slot]
      machine.applicationIsMissing = true
      machine.killApplication()
      later { machine.startApplication() }
    case .applicationStuck(let slot):
      guard let application = world.machines[slot].application else { return }
      application.stick()
      later { application.unstick() }
    case .linkCut:
      Judge.pathFails(world)
      for slot in 0...1 { world.link.setCarries(false, from: slot) }
      later { for slot in 0...1 { world.link.setCarries(true, from: slot) } }
    case .linkOneWay(let slot):
      Judge.pathFails(world)
      world.link.setCarries(false, from: slot)
      later { world.link.setCarries(true, from: slot) }
    case .linkStall(let slot):
      Judge.pathFails(world)
      world.link.setSlowness(min(duration, .milliseconds(400)), from: slot)
      later { world.link.setSlowness(0, from: slot) }
    case .linkReset:
      Judge.pathFails(world)
      world.link.reset()
    case .linkCarrier:
      Judge.pathFails(world)
      world.link.setCarrier(false)
      later { world.link.setCarrier(true) }
    case .uplinkCarrier(let slot):
      Judge.pathFails(world)
      world.uplink.setCarrier(false, of: slot)
      later { world.uplink.setCarrier(true, of: slot) }
    case .uplinkCut(let slot):
      Judge.pathFails(world)
      world.uplink.setCarries(false, of: slot)
      later { world.uplink.setCarries(true, of: slot) }
    case .uplinkLoss(let percent):
      Judge.pathFails(world)
      world.uplink.lossBetweenREs = Double(percent) / 100
      later { world.uplink.lossBetweenREs = 0 }
    case .switchover(let slot):
      world.machines[slot].engine?.input(.request { $0.askForMastership() })
    case .unreplicateAll: for machine in world.machines { machine.application?.unreplicateAll() }
    case .oldDuplicates: PeerHost.replayOldFrames(in: world)
    case .forgeries: PeerHost.forge(in: world)
    case .machineSleep(let slot):
      world.machines[slot].stop(withClock: false)
      later { world.machines[slot].goOn() }
    case .machineFreeze(let slot):
      Judge.clockStops(world)
      world.machines[slot].stop(withClock: true)
      later { world.machines[slot].goOn() }
    case .acknowledgementsHeld(let slot, let layer):
      Judge.pathFails(world)
      let engine = world.machines[slot].engine
      engine?.holdAcknowledgements(of: layer, true)
      later { [weak engine] in engine?.holdAcknowledgements(of: layer, false) }
    case .timeoutChanged(let slot, let layer, let time):
      world.machines[slot].engine?.input(.request { $0.setTimeout(of: layer, .milliseconds(time)) })
    case .recordsLogged(let slot, let isOn):
      world.machines[slot].engine?.input(.request { $0.logRecords(isOn) })
    }
  }

  /// Brings back whatever is stopped, cut or gone.
  static func undoAll(_ world: World) {
    for slot in 0...1 {
      world.link.setCarries(true, from: slot)
      world.link.setSlowness(0, from: slot)
      world.uplink.setCarrier(true, of: slot)
      world.uplink.setCarries(true, of: slot)
    }
    if !world.link.hasCarrier { world.link.setCarrier(true) }
    world.uplink.lossBetweenREs = 0
    for machine in world.machines {
      machine.applicationIsMissing = false
      if machine.isStopped { machine.goOn() }
      if !machine.isOn { machine.powerOn() }
      machine.startEngine()
      machine.startApplication()
      machine.engine?.endTroubles()
      machine.application?.unstick()
    }
  }
}
