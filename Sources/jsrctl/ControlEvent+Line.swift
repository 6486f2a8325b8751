import Control

extension ControlEvent {
  /// For people: the time of day (UTC), and what happened.
  var line: String { "\(Self.timeOfDay(timeMilliseconds)) \(self)" }

  /// `12:34:56.789`
  private static func timeOfDay(_ milliseconds: Int64) -> String {
    func digits(_ value: Int64, _ count: Int) -> String {
      let text = String(value)
      return String(repeating: "0", count: max(0, count - text.count)) + text
    }
    let time = milliseconds % 86_400_000
    return digits(time / 3_600_000, 2) + ":" + digits(time / 60_000 % 60, 2) + ":"
      + digits(time / 1000 % 60, 2) + "." + digits(time % 1000, 3)
  }
}
