/// Bytes that are not an encoded snapshot.
public enum SnapshotDecodingError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Another version of this program encoded it: run the same on both routing engines.
  case unknownVersion(UInt8)
  /// The bytes end too early.
  case truncated
  /// Bytes are left over at the end.
  case trailingBytes(Int)
  /// A field has a value that no socket can have.
  case invalidField(String)

  public var description: String {
    switch self {
    case .unknownVersion(let version):
      "snapshot of unknown version \(version): run the same version on both routing engines"
    case .truncated: "snapshot ends too early"
    case .trailingBytes(let count): "snapshot has \(count) bytes too many"
    case .invalidField(let name): "snapshot has an impossible value for \(name)"
    }
  }
}

/// Takes the fields of an encoded snapshot apart, in order.
struct SnapshotReader {
  private var rest: ArraySlice<UInt8>

  init(_ bytes: some Collection<UInt8>) { rest = ArraySlice(bytes) }

  mutating func bytes(_ count: Int) throws(SnapshotDecodingError) -> ArraySlice<UInt8> {
    guard count <= rest.count else { throw .truncated }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }

  mutating func integer<T: FixedWidthInteger>() throws(SnapshotDecodingError) -> T {
    try bytes(MemoryLayout<T>.size).reduce(0) { $0 << 8 | T(truncatingIfNeeded: $1) }
  }

  mutating func boolean() throws(SnapshotDecodingError) -> Bool {
    let value: UInt8 = try integer()
    guard value <= 1 else { throw .invalidField("flag") }
    return value == 1
  }

  func finish() throws(SnapshotDecodingError) {
    guard rest.isEmpty else { throw .trailingBytes(rest.count) }
  }
}
