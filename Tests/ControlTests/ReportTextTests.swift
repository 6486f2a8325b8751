import Control
import Testing

@Suite("A report for people")
struct ReportTextTests {
  @Test("on connections is a table whose columns stand under each other")
  func connections() throws {
    var second = ControlReplyTests.connection(4)
    second.foreign = "[2001:db8::4]:40000"
    second.sack = false
    second.timestamps = false
    let lines = ConnectionReport.table([ControlReplyTests.connection(3), second])
      .split(separator: "\n", omittingEmptySubsequences: false)
    try #require(lines.count == 3)
    #expect(
      lines[0].hasPrefix("Proto  Recv-Q  Send-Q  Local          Foreign              State        Role"))
    #expect(
      lines[1].hasPrefix("tcp         0     112  5.5.5.5:16000  5.5.5.4:40000        ESTABLISHED  primary"))
    #expect(
      lines[2].hasPrefix("tcp         0     112  5.5.5.5:16000  [2001:db8::4]:40000  ESTABLISHED  primary"))
    #expect(lines[1].hasSuffix("1448     7,-  sack,ts"))
    #expect(lines[2].hasSuffix("1448     7,-  -"))
  }

  @Test("on sockets shows a layer that holds nothing as a dash")
  func sockets() {
    let text = SocketReport.table([ControlReplyTests.socket(1)])
    #expect(text.split(separator: "\n").last?.hasSuffix("17   18     -") == true, "is: \(text)")
  }

  @Test("on memory shows what has no limit as a dash")
  func memory() {
    let areas = [
      MemoryReport(area: "hold_buffer", used: 7, limit: 67_108_864, unit: "bytes"),
      MemoryReport(area: "resident", used: 12_345_678, limit: nil, unit: "bytes"),
    ]
    #expect(
      MemoryReport.table(areas) == """
        Area             Used     Limit  Unit
        hold_buffer         7  67108864  bytes
        resident     12345678         -  bytes
        """)
  }

  @Test("on a setting is its value and nothing else")
  func setting() {
    #expect(ControlReply.Body.setting(.init(name: .mode, value: "strict")).text == "strict")
  }

  @Test("on the state has a line for each fact")
  func status() {
    let lines = ControlReplyTests.status.text.split(separator: "\n")
    #expect(lines.contains("node        re0 (slot 0)"))
    #expect(lines.contains("peer        re1 (slot 1), link up (version 2), secondary, in step"))
    #expect(lines.contains("uplinks     eth0 (running)"))
    #expect(lines.contains("uptime      12 s"))
  }
}
