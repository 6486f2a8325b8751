// An echo server that survives the loss of its routing engine (RE): echo-swift PORT OTHER-RE CHANNEL-PORT
// What it answers, and how its two instances tell each other their handles, is as in Examples/echo-c/echo.c.
import Dispatch
import Glibc
import JSR

/// What one connection has come to.
@MainActor final class Conversation {
  private let slot: UInt8
  /// Bytes read of the header at hand, and still to come of its payload.
  private var (at, left) = (0, UInt32(0))
  /// Made and not sent.
  private(set) var answers: [UInt8] = []
  /// Bytes that the primary had sent before this instance knew why.
  private var debt = 0
  /// On the new primary: becomes the live socket.
  var merging: Task<Int32?, Never>?

  init(slot: UInt8) { self.slot = slot }

  /// What the peer sent becomes answers: the same, with our slot in the last byte of each header.
  func made(_ bytes: ArraySlice<UInt8>) {
    for byte in bytes {
      var answer = byte
      if at == 12 {
        left -= 1
      } else {
        at += 1
        if at <= 4 { left = left << 8 | UInt32(byte) } else if at == 12 { answer = slot }
      }
      if at == 12, left == 0 { at = 0 }
      if debt > 0 { debt -= 1 } else { answers.append(answer) }
    }
  }

  /// Answers were sent: by us, or by the primary, as we have seen.
  func sent(_ count: Int) {
    let known = min(count, answers.count)
    answers.removeFirst(known)
    debt += count - known
  }
}

@main @MainActor final class EchoServer {
  private var session: Session
  private let otherInstance: sockaddr_in
  /// Snoop pairs, by their handles.
  private var followed: [Handle: Conversation] = [:]

  static func main() async throws {
    let words = CommandLine.arguments
    guard words.count == 4, let port = UInt16(words[1]), let channel = UInt16(words[3]) else { exit(64) }
    let server = EchoServer(try await connect(), address(words[2], channel))
    let (peers, instances) = (listening(at: port), listening(at: channel))
    Task { await accept(at: instances) { await server.follow($0) } }
    Task { await accept(at: peers) { await server.protect(Socket(owning: $0)) } }
    while true {
      for await case .mastershipGained in server.session.events { server.takeOver() }
      server.session = try await connect()  // The engine is gone; who is served goes on being served.
    }
  }

  private init(_ session: Session, _ other: sockaddr_in) { (self.session, otherInstance) = (session, other) }

  /// Waits for an engine.
  private static func connect() async throws -> Session {
    while true {
      if let session = try? await Session.connect(application: "echo-swift") { return session }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  /// On the primary: tells the other instance our handle, gets its own, replicates, and serves in any case.
  private func protect(_ socket: consuming Socket) async {
    _ = fcntl(socket.descriptor, F_SETFL, O_NONBLOCK)
    let conversation = Conversation(slot: session.slot)
    guard let primary = try? await session.allocate(), let secondary = exchange(primary) else {
      return await serve(socket, nil, conversation)
    }
    switch await session.replicate(socket, primary: primary, secondary: secondary) {
    case .replicating(let socket): await serve(socket, primary, conversation)
    case .refused(let socket, let reason):
      print("goes on unprotected: \(reason)")
      await serve(socket, nil, conversation)
    }
  }

  private func serve(_ socket: consuming Socket, _ handle: Handle?, _ conversation: Conversation) async {
    serving: repeat {
      while !conversation.answers.isEmpty {
        let answers = conversation.answers
        let count = send(socket.descriptor, answers, answers.count, Int32(MSG_NOSIGNAL))
        if count > 0 { conversation.sent(count) }
        if count < 0, errno != EAGAIN { break serving }  // ECONNABORTED: it lives on the other RE.
        if count < 0 { await ready(socket.descriptor, toWrite: true) }
      }
    } while await take(from: socket.descriptor, conversation.made)
    if let handle { try? await session.close(socket, handle: handle) }
  }

  /// On the secondary: makes the snoop pair that is asked for, and reads it to its end, which comes with the merge.
  private func follow(_ channel: Int32) async {
    defer { close(channel) }
    var primary: UInt64 = 0
    guard recv(channel, &primary, 8, Int32(MSG_WAITALL)) == 8,
      let pair = try? await session.attach(primary: Handle(rawValue: primary)).release()
    else { return }
    let conversation = Conversation(slot: session.slot)
    followed[pair.handle] = conversation
    var answer = pair.handle.rawValue
    send(channel, &answer, 8, Int32(MSG_NOSIGNAL))
    let received = Task { while await take(from: pair.rcv, conversation.made) {} }
    while await take(from: pair.snd, { conversation.sent($0.count) }) {}
    await received.value
    for end in [pair.rcv, pair.snd] { close(end) }
    followed[pair.handle] = nil
    guard let live = await conversation.merging?.value else { return }  // Replication has ended.
    await serve(Socket(owning: live), pair.handle, conversation)
  }

  private func takeOver() {
    for (handle, conversation) in followed {
      conversation.merging = Task { [session] in try? await session.merge(handle).release() }
    }
  }

  /// Over a connection of its own; a hung instance holds us up for a second.
  private func exchange(_ handle: Handle) -> Handle? {
    let channel = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(channel) }
    var limit = timeval(tv_sec: 1, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] { setsockopt(channel, SOL_SOCKET, option, &limit, 16) }
    var (ours, theirs) = (handle.rawValue, UInt64(0))
    guard withUnsafe(otherInstance, { Glibc.connect(channel, $0, $1) }) == 0,
      send(channel, &ours, 8, Int32(MSG_NOSIGNAL)) == 8, recv(channel, &theirs, 8, Int32(MSG_WAITALL)) == 8
    else { return nil }
    return Handle(rawValue: theirs)
  }
}
