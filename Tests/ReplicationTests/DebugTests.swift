import Replication
import Testing
@Suite struct DebugTests {
  @Test func one() throws {
    for seed in UInt64(1)...3000 {
      let pair = try RandomInterleavingTests().play(seed: seed)
      if !pair.violations.isEmpty {
        print("SEED", seed, pair.violations.prefix(3))
        print(pair.trace[max(0, pair.trace.firstIndex { $0.hasPrefix("BROKEN") }! - 90)...].prefix(94).filter { !$0.contains("Keepalive") && !$0.contains("send([5") }.suffix(75).joined(separator: "\n"))
      }
    }
  }
}
