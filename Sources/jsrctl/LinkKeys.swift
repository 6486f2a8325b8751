import ArgumentParser
import FoundationEssentials
import Glibc
import LinkKeys

struct LinkKeys: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "link-keys",
    abstract: "Makes the keys of the inter-RE link.",
    discussion: """
      Asks no engine: this can be done on any machine. Exit status: 0 done, 1 a file is in the way or cannot be \
      used, 64 wrong usage.
      """,
    subcommands: [New.self, Renew.self])

  struct Folder: ParsableArguments {
    @Argument(help: "The folder of the keys.")
    var directory: String

    @Option(help: "The names of the two routing engines, that of slot 0 first.")
    var names = "re0,re1"

    @Option(help: "How many days the certificates of the routing engines are valid.")
    var days = LinkKeyFolder.defaultDays

    func validate() throws {
      guard (1...36_500).contains(days) else {
        throw ValidationError("--days must be a number from 1 to 36500, not \(days)")
      }
      do throws(LinkKeyFolder.Failure) {
        _ = try folder()
      } catch {
        throw ValidationError("--names: \(error)")
      }
    }

    func folder() throws(LinkKeyFolder.Failure) -> LinkKeyFolder {
      var path = directory
      while path.count > 1, path.hasSuffix("/") { path.removeLast() }
      return try LinkKeyFolder(
        path: path, names: names.split(separator: ",", omittingEmptySubsequences: false).map(String.init))
    }

    /// Does something with the folder; a failure becomes a line on standard error and an exit status.
    func with(_ body: (LinkKeyFolder) throws(LinkKeyFolder.Failure) -> Void) throws(ExitCode) {
      do throws(LinkKeyFolder.Failure) {
        try body(try folder())
      } catch {
        let line = Array("jsrctl: \(error)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
        throw .failure
      }
    }
  }

  struct New: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Makes an authority, and a key and a certificate for each of two routing engines.",
      discussion: """
        No file is overwritten. The authority (ca.pem, ca.key) serves this pair alone and is valid for 20 years; \
        its key is needed for renewals only, and belongs on neither routing engine.
        """)

    @OptionGroup var folder: Folder

    func run() throws {
      try folder.with { keys throws(LinkKeyFolder.Failure) in
        try keys.make(days: folder.days)
        print(
          """
          made in \(keys.path), valid for \(folder.days) days:
            ca.pem           the certificate of this pair's authority
            ca.key           its key: to neither routing engine; keep it for renewals
          """)
        for name in keys.names { print("  \(name).pem, \(name).key") }
        for (slot, name) in keys.names.enumerated() {
          let other = keys.names[1 - slot]
          let isUsual = name == "re\(slot)" && other == "re\(1 - slot)"
          print(
            """

            to \(name) (slot \(slot)), into the folder of its jsrd.yaml:  ca.pem \(name).pem \(name).key
            and into that file:
              link:
                tls: { certificate: \(name).pem, key: \(name).key, ca: ca.pem\(isUsual ? "" : ", name: \(name), peer: \(other)") }
            """)
        }
      }
    }
  }

  struct Renew: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Makes new keys and certificates for both routing engines.",
      discussion: """
        Needs ca.pem and ca.key in the folder, and replaces the other files there. Old and new certificates accept \
        each other, so the two routing engines can be changed one after the other, without losing the link.
        """)

    @OptionGroup var folder: Folder

    func run() throws {
      try folder.with { keys throws(LinkKeyFolder.Failure) in
        let end = try keys.renew(days: folder.days)
        print("renewed in \(keys.path), valid until \(end.formatted(.iso8601)):")
        for name in keys.names { print("  to \(name), in place of its old ones:  \(name).pem \(name).key") }
        print("then, on each:  kill -HUP the jsrd there (systemctl reload jsrd)")
      }
    }
  }
}
