public import CJSR
import Descriptors
import Glibc
import JSR

// The records of jsr.h, which says what each function does.

@c @implementation
public func jsr_begin_records(
  _ session: OpaquePointer!, _ handle: jsr_handle, _ records: UnsafeMutablePointer<OpaquePointer?>!
) -> Int32 {
  status { () throws(CFailure) in
    let place = try require(records, "records")
    place.pointee = nil
    let session = try require(session)
    let opened = try asking { () throws(CallFailure) in
      try session.session.beginRecords(Handle(rawValue: handle), within: session.timeout)
    }
    place.pointee = OpaquePointer(Unmanaged.passRetained(CRecords(opened)).toOpaque())
  }
}

@c @implementation
public func jsr_send_record(
  _ records: OpaquePointer!, _ record: UnsafeRawPointer!, _ size: Int, _ milliseconds: Int32,
  _ number: UnsafeMutablePointer<UInt64>!
) -> Int32 {
  status { () throws(CFailure) in
    let records = try require(records: records).records
    let bytes = UnsafeRawBufferPointer(start: try require(record, "record"), count: max(size, 0))
    let sent = try onChannel { () throws(JSRError) in
      try records.send(bytes, within: patience(milliseconds))
    }
    guard let sent else { throw CFailure(EAGAIN, "there is no room for the record") }
    number?.pointee = sent
  }
}

@c @implementation
public func jsr_wait_record(_ records: OpaquePointer!, _ number: UInt64, _ milliseconds: Int32) -> Int32 {
  status { () throws(CFailure) in
    let records = try require(records: records).records
    guard number <= records.givenCount else {
      throw CFailure(EINVAL, "there is no record \(number) yet")
    }
    let isSafe = try onChannel { () throws(JSRError) in
      try records.waitUntilSafe(number, within: patience(milliseconds))
    }
    guard isSafe else { throw CFailure(EAGAIN, "record \(number) is not safe yet") }
  }
}

@c @implementation
public func jsr_records_descriptor(_ records: OpaquePointer!) -> Int32 {
  number { () throws(CFailure) in
    let records = try require(records: records)
    do throws(SystemError) { return try records.newsDescriptor() } catch { throw CFailure(error) }
  }
}

@c @implementation
public func jsr_records_news(
  _ records: OpaquePointer!, _ news: UnsafeMutablePointer<jsr_records_status>!, _ size: Int
) -> Int32 {
  status { () throws(CFailure) in
    let records = try require(records: records).records
    let place = try require(news, "news")
    try requireSize(size, atLeast: jsr_records_status.firstSize)
    try copy(jsr_records_status(records), to: place, size: size, first: jsr_records_status.firstSize)
  }
}

@c @implementation
public func jsr_end_records(
  _ records: OpaquePointer!, _ milliseconds: Int32, _ accepted: UnsafeMutablePointer<UInt64>!
) -> Int32 {
  status { () throws(CFailure) in
    let records = try require(records: records).records
    let count = try onChannel { () throws(JSRError) in try records.end(within: patience(milliseconds)) }
    guard let count else { throw CFailure(EAGAIN, "records are still to be written") }
    accepted?.pointee = count
  }
}

@c @implementation
public func jsr_free_records(_ records: OpaquePointer!) {
  guard let records else { return }
  let opened = unchecked(records: records)
  guard opened.isOurs else { return opened.abandon() }
  opened.records.letGo()
  Unmanaged<CRecords>.fromOpaque(UnsafeRawPointer(records)).release()
}

/// The channel, which must be this process's.
private func require(records: OpaquePointer?) throws(CFailure) -> CRecords {
  let records = unchecked(records: try require(records, "records"))
  guard records.isOurs else { throw CFailure(ECHILD, "the records were begun by another process") }
  return records
}

/// The channel, whosever it is.
private func unchecked(records: OpaquePointer) -> CRecords {
  Unmanaged<CRecords>.fromOpaque(UnsafeRawPointer(records)).takeUnretainedValue()
}

/// As poll(2) has it: below 0 for ever.
private func patience(_ milliseconds: Int32) -> Duration? {
  milliseconds < 0 ? nil : .milliseconds(milliseconds)
}

private func onChannel<Value>(_ body: () throws(JSRError) -> Value) throws(CFailure) -> Value {
  do throws(JSRError) { return try body() } catch { throw CFailure(error) }
}

extension jsr_records_status {
  /// Bytes of the structure when it was new.
  static let firstSize = 40

  /// Takes the news.
  init(_ records: BlockingRecords) {
    self.init()
    let news = records.takeNews()
    let kind: jsr_records_state
    switch news.state {
    case .open: kind = JSR_RECORDS_OPEN
    case .ended(let count): (kind, accepted) = (JSR_RECORDS_ENDED, count)
    case .moved: kind = JSR_RECORDS_MOVED
    case .engineGone: kind = JSR_RECORDS_ENGINE_GONE
    }
    state = kind.rawValue
    limit = UInt32(clamping: records.recordLimit)
    given = news.givenCount
    safe = news.safeCount
  }
}
