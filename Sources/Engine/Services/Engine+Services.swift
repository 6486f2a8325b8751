import Control
import Descriptors
import LinuxNetworking
import Packet
import Replication

/// A socket whose replication the other RE's instance was asked for.
struct RequestedReplication {
  var socket: ReplicatedSocket
  var reply: ReplyPort
}

// Instances of applications that find each other through the engines.
extension Engine {
  private func name(_ text: String, _ reply: ReplyPort) -> ServiceName? {
    guard let name = ServiceName(text) else {
      reply.refuse(
        .malformed,
        "a service has a name of 1 to \(ServiceName.byteLimit) printable characters of ASCII, without spaces")
      return nil
    }
    return name
  }

  func register(_ text: String, _ client: ClientID, reply: ReplyPort) {
    guard let name = name(text, reply) else { return }
    do throws(SocketError) {
      try node.register(name)
      serviceOwners[name] = client
      reply.send(.done)
    } catch { reply.refuse(error) }
  }

  func unregister(_ text: String, _ client: ClientID, reply: ReplyPort) {
    guard let name = name(text, reply) else { return }
    guard serviceOwners[name] == client else {
      return reply.refuse(.noService, "service \(name) is not registered by this application")
    }
    serviceOwners[name] = nil
    node.unregister(name)
    reply.send(.done)
  }

  /// Their instance is gone.
  func unregisterServices(of client: ClientID) {
    for (name, owner) in serviceOwners where owner == client {
      serviceOwners[name] = nil
      node.unregister(name)
    }
  }

  /// Gives the port back if `client` may answer the request that the other RE's instance has made under this handle.
  func checkRequest(_ primary: Handle, _ client: ClientID, _ reply: ReplyPort) -> ReplyPort? {
    guard let service = node.service(requestedFor: primary) else {
      reply.refuse(.noRequest(primary))
      return nil
    }
    guard serviceOwners[service] == client else {
      reply.refuse(.foreignHandle, "service \(service) belongs to another application")
      return nil
    }
    return reply
  }

  func requestReplication(
    of descriptor: consuming OwnedDescriptor, _ primary: Handle, _ text: String, _ note: [UInt8],
    reply: ReplyPort
  ) {
    guard let name = name(text, reply) else { return }
    guard note.count <= ReplicationRequest.noteLimit else {
      return reply.refuse(
        .oversized, "a note has at most \(ReplicationRequest.noteLimit) bytes, not \(note.count)")
    }
    guard let (socket, reply) = take(descriptor, reply), let (flow, reply) = replicableFlow(of: socket, reply)
    else { return }
    do throws(SocketError) {
      try node.request(
        ReplicationRequest(service: name, primary: primary, flow: flow, note: note), now: Self.now())
      requestedReplications[primary] = RequestedReplication(socket: socket, reply: reply)
    } catch { reply.refuse(error) }
  }

  func serviceChanged(_ action: ServiceAction) {
    switch action {
    case .availabilityChanged(let name, let isAvailable):
      publish(
        isAvailable ? .serviceAvailable("\(name)") : .serviceUnavailable("\(name)"), to: serviceOwners[name])
    case .requested(let request):
      publish(
        .replicationRequested(
          ControlEvent.ReplicationRequested(
            service: "\(request.service)", primary: request.primary, transport: request.flow.transport,
            local: "\(request.flow.local)",
            foreign: "\(request.flow.remote)", note: request.note)), to: serviceOwners[request.service])
    case .withdrawn(let request):
      publish(
        .requestWithdrawn(service: "\(request.service)", primary: request.primary),
        to: serviceOwners[request.service])
    case .answered(let handle, let secondary):
      guard let requested = requestedReplications.removeValue(forKey: handle) else {
        return node.withdrawRequest(handle)
      }
      replicate(requested.socket, handle, secondary, answersRequest: true, reply: requested.reply)
    case .refused(let handle, let refusal):
      requestedReplications.removeValue(forKey: handle)?.reply.refuse(.requestRefused(refusal))
    }
  }
}

extension RefusalCode {
  init(_ refusal: RequestRefusal) {
    self =
      switch refusal.reason {
      case .engineTooOld: .version
      case .notRegistered: .noService
      case .declined: .declined
      case .timedOut: .timeout
      case .busy: .limit
      case .notSecondary, .linkLost: .noSecondary
      case .notPrimary: .notPrimary
      case .withdrawn: .wrongState
      }
  }
}
