import Glibc
import JSR

/// Carries the requests of the echo server to the engine, each in a task of its own, and posts what comes
/// back to the loop's mailbox.
///
/// Descriptors travel as plain numbers here: a socket given to a call belongs to that call until its notice
/// is posted, and the loop keeps its hands off it meanwhile.
struct EngineClient: Sendable {
  let mailbox: Mailbox<EngineNotice>

  /// Makes a session.
  typealias Connector = @Sendable () async throws(JSRError) -> any EngineSession

  /// Keeps a session to the engine, connecting again for as long as the task is not cancelled.
  ///
  /// - Parameter service: is registered in each.
  func keepSession(registering service: String?, _ connect: @escaping Connector) -> Task<Void, Never> {
    Task {
      while !Task.isCancelled {
        do throws(JSRError) {
          let session = try await connect()
          if let service {
            do throws(JSRError) {
              try await session.register(service: service)
            } catch {
              session.close()
              throw error
            }
          }
          mailbox.post(.ready(session, try await session.role()))
          for await event in session.events { mailbox.post(.event(event)) }
          session.close()
        } catch {
          mailbox.post(.unreachable(error))
        }
        try? await Task.sleep(for: .milliseconds(200))
      }
    }
  }

  func allocate(_ session: any EngineSession, connection: UInt64) {
    Task {
      do throws(JSRError) {
        mailbox.post(.allocated(connection: connection, .success(try await session.allocate())))
      } catch {
        mailbox.post(.allocated(connection: connection, .failure(error)))
      }
    }
  }

  /// Frees what was allocated for nothing or is replicated no more. The engine frees it anyway when the
  /// session ends, so nobody waits for the answer.
  func free(_ session: any EngineSession, _ handle: Handle) {
    Task { try? await session.free(handle) }
  }

  /// Lets go of a snoop pair, whatever has become of it by now.
  func letGo(_ session: any EngineSession, pair handle: Handle) {
    Task {
      try? await session.unreplicate(handle)
      try? await session.free(handle)
    }
  }

  func replicate(
    _ session: any EngineSession, connection: UInt64, descriptor: Int32, primary: Handle, secondary: Handle
  ) {
    Task {
      handshakeOver(
        connection,
        await session.replicate(Socket(owning: descriptor), primary: primary, secondary: secondary))
    }
  }

  func replicate(
    _ session: any EngineSession, connection: UInt64, descriptor: Int32, primary: Handle, service: String,
    note: [UInt8]
  ) {
    Task {
      handshakeOver(
        connection,
        await session.replicate(Socket(owning: descriptor), primary: primary, service: service, note: note))
    }
  }

  /// Whichever way it went, the number is the same one and the loop owns it again.
  private func handshakeOver(_ connection: UInt64, _ outcome: consuming ReplicationOutcome) {
    switch consume outcome {
    case .replicating(let socket):
      _ = socket.release()
      mailbox.post(.handshakeOver(connection: connection, refusal: nil))
    case .refused(let socket, let error):
      _ = socket.release()
      mailbox.post(.handshakeOver(connection: connection, refusal: error))
    }
  }

  func beginRecords(_ session: any EngineSession, connection: UInt64, _ handle: Handle) {
    Task {
      do throws(JSRError) {
        let channel = try await session.beginRecords(handle)
        mailbox.post(.recordsBegan(connection: connection, .success(EchoRecords(channel))))
      } catch {
        mailbox.post(.recordsBegan(connection: connection, .failure(error)))
      }
    }
  }

  /// Success is told by the event that comes when the other engine has let go, and not by the answer.
  func unreplicate(_ session: any EngineSession, connection: UInt64, _ handle: Handle) {
    Task {
      do throws(JSRError) {
        try await session.unreplicate(handle)
      } catch {
        mailbox.post(.unreplicationRefused(connection: connection, error))
      }
    }
  }

  func attach(_ session: any EngineSession, primary: Handle, at point: ResumePoint) {
    Task {
      do throws(JSRError) {
        attached(primary, point, try await session.attach(primary: primary, transport: .tcp))
      } catch {
        mailbox.post(.attached(primary: primary, point, .failure(error)))
      }
    }
  }

  func accept(_ session: any EngineSession, _ request: RequestedReplication, at point: ResumePoint) {
    Task {
      do throws(JSRError) {
        attached(request.primary, point, try await session.accept(request))
      } catch {
        mailbox.post(.attached(primary: request.primary, point, .failure(error)))
      }
    }
  }

  private func attached(_ primary: Handle, _ point: ResumePoint, _ pair: consuming SnoopPair) {
    let pair = pair.release()
    mailbox.post(
      .attached(
        primary: primary, point,
        .success(AnswerMessage.Pair(secondary: pair.handle, rcv: pair.rcv, snd: pair.snd))))
  }

  func decline(_ session: any EngineSession, _ request: RequestedReplication, reason: String) {
    Task { try? await session.decline(request, reason: reason) }
  }

  func merge(_ session: any EngineSession, _ handle: Handle, signingKey: [UInt8]?) {
    Task {
      do throws(JSRError) {
        let socket = try await session.merge(handle, signingKey: signingKey)
        mailbox.post(.merged(handle, .success(socket.release())))
      } catch {
        mailbox.post(.merged(handle, .failure(error)))
      }
    }
  }

  func close(_ session: any EngineSession, descriptor: Int32, _ handle: Handle) {
    Task {
      do throws(JSRError) {
        try await session.close(Socket(owning: descriptor), handle: handle)
        mailbox.post(.closed(handle, refusal: nil))
      } catch {
        mailbox.post(.closed(handle, refusal: error))
      }
    }
  }
}
