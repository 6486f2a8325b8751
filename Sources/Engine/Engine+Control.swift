import Control
import Descriptors
import EngineConfiguration
import Glibc
import Logging
import Packet
import Replication

// What clients of the control socket ask for.
extension Engine: ControlDelegate {
  public func control(
    _ request: ControlRequest.Body, descriptors: consuming DescriptorParcel, from client: ClientID,
    reply: ReplyPort
  ) {
    var descriptors = descriptors
    switch request {
    case .hello:
      reply.send(
        .welcome(
          ControlReply.Welcome(
            node: configuration.node, slot: configuration.slot, engineVersion: Self.version)))
    case .subscribe: preconditionFailure("the control server subscribes clients itself")
    case .allocate:
      do throws(SocketError) {
        let handle = try node.allocate()
        owners[handle] = client
        reply.send(.handle(handle))
      } catch { reply.refuse(error) }
    case .attach(let primary, let transport): attach(primary, transport, owner: client, reply: reply)
    case .free(let handle):
      guard let reply = checkOwner(of: handle, client, reply) else { return }
      do throws(SocketError) {
        try node.free(handle)
        owners[handle] = nil
        sockets[handle] = nil
        forgetPair(handle)
        reply.send(.done)
      } catch { reply.refuse(error) }
    case .replicate(let primary, let secondary):
      guard let reply = checkOwner(of: primary, client, reply) else { return }
      guard let descriptor = descriptors.takeFirst() else {
        return reply.refuse(.descriptors, "the request takes the descriptor of a socket")
      }
      replicate(descriptor, primary, secondary, reply: reply)
    case .unreplicate(let handle):
      guard let reply = checkOwner(of: handle, client, reply) else { return }
      do throws(SocketError) {
        let reason: UnreplicateReason = isOperator(client) ? .requestedByOperator : .requested
        try node.unreplicate(handle, because: reason, now: Self.now())
        // A pair that no handshake has filled is gone at once, and its handle with it.
        if isStale(handle) {
          if isOperator(client) { publish(.unreplicated(handle, reason: "\(reason)"), to: owners[handle]) }
          owners[handle] = nil
          forgetPair(handle)
        }
        reply.send(.done)
      } catch { reply.refuse(error) }
    case .merge(let handle, let signingKey):
      guard let reply = checkOwner(of: handle, client, reply) else { return }
      merge(handle, signingKey: signingKey, reply: reply)
    case .close(let handle):
      // A merged socket has no handle any more, and no owner either.
      if owners[handle] == nil, isStale(handle) { return reply.send(.done) }
      guard let reply = checkOwner(of: handle, client, reply) else { return }
      close(handle, reply: reply)
    case .beginRecords(let handle):
      guard let reply = checkOwner(of: handle, client, reply) else { return }
      beginRecords(handle, reply: reply)
    case .registerService(let name): register(name, client, reply: reply)
    case .unregisterService(let name): unregister(name, client, reply: reply)
    case .requestReplication(let primary, let service, let note):
      guard let reply = checkOwner(of: primary, client, reply) else { return }
      guard let descriptor = descriptors.takeFirst() else {
        return reply.refuse(.descriptors, "the request takes the descriptor of a socket")
      }
      requestReplication(of: descriptor, primary, service, note, reply: reply)
    case .acceptReplication(let primary):
      guard let reply = checkRequest(primary, client, reply) else { return }
      let transport = node.transport(requestedFor: primary) ?? .tcp
      attach(primary, transport, owner: client, answersRequest: true, reply: reply)
    case .declineReplication(let primary, let reason):
      guard let reply = checkRequest(primary, client, reply) else { return }
      do throws(SocketError) {
        try node.declineRequest(primary, because: reason)
        reply.send(.done)
      } catch { reply.refuse(error) }
    case .status(let handle):
      do throws(HandleError) {
        reply.send(.socket(report(try node.socket(handle))))
      } catch { reply.refuse(SocketError.handle(error)) }
    case .show(let what): show(what, reply: reply)
    case .master(let action): move(action, reply: reply)
    case .set(let name, let value): set(name, to: value, reply: reply)
    case .get(let name): get(name, reply: reply)
    case .logLevel(let level):
      changeLogLevel(to: Logger.Level(level))
      reply.send(.done)
    case .holdAcknowledgements(let layer, let isOn): holdAcknowledgements(of: layer, isOn, reply: reply)
    }
    drain(.nothing)
  }

