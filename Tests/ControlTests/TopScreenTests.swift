import Control
import Replication
import Testing

@Suite("The screen of top")
struct TopScreenTests {
  /// - Parameter packets: that PRL has counted so far.
  private func sample(connections: UInt32, packets: Int64 = 0, uptime: Int64 = 5_000) -> TopSample {
    var status = ControlReplyTests.status
    status.uptimeMilliseconds = uptime
    return TopSample(
      status: status, sockets: (0..<connections).map(ControlReplyTests.socket),
      connections: (0..<connections).map(ControlReplyTests.connection),
      statistics: [StatisticsReport(layer: "prl", name: "packets", value: packets, unit: "packets")],
      memory: [
        MemoryReport(area: "hold_buffer", used: 1_572_864, limit: 64 << 20, unit: "bytes"),
        MemoryReport(area: "resident", used: 900, limit: nil, unit: "bytes"),
      ])
  }

  @Test(
    "fits its size, whatever there is to show",
    arguments: [(80, 24), (200, 60), (20, 5), (1, 1), (40, 8), (132, 12)], [0, 1, 3, 500] as [UInt32])
  func size(_ size: (width: Int, height: Int), _ connections: UInt32) {
    let screen = TopScreen(width: size.width, height: size.height)
    let events = (1...20).map { "event \($0)" }
    let lines = screen.lines(sample(connections: connections), after: nil, events: events)
    #expect(!lines.isEmpty && lines.count <= size.height)
    #expect(lines.allSatisfy { $0.count <= size.width && !$0.contains { $0.isNewline } })
    let lost = screen.lines(unreachable: "engine not reachable at /x: gone", events: events)
    #expect(!lost.isEmpty && lost.count <= size.height)
    #expect(lost.allSatisfy { $0.count <= size.width })
  }

  @Test("begins with the state, and ends with the last events")
  func order() throws {
    let lines = TopScreen(width: 200, height: 60).lines(
      sample(connections: 3), after: nil, events: (1...7).map { "event \($0)" })
    #expect(lines[0] == "re0: primary, lease timed, term 4, up 5 s")
    #expect(lines[1] == "peer re1: secondary, link up, in step   5.5.5.5/24, eth0 running")
    #expect(lines.contains { $0.hasPrefix("sockets 3, replicated 3   packets/s in -, out -") })
    #expect(lines.contains { $0.hasPrefix("held 1.5 MiB of 64.0 MiB   log -   snoop -   resident 900 B") })
    #expect(lines.count { $0.contains("5.5.5.4:40000") } == 3)
    #expect(lines.suffix(6) == ["", "event 3", "event 4", "event 5", "event 6", "event 7"])
  }

  @Test("shows rates per second, between two samples of one engine")
  func rates() {
    let screen = TopScreen(width: 200, height: 60)
    func rate(_ now: TopSample, after before: TopSample) -> Bool {
      screen.lines(now, after: before, events: []).contains { $0.contains("packets/s in 150,") }
    }
    let before = sample(connections: 0, packets: 100, uptime: 5_000)
    #expect(rate(sample(connections: 0, packets: 400, uptime: 7_000), after: before))
    // An engine that was started anew counts from the beginning.
    let anew = screen.lines(sample(connections: 0, packets: 3, uptime: 10), after: before, events: [])
    #expect(anew.contains { $0.contains("packets/s in -,") })
  }

  @Test("says how many connections it has no room for")
  func more() {
    let lines = TopScreen(width: 120, height: 20).lines(sample(connections: 500), after: nil, events: [])
    #expect(lines.count == 20)
    // Above: two lines of state, two of rates, two empty ones, the titles.
    #expect(lines.last == "… 488 more")
    #expect(lines.count { $0.contains("5.5.5.4:40000") } == 12)
  }

  @Test("shows the connections first that have bytes under way")
  func busiest() throws {
    var sample = sample(connections: 40)
    for index in sample.connections.indices { sample.connections[index].sendQueue = 0 }
    sample.connections[33].sendQueue = 9
    let lines = TopScreen(width: 120, height: 20).lines(sample, after: nil, events: [])
    let first = try #require(lines.first { $0.contains("5.5.5.4:40000") })
    #expect(first.hasPrefix(sample.connections[33].handle.description))
  }
}
