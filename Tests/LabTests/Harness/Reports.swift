/// The fields of `jsrctl --json show status` that cases ask for.
struct StatusReport: Decodable, Sendable {
  struct Peer: Decodable, Sendable {
    let linkUp: Bool
    let linkVersion: Int?
    let inStep: Bool
  }
  struct Uplink: Decodable, Sendable, Equatable {
    let name: String
    let running: Bool
  }
  struct Instance: Decodable, Sendable {
    let name: String
    let vrf: String?
  }
  let node: String
  let role: String
  let lease: String
  let uplinks: [Uplink]
  let instances: [Instance]?
  let peer: Peer
  let linkSecurity: String
  let certificateExpires: String?
}

/// Of `show sockets`.
struct SocketReport: Decodable, Sendable {
  struct Layer: Decodable, Sendable {
    let initialized: Bool
    let logPosition: UInt64
  }
  let handle: String
  let peerHandle: String?
  let role: String
  let state: String
  let application: String
  let instance: String?
  let proto: String?
  let local: String?
  let foreign: String?
  let sdrl: Layer
  let prl: Layer
  let psrm: Layer
}

/// Of `show connections`.
struct ConnectionReport: Decodable, Sendable {
  let proto: String
  let recvQ: Int
  let sendQ: Int
  let local: String
  let foreign: String
  let state: String
  let role: String
  let handle: String
  let sndUna: UInt32
  let sndNxt: UInt32
  let rcvNxt: UInt32
  let sndWnd: UInt32
  let rcvWnd: UInt32
  let rcvRightEdge: UInt32
  let mss: Int
  let sndWscale: Int?
  let rcvWscale: Int?
  let sack: Bool
  let timestamps: Bool
  let tsRecent: UInt32?
}

/// Of `show statistics`.
struct StatisticsReport: Decodable, Sendable {
  let layer: String
  /// `nil` if it is about all routing instances.
  let instance: String?
  let name: String
  let value: Int
  let unit: String
}

/// Of `show memory`.
struct MemoryReport: Decodable, Sendable {
  let area: String
  let used: Int
  let limit: Int?
  let unit: String
}