  public func controlBatchEnded() { settle() }

  private func attach(
    _ primary: Handle, _ transport: TransportProtocol, owner: ClientID, answersRequest: Bool = false,
    reply: ReplyPort
  ) {
    do throws(SocketError) {
      let handle = try node.attach(primary: primary, transport: transport)
      do throws(SystemError) {
        let (pair, rcv, snd) = try SnoopPair.open(for: transport)
        let parcel = DescriptorParcel(owning: [rcv, snd])
        if answersRequest {
          do throws(SocketError) {
            try node.answerRequest(primary, with: handle)
          } catch {
            try? node.free(handle)
            return reply.refuse(error)
          }
        }
        pairs[handle] = pair
        owners[handle] = owner
        reply.send(.handle(handle), descriptors: parcel)
      } catch {
        try node.free(handle)
        reply.refuse(.system, "no snoop pair: \(error)")
      }
    } catch { reply.refuse(error) }
  }

  private func isOperator(_ client: ClientID) -> Bool { control.description(of: client)?.role == .operator }

  /// Gives the port back if `client` may speak for `handle`, as its owner or as an operator; refuses otherwise.
  private func checkOwner(of handle: Handle, _ client: ClientID, _ reply: ReplyPort) -> ReplyPort? {
    do throws(HandleError) {
      _ = try node.socket(handle)
    } catch {
      reply.refuse(SocketError.handle(error))
      return nil
    }
    guard owners[handle] == client || isOperator(client) else {
      reply.refuse(.foreignHandle, "handle \(handle) belongs to another application")
      return nil
    }
    return reply
  }

  private func isStale(_ handle: Handle) -> Bool {
    do throws(HandleError) {
      _ = try node.socket(handle)
      return false
    } catch {
      if case .stale = error { return true }
      return false
    }
  }

  private func move(_ action: ControlRequest.MastershipAction, reply: ReplyPort) {
    let now = Self.now()
    do throws(PairArbiter.RequestError) {
      switch action {
      case .acquire: try node.acquireMastership(now: now)
      case .release: try node.releaseMastership(now: now)
      case .switch:
        if node.arbiter.phase == .primary {
          try node.releaseMastership(now: now)
        } else {
          try node.acquireMastership(now: now)
        }
      }
      reply.send(.done)
    } catch {
      let code: RefusalCode =
        switch error {
        case .notPrimary: .notPrimary
        case .noSecondary: .noSecondary
        case .alreadyPrimary, .busy: .wrongState
        }
      reply.refuse(code, "\(error)")
    }
  }
}

extension ReplyPort {
  /// Refuses with what the protocol said.
  func refuse(_ error: SocketError) {
    let code: RefusalCode =
      switch error {
      case .handle(.tableFull), .handle(.exhausted): .limit
      case .handle: .unknownHandle
      case .wrongPhase, .flowInUse, .plainBytes, .recordMode, .noRecordMode, .recordsToBeWritten,
        .outputEnded, .requestPending, .noRecordsInDatagrams:
        .wrongState
      case .serviceTaken: .serviceTaken
      case .tooManyServices: .limit
      case .noRequest: .unknownHandle
      case .requestRefused(let refusal): RefusalCode(refusal)
      case .notPrimary: .notPrimary
      case .notSecondary: .notSecondary
      case .noSecondary: .noSecondary
      case .engineTooOld: .version
      case .sameSide: .unknownHandle
      }
    refuse(code, "\(error)")
  }
}
