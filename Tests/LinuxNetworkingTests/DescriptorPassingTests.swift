import CLinux
import Descriptors
import Glibc
import Testing

@Suite("Descriptors over a Unix socket")
struct DescriptorPassingTests {
  private struct SocketPair: ~Copyable {
    let near: OwnedDescriptor
    let far: OwnedDescriptor

    init() throws {
      var pair: [Int32] = [0, 0]
      guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0 else {
        throw SystemError("socketpair")
      }
      near = OwnedDescriptor(owning: pair[0])
      far = OwnedDescriptor(owning: pair[1])
    }
  }

  @Test("arrive with the bytes they were sent with, close-on-exec, and mean the same file")
  func arrive() throws {
    let sockets = try SocketPair()
    var pipe: [Int32] = [0, 0]
    #expect(Glibc.pipe(&pipe) == 0)
    #expect(jsr_send_with_descriptors(sockets.near.rawValue, "hello", 5, pipe, 2, 0) == 5)
    var bytes = [UInt8](repeating: 0, count: 16)
    var received: [Int32] = [-1, -1, -1, -1]
    var count: Int32 = -1
    var truncated: Int32 = -1
    #expect(
      jsr_receive_with_descriptors(
        sockets.far.rawValue, &bytes, bytes.count, &received, 4, &count, &truncated, 0) == 5)
    #expect(count == 2 && truncated == 0)
    #expect(fcntl(received[0], F_GETFD) & FD_CLOEXEC != 0)
    #expect(write(received[1], "x", 1) == 1)
    var byte: UInt8 = 0
    #expect(read(pipe[0], &byte, 1) == 1 && byte == UInt8(ascii: "x"))
    for descriptor in pipe + received[..<2] { close(descriptor) }
  }

  @Test("that were not expected are closed, and their loss is told")
  func unexpected() throws {
    let sockets = try SocketPair()
    var pipe: [Int32] = [0, 0]
    #expect(Glibc.pipe(&pipe) == 0)
    #expect(jsr_send_with_descriptors(sockets.near.rawValue, "x", 1, [pipe[1], pipe[1], pipe[1]], 3, 0) == 1)
    close(pipe[1])
    var byte: UInt8 = 0
    var received: [Int32] = [-1]
    var count: Int32 = -1
    var truncated: Int32 = -1
    #expect(
      jsr_receive_with_descriptors(sockets.far.rawValue, &byte, 1, &received, 1, &count, &truncated, 0) == 1)
    #expect(count == 1 && truncated == 1)
    close(received[0])
    // The last copy is gone: the reader sees the end of the pipe.
    #expect(read(pipe[0], &byte, 1) == 0)
    close(pipe[0])
  }

  @Test("are refused without a byte to carry them, or beyond the kernel's limit")
  func refused() throws {
    let sockets = try SocketPair()
    #expect(jsr_send_with_descriptors(sockets.near.rawValue, "", 0, [0], 1, 0) == -1)
    #expect(errno == EINVAL)
    let many = [Int32](repeating: sockets.near.rawValue, count: Int(JSR_MAXIMUM_DESCRIPTORS) + 1)
    #expect(jsr_send_with_descriptors(sockets.near.rawValue, "x", 1, many, Int32(many.count), 0) == -1)
    #expect(errno == EINVAL)
    #expect(jsr_send_with_descriptors(sockets.near.rawValue, "x", 1, many, Int32(many.count) - 1, 0) == 1)
  }

  @Test("come from a process that the kernel vouches for")
  func credentials() throws {
    let sockets = try SocketPair()
    var process = pid_t()
    var user = uid_t()
    var group = gid_t()
    #expect(jsr_peer_credentials(sockets.near.rawValue, &process, &user, &group) == 0)
    #expect(process == getpid() && user == getuid() && group == getgid())
  }
}
