import OrderedCollections
import Packet

// Instances that find each other through the engines: what one RE has registered the other one knows, and a request for
// replication goes to the instance that has registered the service, whose pair answers it. A request changes nothing
// about the socket: the handshake begins when it is answered. Spoken from version 2 of the link on.
extension ReplicationNode {
  private static let refusalTextLimit = 200

  /// What the other RE answers to a request.
  private enum AnswerCode: UInt8 { case attached, notRegistered, declined, busy, notSecondary }

  // MARK: Services of this RE

  public mutating func register(_ service: ServiceName) throws(SocketError) {
    guard services.here[service] == nil else { throw .serviceTaken(service) }
    guard services.here.count < Services.limit else { throw .tooManyServices(limit: Services.limit) }
    services.here[service] = false
    tell(service, isRegistered: true)
    noteServices()
  }

  /// Its instance has no use for it any more, or is gone. Requests that it has not answered are refused.
  public mutating func unregister(_ service: ServiceName) {
    guard services.here.removeValue(forKey: service) != nil else { return }
    for request in services.unanswered.values where request.service == service {
      services.unanswered[request.primary] = nil
      answer(request, .notRegistered)
    }
    tell(service, isRegistered: false)
  }

  private var hasServicesOnLink: Bool { linkVersion.map { $0 >= LinkVersion.hasServices } ?? false }

  private mutating func tell(_ service: ServiceName, isRegistered: Bool) {
    guard hasServicesOnLink else { return }
    var writer = ByteWriter(.ihaService)
    writer.text(service.description)
    writer.boolean(isRegistered)
    actions.append(.send(writer.record()))
  }

  /// The other RE has greeted.
  mutating func tellServices() {
    services.there = []
    for service in services.here.keys { tell(service, isRegistered: true) }
  }

  /// Tells those who registered a service whether requests can be made, if that has changed.
  mutating func noteServices() {
    let mayAsk = arbiter.phase == .primary && arbiter.standbyIsReady && hasServicesOnLink
    for (service, wasAvailable) in services.here {
      let isAvailable = mayAsk && services.there.contains(service)
      guard isAvailable != wasAvailable else { continue }
      services.here[service] = isAvailable
      actions.append(.service(.availabilityChanged(service, isAvailable)))
    }
  }

  // MARK: Primary

  /// Asks the instance that has registered `service` on the other RE to follow a connection. Comes back as
  /// `.answered`, when the handshake can begin, or `.refused`.
  public mutating func request(_ request: ReplicationRequest, now: Instant) throws(SocketError) {
    let (handle, service) = (request.primary, request.service)
    _ = try placeToBegin(handle)
    guard let version = linkVersion else { throw .noSecondary }
    guard version >= LinkVersion.hasServices else {
      throw .requestRefused(RequestRefusal(service: service, reason: .engineTooOld(version: version)))
    }
    try checkLinkCarries(request.flow, version: version)
    guard arbiter.standbyIsReady else { throw .noSecondary }
    guard services.there.contains(service) else {
      throw .requestRefused(RequestRefusal(service: service, reason: .notRegistered))
    }
    guard flows[request.flow] == nil else { throw .flowInUse(request.flow) }
    services.asked[service, default: Services.Asked()].waiting[handle] = request
    sendRequests(of: service, now: now)
  }

  private mutating func sendRequests(of service: ServiceName, now: Instant) {
    while let version = linkVersion, let asked = services.asked[service], asked.sent.count < Services.window,
      var request = asked.waiting.values.first
    {
      services.asked[service]!.waiting.removeFirst()
      services.lastNumber += 1
      request.number = services.lastNumber
      services.asked[service]!.sent[request.primary] = (request.number, now)
      actions.append(.send(request.record(version: version)))
    }
    if let asked = services.asked[service], asked.sent.isEmpty, asked.waiting.isEmpty {
      services.asked[service] = nil
    }
  }

  /// Nothing is to come of a request, or of a pair that answered one.
  public mutating func withdrawRequest(_ handle: Handle) {
    if let service = services.service(askedFor: handle) {
      services.asked[service]!.waiting[handle] = nil
      services.asked[service]!.sent[handle] = nil
      actions.append(.service(.refused(handle, RequestRefusal(service: service, reason: .withdrawn))))
    }
    sendWithdrawal(handle)
  }

  private mutating func sendWithdrawal(_ handle: Handle) {
    guard hasServicesOnLink else { return }
    var writer = ByteWriter(.ihaWithdraw)
    writer.handle(handle)
    actions.append(.send(writer.record()))
  }

  /// Gives up what an instance has not answered in time, and asks what had to wait.
  mutating func endOverdueRequests(now: Instant) {
    for (service, asked) in services.asked {
      // They were sent in this order.
      for (handle, sent) in asked.sent {
        guard now - sent.since >= Services.answerTime else { break }
        services.asked[service]!.sent[handle] = nil
        actions.append(.service(.refused(handle, RequestRefusal(service: service, reason: .timedOut))))
        sendWithdrawal(handle)
      }
      sendRequests(of: service, now: now)
    }
  }

