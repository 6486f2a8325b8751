import Pair
import Replication

extension Seeds {
  /// What the other node said in each scene: as it was, and with other things going on.
  static func linkSeeds() -> [[UInt8]] {
    var seeds: [[UInt8]] = []
    for (bit, mode) in [(UInt8(0), ReplicationNode.Mode.overlap), (0x80, .strict)] {
      for scene in Scene.allCases {
        let next = scene.make(mode).next
        for events: UInt8 in [0, 64, 255] {
          seeds.append([UInt8(scene.rawValue) | bit, 0, events, events] + next.prefix(3_000))
        }
      }
    }
    return seeds
  }
}
