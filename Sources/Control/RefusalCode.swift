/// Why the engine refused a request: the `code` of an error reply. The message beside it is for people and
/// may change; the code is for programs and does not.
public enum RefusalCode: String, Sendable, Hashable, Codable {
  /// The message was not a request in the form of this protocol.
  case malformed
  /// The message was longer than the protocol allows.
  case oversized
  /// Another version of the protocol is spoken.
  case version
  /// The request came with too few or too many descriptors.
  case descriptors
  /// A request came before `hello`.
  case notIntroduced = "not_introduced"
  /// The engine has as many clients, sockets or bytes queued as its limits allow.
  case limit
  /// The handle was never allocated, is stale, or belongs to another routing engine.
  case unknownHandle = "unknown_handle"
  /// The handle belongs to another application.
  case foreignHandle = "foreign_handle"
  /// The request does not fit what the handle is used for at the moment.
  case wrongState = "wrong_state"
  /// Only the primary can do this.
  case notPrimary = "not_primary"
  /// Only the secondary can do this.
  case notSecondary = "not_secondary"
  /// There is no secondary that is connected and ready.
  case noSecondary = "no_secondary"
  /// The descriptor is not a socket that can be replicated.
  case unsuitableSocket = "unsuitable_socket"
  /// Another application of this routing engine has registered the service.
  case serviceTaken = "service_taken"
  /// Nobody has registered the service on the other routing engine.
  case noService = "no_service"
  /// The instance on the other routing engine does not want to.
  case declined
  /// The connection is signed (RFC 2385), and the merge comes without its key.
  case signingKey = "signing_key"
  /// The other routing engine did not answer in time.
  case timeout
  /// The client may not do this.
  case notPermitted = "not_permitted"
  /// There is no setting of that name.
  case unknownSetting = "unknown_setting"
  /// The setting cannot have that value.
  case invalidValue = "invalid_value"
  /// A system call failed.
  case system
  /// The engine is ending.
  case ending
  /// A code that this version does not know.
  case other

  /// A code of a newer engine is read as `other`, so that its message still reaches somebody.
  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    self = Self(rawValue: text) ?? .other
  }
}
