import JSR

/// On the primary: protects one accepted connection.
func protect(
  _ socket: consuming Socket, in session: Session,
  exchange: (Handle) async throws -> Handle  // tells the other instance our handle, gets its own
) async throws -> Socket {
  let primary = try await session.allocate()
  let secondary = try await exchange(primary)
  switch await session.replicate(socket, primary: primary, secondary: secondary) {
  case .replicating(let socket): return socket
  case .refused(let socket, let reason):
    print("goes on unprotected: \(reason)")
    return socket
  }
}

/// On the secondary: follows a connection of the primary, and goes on with it after a switchover.
func follow(_ primary: Handle, in session: Session) async throws -> Socket {
  let pair = try await session.attach(primary: primary)
  // Read pair.rcv (what the peer sent) and pair.snd (what the primary sent) to keep your state, until:
  for await event in session.events {
    if case .mastershipGained = event { break }
  }
  // What was not read from rcv is in the live socket; snd can be read to its end, which is where your
  // output has to go on.
  return try await session.merge(pair.handle)
}

/// On the secondary: reads what the primary's UDP socket took in, to the end of replication.
func follow(
  datagramsOf primary: Handle, in session: Session, use: (SnoopedDatagram) -> Void
) async throws -> SnoopPair {
  let pair = try await session.attach(primary: primary, transport: .udp)
  while let datagram = try SnoopedDatagram.read(from: pair.rcv) {
    use(datagram)  // its payload, its source and its destination
  }
  return pair
}

/// On the primary, without a channel: the other instance is asked through the engines.
func protect(_ socket: consuming Socket, by service: String, in session: Session) async throws -> Socket {
  switch await session.replicate(socket, primary: try await session.allocate(), service: service) {
  case .replicating(let socket): return socket
  case .refused(let socket, let reason):
    print("goes on unprotected until the service is available again: \(reason)")
    return socket
  }
}

/// On either side: registers, and follows what the other instance asks for.
func meet(
  by service: String, in session: Session,
  follow: (consuming SnoopPair) -> Void,
  protectEverything: () async throws -> Void
) async throws {
  try await session.register(service: service)
  for await event in session.events {
    switch event {
    case .replicationRequested(let request): follow(try await session.accept(request))
    case .serviceAvailable: try await protectEverything()
    default: break
    }
  }
}
