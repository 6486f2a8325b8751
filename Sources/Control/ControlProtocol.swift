/// The numbers that both ends of the control socket agree on.
///
/// The control socket is a Unix socket of type `SOCK_SEQPACKET`: the kernel keeps messages whole, so there is
/// no framing to get wrong, and descriptors travel with the message they belong to. Each message is one JSON
/// document of at most 64 KiB with the field `version`. A client sends requests with an `id` of its choice;
/// each is answered by one reply with the same `id`, or by several of which all but the last say
/// `"more": true`. Replies may come in any order. Events come in between once they are asked for.
public enum ControlProtocol {
  /// The version spoken here, in `version` of every message.
  public static let version = 1
  /// The longest message in bytes.
  public static let messageLimit = 65_536
  /// The most descriptors that come with one message.
  public static let descriptorLimit = 2
  /// The longest name of an application in bytes of UTF-8.
  public static let applicationNameLimit = 64
  /// Where the engine listens unless its configuration says otherwise.
  public static let defaultPath = "/run/jsr/jsrd.sock"
}