  /// The link or the roles are others: ends every request, and every pair that answered one and no handshake has filled.
  mutating func endRequests(_ reason: RequestRefusal.Reason) {
    let asked = services.asked
    services.asked = [:]
    for (service, requests) in asked {
      for handle in requests.sent.keys { sendWithdrawal(handle) }
      for handle in Array(requests.sent.keys) + Array(requests.waiting.keys) {
        actions.append(.service(.refused(handle, RequestRefusal(service: service, reason: reason))))
      }
    }
    let unanswered = services.unanswered
    services.unanswered = [:]
    for request in unanswered.values { actions.append(.service(.withdrawn(request))) }
    for place in entries.indices where entries[place]?.answersRequest == true {
      dropAnswer(place, reason == .linkLost ? .linkLost : .requested)
    }
  }

  // MARK: Secondary

  /// What the socket speaks of which a request of the other RE is, which is to be answered; `nil` if there is none for
  /// this handle.
  public func transport(requestedFor primary: Handle) -> TransportProtocol? {
    services.unanswered[primary]?.flow.transport
  }

  /// The service of a request of the other RE that is to be answered; `nil` if there is none for this handle.
  public func service(requestedFor primary: Handle) -> ServiceName? {
    services.unanswered[primary]?.service
  }

  /// The instance has attached `handle` for a request.
  public mutating func answerRequest(_ primary: Handle, with handle: Handle) throws(SocketError) {
    guard let request = services.unanswered[primary] else { throw .noRequest(primary) }
    let place = try find(handle)
    services.unanswered[primary] = nil
    entries[place]!.answersRequest = true
    var writer = ByteWriter(.ihaAnswer, to: primary)
    writer.integer(request.number)
    writer.integer(AnswerCode.attached.rawValue)
    writer.handle(handle)
    writer.text("")
    actions.append(.send(writer.record()))
  }

  /// The instance does not want to follow.
  public mutating func declineRequest(_ primary: Handle, because reason: String) throws(SocketError) {
    guard let request = services.unanswered.removeValue(forKey: primary) else { throw .noRequest(primary) }
    answer(request, .declined, reason)
  }

  private mutating func answer(_ request: ReplicationRequest, _ code: AnswerCode, _ text: String = "") {
    guard hasServicesOnLink else { return }
    var writer = ByteWriter(.ihaAnswer, to: request.primary)
    writer.integer(request.number)
    writer.integer(code.rawValue)
    writer.handle(Handle(rawValue: 0))
    // No part of a character.
    var bytes = text.utf8.prefix(Self.refusalTextLimit)
    while String(validating: bytes, as: UTF8.self) == nil { bytes.removeLast() }
    writer.byteArray(bytes)
    actions.append(.send(writer.record()))
  }

  private mutating func dropAnswer(_ place: Int, _ reason: UnreplicateReason) {
    guard entries[place]!.phase == .attached else { return }
    let handle = entries[place]!.handle
    for stream in SnoopStream.allCases { actions.append(.endSnoop(handle, stream)) }
    entries[place]!.phase = .unreplicated(reason)
    actions.append(.unreplicated(handle, reason))
  }

  // MARK: What the other RE says

  mutating func receiveService(
    _ header: RecordHeader, _ reader: inout ByteReader, now: Instant
  ) throws(RecordError) {
    guard let version = linkVersion, version >= LinkVersion.hasServices else {
      throw .unexpected(header.kind)
    }
    switch header.kind {
    case .ihaService:
      let service = try reader.serviceName()
      let isRegistered = try reader.boolean()
      try reader.finish()
      if isRegistered {
        services.there.append(service)
        guard services.there.count <= Services.limit else { throw .invalidField("service count") }
      } else {
        services.there.remove(service)
      }
      noteServices()

    case .ihaRequest:
      let request = try ReplicationRequest(&reader, version: version)
      let primary = request.primary
      guard primary.slot == 1 - configuration.slot, primary.generation != 0 else {
        throw .unknownHandle(primary)
      }
      guard arbiter.phase == .secondary else { return answer(request, .notSecondary) }
      guard services.here[request.service] != nil else { return answer(request, .notRegistered) }
      let count = services.unanswered.values.count { $0.service == request.service }
      guard count < Services.window, services.unanswered[primary] == nil else {
        return answer(request, .busy)
      }
      services.unanswered[primary] = request
      actions.append(.service(.requested(request)))

    case .ihaAnswer:
      let number: UInt64 = try reader.integer()
      guard let code = AnswerCode(rawValue: try reader.integer()) else { throw .invalidField("answer") }
      let secondary = try reader.handle()
      let text = try reader.text(limit: Self.refusalTextLimit)
      try reader.finish()
      let handle = header.handle
      // One that comes too late has crossed a withdrawal.
      guard let service = services.service(askedFor: handle),
        services.asked[service]!.sent[handle]?.number == number
      else { return }
      services.asked[service]!.sent[handle] = nil
      let reason: RequestRefusal.Reason? =
        switch code {
        case .attached: nil
        case .notRegistered: .notRegistered
        case .declined: .declined(text)
        case .busy: .busy
        case .notSecondary: .notSecondary
        }
      if let reason {
        actions.append(.service(.refused(handle, RequestRefusal(service: service, reason: reason))))
      } else {
        actions.append(.service(.answered(handle, secondary: secondary)))
      }
      sendRequests(of: service, now: now)

    case .ihaWithdraw:
      let primary = try reader.handle()
      try reader.finish()
      if let request = services.unanswered.removeValue(forKey: primary) {
        actions.append(.service(.withdrawn(request)))
      }
      for place in entries.indices
      where entries[place]?.answersRequest == true && entries[place]!.peer == primary {
        dropAnswer(place, .requested)
      }

    default: throw .unexpected(header.kind)
    }
  }
}
