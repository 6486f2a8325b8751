// Theory of operation
//
// rtnetlink(7) tells every subscriber of RTMGRP_LINK of each interface of its network namespace that comes,
// goes or changes. A subscriber that falls behind is told so: its next read fails with ENOBUFS.
//
// To ask for an interface by its name again and again is no substitute: the kernel tries to load a module for
// a name that it does not know (dev_load, net/core/dev_ioctl.c), and the caller waits for it.

import CLinux
import Descriptors
import Glibc

/// Tells which interfaces of a network namespace have come, gone or changed: the namespace of the thread that made it.
public struct InterfaceNews: ~Copyable, Sendable {
  /// What has happened since the last question.
  public struct News: Sendable {
    fileprivate var names: Set<String> = []
    fileprivate var indexes: Set<Int32> = []
    /// Something else may have happened, of which nothing is known.
    fileprivate var isIncomplete = false

    public var isEmpty: Bool { names.isEmpty && indexes.isEmpty && !isIncomplete }

    /// Whether something may have happened to what is, was or would be called `name`, or to `interface`.
    public func concern(_ name: String, _ interface: NetworkInterface?) -> Bool {
      isIncomplete || names.contains(name) || interface.map { indexes.contains($0.index) } == true
    }
  }

  private let socket: NetlinkSocket

  public init() throws(SystemError) {
    socket = try NetlinkSocket(NETLINK_ROUTE, groups: UInt32(RTMGRP_LINK))
  }

  /// What has happened since the last question. Does not wait; a single system call if nothing has.
  public borrowing func take() -> News {
    var news = News()
    do throws(SystemError) {
      while try socket.hasMessages() {
        _ = try socket.receive { type, body in
          guard type == RTM_NEWLINK || type == RTM_DELLINK, body.count >= MemoryLayout<ifinfomsg>.size else {
            return
          }
          news.indexes.insert(body.loadUnaligned(as: ifinfomsg.self).ifi_index)
          UnsafeRawBufferPointer(rebasing: body[MemoryLayout<ifinfomsg>.size...]).forEachAttribute {
            kind, value in
            guard kind == UInt16(IFLA_IFNAME) else { return }
            news.names.insert(String(decoding: value.prefix { $0 != 0 }, as: UTF8.self))
          }
        }
      }
    } catch {
      news.isIncomplete = true
    }
    return news
  }
}
