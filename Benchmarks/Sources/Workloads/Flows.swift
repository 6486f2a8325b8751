import Packet

// Which socket a packet belongs to, as a node finds it.
extension Workload {
  static let flows: [Workload] = [lookup(1), lookup(1_000), lookup(10_000)]

  private static func lookup(_ count: Int) -> Workload {
    Workload("flow lookup: 1 of \(count)") {
      let flows = (0..<count).map { number in
        Flow(
          .tcp, local: Endpoint(IPAddress(v4: 0x0505_0505), 16_000),
          remote: Endpoint(IPAddress(v4: 0x0505_0600 + UInt32(number / 250)), UInt16(40_000 + number % 250)))
      }
      let places = Dictionary(uniqueKeysWithValues: flows.enumerated().map { ($1, $0) })
      // All of them, in an order that no cache foresees.
      let step = 7_919 % count
      return { times in
        var (sum, number) = (0, 0)
        for _ in 0..<times {
          sum += places[flows[number]]! - number
          number += step
          if number >= count { number -= count }
        }
        precondition(sum == 0, "a flow has another's place")
      }
    }
  }
}
