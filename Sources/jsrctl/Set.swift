import ArgumentParser
import Control

struct Set: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Changes a setting of the running engine.",
    discussion: """
      prl.timeout, sdrl.timeout and psrm.timeout can be changed: how long a record of the layer may stay \
      unacknowledged before its socket is unreplicated, 10ms to 60s. The change lasts until the engine ends or \
      reads its configuration again (SIGHUP).
      """)

  @OptionGroup var engine: EngineOptions

  @Argument(help: "The setting.")
  var name: Name

  @Argument(help: "Its new value, such as 500ms.")
  var value: String

  /// Every setting is understood, so that whoever wants to change one that is fixed is told how.
  struct Name: ExpressibleByArgument {
    let setting: SettingName

    init?(argument: String) {
      guard let setting = SettingName(rawValue: argument) else { return nil }
      self.setting = setting
    }

    static let allValueStrings = SettingName.allCases.filter(\.isChangedBySet).map(\.rawValue)
  }

  func validate() throws {
    let name = name.setting
    guard name.isChangedBySet else { throw ValidationError("\(name.rawValue) \(name.wayToChange)") }
    do throws(SettingValue.Invalid) {
      _ = try SettingValue.duration(value, in: .zero ... .seconds(Int64.max))
    } catch {
      throw ValidationError("\(name.rawValue) \(error)")
    }
  }

  func run() throws { try engine.order(.set(name: name.setting.rawValue, value: value)) }
}
