// Theory of operation
//
// A socket file outlives the process that bound it. To tell a dead engine's file from a live one's, and to keep
// two engines that start at the same time from removing each other's, an engine holds flock(2) on
// `PATH.lock` as long as it lives; the kernel lets go of the lock with the process. Whoever has the lock may
// remove a socket at PATH on which nobody listens.
//
// bind(2) makes the file with the rights that the umask leaves, but nobody can connect before listen(2)
// (unix_stream_connect wants TCP_LISTEN of the other side): the rights are set between the two.

import Control
import Descriptors
import Glibc

/// The listening control socket, in the file system as long as it is held.
struct ControlListener: ~Copyable {
  private let path: String
  private let socket: OwnedDescriptor
  private let lock: OwnedDescriptor
  /// The file that was made here, so that no other is removed at the end.
  private let file: stat

  /// Listens at `path`, mode 0660; makes the directory if there is none.
  init(path: String) throws(ControlServerError) {
    let lock: OwnedDescriptor
    let socket: OwnedDescriptor
    do throws(SystemError) { try Self.makeDirectory(of: path) } catch { throw .system(error) }
    lock = try Self.lock(path)
    try Self.removeStale(path)
    do throws(SystemError) { socket = try Self.bind(to: path) } catch { throw .system(error) }
    do throws(SystemError) { file = try Self.listen(socket, at: path) } catch { throw .system(error) }
    self.path = path
    self.socket = socket
    self.lock = lock
  }

  deinit {
    var now = stat()
    if lstat(path, &now) == 0, now.st_ino == file.st_ino, now.st_dev == file.st_dev { unlink(path) }
  }

  var descriptor: Int32 { socket.rawValue }

  /// The next client.
  ///
  /// - Throws: `EAGAIN` if there is none, `EMFILE` and the like if there can be none now.
  borrowing func accept() throws(SystemError) -> OwnedDescriptor {
    while true {
      let client = Glibc.accept(socket.rawValue, nil, nil)
      // A client that gave up before it was accepted is no reason to stop.
      if client < 0, errno == EINTR || errno == ECONNABORTED { continue }
      let descriptor = try OwnedDescriptor(returnedBy: "accept", client)
      guard fcntl(client, F_SETFD, FD_CLOEXEC) == 0 else { throw SystemError("fcntl(F_SETFD)") }
      return descriptor
    }
  }

  private static func makeDirectory(of path: String) throws(SystemError) {
    var directory = ""
    for part in path.split(separator: "/").dropLast() {
      directory += "/" + part
      guard mkdir(directory, 0o755) == 0 || errno == EEXIST else { throw SystemError("mkdir", on: directory) }
    }
  }

  private static func lock(_ path: String) throws(ControlServerError) -> OwnedDescriptor {
    let name = path + ".lock"
    let number = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard number >= 0 else { throw .system(SystemError("open", on: name)) }
    let lock = OwnedDescriptor(owning: number)
    guard flock(lock.rawValue, LOCK_EX | LOCK_NB) == 0 else {
      throw errno == EWOULDBLOCK ? .alreadyRunning(path: path) : .system(SystemError("flock", on: name))
    }
    return lock
  }

  private static func removeStale(_ path: String) throws(ControlServerError) {
    var present = stat()
    guard lstat(path, &present) == 0 else { return }
    guard present.st_mode & S_IFMT == S_IFSOCK else { throw .occupied(path: path) }
    do throws(SystemError) {
      _ = try ControlSocket(connectingTo: path, timeoutSeconds: 1)
      throw SystemError("connect", code: EADDRINUSE)
    } catch {
      // EPROTOTYPE: somebody listens there, with another type of socket.
      guard error.code == ECONNREFUSED || error.code == ENOENT else { throw .alreadyRunning(path: path) }
    }
    guard unlink(path) == 0 || errno == ENOENT else { throw .system(SystemError("unlink", on: path)) }
  }

  private static func bind(to path: String) throws(SystemError) -> OwnedDescriptor {
    let number = Glibc.socket(
      AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    let socket = try OwnedDescriptor(returnedBy: "socket(AF_UNIX)", number)
    var address = try ControlSocket.address(of: path)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        Glibc.bind(number, address, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else { throw SystemError("bind", on: path) }
    return socket
  }

  /// - Returns: the socket in the file system.
  private static func listen(
    _ socket: borrowing OwnedDescriptor, at path: String
  ) throws(SystemError) -> stat {
    var file = stat()
    guard lstat(path, &file) == 0 else { throw SystemError("lstat", on: path) }
    guard chmod(path, 0o660) == 0 else { throw SystemError("chmod", on: path) }
    if let group = ControlGroup.identifier {
      guard chown(path, uid_t.max, group) == 0 else { throw SystemError("chown", on: path) }
    }
    guard Glibc.listen(socket.rawValue, Int32(ControlServer.clientLimit)) == 0 else {
      throw SystemError("listen", on: path)
    }
    return file
  }
}
