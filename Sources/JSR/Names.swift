// The names of other modules that applications see: who imports JSR has them, and need not know where they
// live. There is no way to say this without the underscore yet.
@_exported import enum Control.MastershipRole
@_exported import enum Control.RefusalCode
@_exported import enum Control.SocketState
@_exported import struct Control.SnoopedDatagram
@_exported import struct Packet.Endpoint
@_exported import struct Packet.IPAddress
@_exported import enum Packet.TransportProtocol
@_exported import struct Replication.Handle
