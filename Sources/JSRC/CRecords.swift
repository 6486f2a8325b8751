import Descriptors
import Glibc
import JSR
import Synchronization

/// What a `jsr_records` of C points to.
final class CRecords: Sendable {
  let records: BlockingRecords
  private let process = getpid()
  /// -1 until somebody asks; a child process must not take the channel's lock to find out.
  private let newsNumber = Atomic<Int32>(-1)

  init(_ records: BlockingRecords) { self.records = records }

  /// The channel was opened by this process, and not by the one that it was forked from.
  var isOurs: Bool { getpid() == process }

  func newsDescriptor() throws(SystemError) -> Int32 {
    let number = try records.newsDescriptor()
    newsNumber.store(number, ordering: .relaxed)
    return number
  }

  /// In a child process: closes what would keep the channel alive without its owner. No lock is taken: who held
  /// one in the parent is not there to give it back.
  func abandon() {
    _ = Glibc.close(records.descriptor)
    let number = newsNumber.load(ordering: .relaxed)
    if number >= 0 { _ = Glibc.close(number) }
  }
}
