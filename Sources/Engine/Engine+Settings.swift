import Control
import EngineConfiguration
import Glibc
import Logging
import Replication

// What an operator changes while the engine runs. Whatever is changed is in `configuration` as well, so that
// there is one place that says what is in force.
extension Engine {
  // MARK: By name

  func get(_ name: String, reply: ReplyPort) {
    guard let name = setting(name, reply) else { return }
    reply.send(.setting(SettingReport(name: name, value: value(of: name))))
  }

  func set(_ name: String, to text: String, reply: ReplyPort) {
    guard let name = setting(name, reply) else { return }
    let layer: Layer
    switch name {
    case .prlTimeout: layer = .prl
    case .sdrlTimeout: layer = .sdrl
    case .psrmTimeout: layer = .psrm
    case .mode, .logLevel, .onApplicationFailure, .debug, .heldAcknowledgements, .socketLimit,
      .snoopBufferLimit, .holdBufferLimit, .recordLimit:
      return reply.refuse(.notPermitted, "\(name.rawValue) \(name.wayToChange)")
    }
    do throws(SettingValue.Invalid) {
      changeTimeout(of: layer, to: try SettingValue.duration(text, in: Configuration.Timeouts.range))
    } catch {
      return reply.refuse(.invalidValue, "\(name.rawValue) \(error)")
    }
    let value = value(of: name)
    logger.notice("\(name.rawValue) is \(value) now")
    reply.send(.setting(SettingReport(name: name, value: value)))
  }

  private func setting(_ name: String, _ reply: ReplyPort) -> SettingName? {
    guard let setting = SettingName(rawValue: name) else {
      reply.refuse(.unknownSetting, SettingName.unknown(name).message)
      return nil
    }
    return setting
  }

  private func value(of name: SettingName) -> String {
    let limits = configuration.limits
    return switch name {
    case .prlTimeout: SettingValue.describe(configuration.timeouts.prl)
    case .sdrlTimeout: SettingValue.describe(configuration.timeouts.sdrl)
    case .psrmTimeout: SettingValue.describe(configuration.timeouts.psrm)
    case .mode: configuration.mode.rawValue
    case .logLevel: configuration.log.level.rawValue
    case .onApplicationFailure: configuration.onApplicationFailure.rawValue
    case .debug: "\(configuration.debug)"
    case .heldAcknowledgements:
      heldLayers.isEmpty ? "none" : heldLayers.map(\.rawValue).joined(separator: ",")
    case .socketLimit: "\(limits.sockets)"
    case .snoopBufferLimit: SettingValue.describe(limits.snoopBuffer)
    case .holdBufferLimit: SettingValue.describe(limits.holdBuffer)
    case .recordLimit: SettingValue.describe(limits.record)
    }
  }

  private func changeTimeout(of layer: Layer, to time: Duration) {
    configuration.timeouts[layer] = time
    node.setTimeout(of: layer, Nanoseconds(time))
  }

  // MARK: The log

  func changeLogLevel(to level: Logger.Level) {
    configuration.log.level = level
    node.logsRecords = level <= .debug
    setLogLevel(level)
    logger.notice("log level is \(level) now")
  }

  // MARK: Fault injection

  private var heldLayers: [ControlRequest.DataLayer] {
    ControlRequest.DataLayer.allCases.filter { node.holdsAcknowledgements(of: Layer($0)) }
  }

  func holdAcknowledgements(of layer: ControlRequest.DataLayer, _ isOn: Bool, reply: ReplyPort) {
    guard configuration.debug else {
      return reply.refuse(.notPermitted, "debugging is off: set debug: true in the configuration")
    }
    hold(layer, isOn)
    reply.send(.done)
  }

  private func hold(_ layer: ControlRequest.DataLayer, _ isOn: Bool) {
    guard node.holdsAcknowledgements(of: Layer(layer)) != isOn else { return }
    logger.warning("fault injection: acknowledgements of \(Layer(layer)) are \(isOn ? "held" : "let go")")
    node.holdAcknowledgements(of: Layer(layer), isOn, now: Self.now())
  }

  // MARK: A new configuration

  /// - Parameter credentials: what the files that `new` names for the link hold.
  func takeOver(_ new: Configuration, _ credentials: LinkCredentials?) {
    let changes = configuration.changes(to: new)
    if changes.isEmpty { logger.info("configuration read again: nothing has changed") }
    for key in changes.atOnce { logger.notice("configuration read again: \(key) has changed") }
    for key in changes.afterRestart {
      logger.warning("configuration read again: \(key) has changed, which takes effect after a restart")
    }
    changeTimeout(of: .prl, to: new.timeouts.prl)
    changeTimeout(of: .sdrl, to: new.timeouts.sdrl)
    changeTimeout(of: .psrm, to: new.timeouts.psrm)
    if new.log.level != configuration.log.level { changeLogLevel(to: new.log.level) }
    configuration.onApplicationFailure = new.onApplicationFailure
    configuration.debug = new.debug
    // From plain text to TLS, or back, is a restart: the two REs must do it at the same time.
    if let credentials, linkCredentials != nil {
      configuration.link.security = new.link.security
      linkCredentials = credentials
      link.use(credentials)
      logger.info(
        "configuration read again: the next link uses the certificate that ends at \(UTC.text(credentials.certificateEnd))"
      )
      warnOfLinkSecurity()
    }
    if !new.debug {
      for layer in heldLayers { hold(layer, false) }
    }
    settle()
  }
}

extension Configuration.Timeouts {
  /// Of the layers of replication; what belongs to no socket waits as long as PSRM.
  fileprivate subscript(layer: Layer) -> Duration {
    get {
      switch layer {
      case .prl: prl
      case .sdrl: sdrl
      case .psrm, .iha, .kkcm, .mastership: psrm
      }
    }
    set {
      switch layer {
      case .prl: prl = newValue
      case .sdrl: sdrl = newValue
      case .psrm, .iha, .kkcm, .mastership: psrm = newValue
      }
    }
  }
}

extension Layer {
  init(_ layer: ControlRequest.DataLayer) {
    self =
      switch layer {
      case .prl: .prl
      case .sdrl: .sdrl
      case .psrm: .psrm
      }
  }
}

extension Logger.Level {
  init(_ level: ControlRequest.LogLevel) {
    self =
      switch level {
      case .trace: .trace
      case .debug: .debug
      case .info: .info
      case .notice: .notice
      case .warning: .warning
      case .error: .error
      case .critical: .critical
      }
  }
}
