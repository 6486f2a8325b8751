import Control
import Testing

@Suite("A setting")
struct SettingValueTests {
  @Test(
    "of time is read as it is written, and written in the unit that fits",
    arguments: [
      ("500ms", Duration.milliseconds(500), "500ms"), ("1000ms", .seconds(1), "1s"),
      ("1m", .seconds(60), "60s"),
      ("10500us", .microseconds(10_500), "10500us"), ("20000us", .milliseconds(20), "20ms"),
    ])
  func durations(_ text: String, _ value: Duration, _ written: String) throws {
    let read = try SettingValue.duration(text, in: .milliseconds(10) ... .seconds(60))
    #expect(read == value)
    #expect(SettingValue.describe(read) == written)
    #expect(try SettingValue.duration(written, in: .milliseconds(10) ... .seconds(60)) == value)
  }

  @Test(
    "of time that cannot be is refused with what would be right",
    arguments: [
      ("5", "must be a time such as 100ms, 1s or 1m, not 5"), ("", "must be a time"),
      ("ms", "must be a time"),
      ("-1s", "must be a time"), ("1 s", "must be a time"), ("1h", "must be a time"),
      ("1.5s", "must be a time"),
      ("9ms", "must be from 10ms to 60s, not 9ms"), ("61s", "must be from 10ms to 60s, not 61s"),
      ("9223372036854775807m", "must be from 10ms to 60s"),
    ])
  func wrongDurations(_ text: String, _ says: String) throws {
    let error = try #require(throws: SettingValue.Invalid.self) {
      try SettingValue.duration(text, in: .milliseconds(10) ... .seconds(60))
    }
    #expect("\(error)".hasPrefix(says), "says: \(error)")
  }

  @Test(
    "of size is read as it is written, and written in the unit that fits",
    arguments: [
      ("1024B", 1024, "1KiB"), ("4MiB", 4 << 20, "4MiB"), ("1025B", 1025, "1025B"), ("2GiB", 2 << 30, "2GiB"),
    ]
  )
  func sizes(_ text: String, _ value: Int, _ written: String) throws {
    #expect(try SettingValue.size(text, in: 1...4 << 30) == value)
    #expect(SettingValue.describe(value) == written)
  }

  @Test("that is not changed by set says how else it is changed, or that it is not")
  func fixed() {
    #expect(
      SettingName.allCases.filter(\.isChangedBySet).map(\.rawValue)
        == ["prl.timeout", "sdrl.timeout", "psrm.timeout"])
    #expect(SettingName.mode.wayToChange.contains("restart jsrd"))
    #expect(SettingName.logLevel.wayToChange.contains("jsrctl log level"))
    #expect(
      SettingName.unknown("colour").message.hasPrefix(
        "there is no setting \"colour\"; there are prl.timeout, "))
    #expect(SettingName.unknown("colour").code == .unknownSetting)
  }
}
