import JSR
import Testing

extension LabSuite {
  /// A snoop pair whose socket never comes: the primary's handshake failed, or was never begun.
  @Suite("snoop pairs that are never used")
  struct UnusedPairs {
    /// How an application lets go of a pair.
    enum Ending: String, CaseIterable, Sendable { case freed, unreplicated, sessionClosed }

    @Test("a pair that is let go of leaves nothing", .timeLimit(.minutes(1)), arguments: Ending.allCases)
    func leavesNothing(_ ending: Ending) async throws {
      try await Lab.run("unused-pairs-\(ending)") { lab in
        let pair = try await EnginePair(withoutServersIn: lab)
        let primary = try await Session.connect(to: lab.controlSocket(of: .re0), application: "primary")
        let secondary = try await Session.connect(to: lab.controlSocket(of: .re1), application: "secondary")
        let levels = (try await pair.re0.levels(), try await pair.re1.levels())

        for _ in 0..<10 {
          let name = try await primary.allocate()
          let handle = try await secondary.attach(primary: name).handle
          switch ending {
          case .freed: try await secondary.free(handle)
          case .unreplicated: try await secondary.unreplicate(handle)
          case .sessionClosed: break
          }
          if ending != .sessionClosed { try await primary.free(name) }
        }
        if ending == .sessionClosed {
          #expect(try await pair.re1.levels()["snoop_pairs"] == 10)
          primary.close()
          secondary.close()
        }
        await pair.re0.checkNothingIsLeft(since: levels.0)
        await pair.re1.checkNothingIsLeft(since: levels.1)
        primary.close()
        secondary.close()
      }
    }
  }
}
