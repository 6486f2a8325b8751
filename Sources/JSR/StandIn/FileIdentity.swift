import Descriptors
import Glibc

/// Which open file a descriptor means: numbers are reused, and sockets have an inode each (socket(7), sockfs).
struct FileIdentity: Hashable {
  let device: dev_t
  let inode: ino_t

  /// - Throws: `EBADF` if the descriptor is not open.
  init(of descriptor: Int32) throws(SystemError) {
    var file = stat()
    guard fstat(descriptor, &file) == 0 else { throw SystemError("fstat") }
    device = file.st_dev
    inode = file.st_ino
  }
}
