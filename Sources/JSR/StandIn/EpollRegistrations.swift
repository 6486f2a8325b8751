import CLinux
import Descriptors
import Glibc

/// What epoll instances of this process have registered for one descriptor.
///
/// The kernel lists it in `/proc/self/fdinfo`, a line for each registration (ep_show_fdinfo, fs/eventpoll.c):
///
///     tfd:        5 events:       19 data:               2a  pos:0 ino:1f3 sdev:8
struct EpollRegistrations {
  private struct Registration {
    var instance: Int32
    var event: epoll_event
  }

  private let number: Int32
  private var registrations: [Registration] = []

  /// - Parameter identity: the file that is meant; under the same number there may be registrations of others.
  init(of number: Int32, meaning identity: FileIdentity) throws(SystemError) {
    self.number = number
    for instance in try ProcessFiles.numbers(in: "/proc/self/fd") {
      guard ProcessFiles.target(of: "/proc/self/fd/\(instance)") == "anon_inode:[eventpoll]",
        let lines = ProcessFiles.lines(of: "/proc/self/fdinfo/\(instance)")
      else { continue }
      for line in lines {
        guard let event = Self.event(in: line, of: number, meaning: identity) else { continue }
        registrations.append(Registration(instance: instance, event: event))
      }
    }
  }

  /// Takes them away. The descriptor must mean the file.
  mutating func remove() {
    // One that is gone meanwhile need not be added again.
    registrations.removeAll { epoll_ctl($0.instance, EPOLL_CTL_DEL, number, nil) != 0 }
  }

  /// Registers the file that the descriptor means now in the same way.
  func add() {
    for var registration in registrations {
      // Fails if the program has closed the instance meanwhile, or has registered the file itself.
      _ = epoll_ctl(registration.instance, EPOLL_CTL_ADD, number, &registration.event)
    }
  }

  static func event(in line: Substring, of number: Int32, meaning identity: FileIdentity) -> epoll_event? {
    let words = line.split(whereSeparator: { $0 == " " || $0 == ":" || $0 == "\t" })
    func value(_ name: Substring, radix: Int = 16) -> UInt64? {
      guard let place = words.firstIndex(of: name), place + 1 < words.endIndex else { return nil }
      return UInt64(words[place + 1], radix: radix)
    }
    guard value("tfd", radix: 10) == UInt64(number), value("ino") == UInt64(identity.inode),
      let events = value("events"), let data = value("data")
    else { return nil }
    return epoll_event(events: UInt32(truncatingIfNeeded: events), data: epoll_data_t(u64: data))
  }
}
