import CLinux
import Descriptors
import Glibc

/// Reads a socket option whose value is a plain struct or integer.
func socketOption<Value: BitwiseCopyable>(
  _ descriptor: Int32, _ level: Int32, _ name: Int32, into value: Value, _ call: StaticString
) throws(SystemError) -> Value {
  var value = value
  var length = socklen_t(MemoryLayout<Value>.size)
  guard getsockopt(descriptor, level, name, &value, &length) == 0 else { throw SystemError(call) }
  return value
}

/// Sets a socket option whose value is a plain struct or integer.
func setSocketOption<Value: BitwiseCopyable>(
  _ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Value, _ call: StaticString
) throws(SystemError) {
  var value = value
  guard setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Value>.size)) == 0 else {
    throw SystemError(call)
  }
}

/// A socket that exists only to ask the kernel about the network namespace it was made in.
func queryingSocket() throws(SystemError) -> OwnedDescriptor {
  try OwnedDescriptor(
    returnedBy: "socket", socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
}
