public import Descriptors

/// The descriptors that come with one message. Those that nobody takes are closed with the parcel.
public struct DescriptorParcel: ~Copyable, Sendable {
  private var numbers: [Int32]

  /// A parcel with nothing in it.
  public init() { numbers = [] }

  /// Takes ownership of `numbers`, which must be open.
  public init(owning numbers: [Int32]) { self.numbers = numbers }

  deinit { for number in numbers { _ = OwnedDescriptor(owning: number) } }

  /// How many descriptors are left.
  public var count: Int { numbers.count }

  /// Takes out the descriptor that came first; `nil` if none is left.
  public mutating func takeFirst() -> OwnedDescriptor? {
    numbers.isEmpty ? nil : OwnedDescriptor(owning: numbers.removeFirst())
  }

  /// Puts one more descriptor in, behind the others.
  public mutating func append(_ descriptor: consuming OwnedDescriptor) {
    numbers.append(descriptor.release())
  }

  /// Lends the numbers for a system call.
  public borrowing func withNumbers<Value>(_ body: ([Int32]) -> Value) -> Value { body(numbers) }
}
