import CLibFuzzer
import Glibc

nonisolated(unsafe) private var test: (UnsafeRawBufferPointer) -> Void = { _ in }

/// Hands the command line to libFuzzer, which calls `body` with one input after the other and ends the process.
///
/// The bytes are valid during the call only, and lie in memory of exactly their size: reading past the end is
/// found by the address sanitizer. Every trap of Swift (overflow, index, unwrapped `nil`, precondition) is a
/// finding as well.
public func fuzz(_ body: @escaping (UnsafeRawBufferPointer) -> Void) -> Never {
  test = body
  var count = CommandLine.argc
  var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
  let status = LLVMFuzzerRunDriver(&count, &arguments) { bytes, count in
    test(UnsafeRawBufferPointer(start: bytes, count: count))
    return 0
  }
  exit(status)
}

/// A copy in memory of exactly the size of the bytes, as the sanitizer wants it for pieces of an input.
public func withExactCopy<Result>(
  of bytes: some Collection<UInt8>, _ body: (UnsafeRawBufferPointer) -> Result
) -> Result {
  let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
  defer { copy.deallocate() }
  copy.copyBytes(from: bytes)
  return body(UnsafeRawBufferPointer(copy))
}
