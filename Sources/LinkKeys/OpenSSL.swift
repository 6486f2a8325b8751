// Theory of operation
//
// openssl(1) works on files: each piece of work has a folder of its own, which nobody else may read and which goes with
// it. Of its commands only `ca` sets the moment from which a certificate is valid (before OpenSSL 3.4), so it signs
// both kinds; the database that it wants is an empty file. Names stand in the configuration, never in arguments. No
// environment is passed on but PATH, so that no other configuration plays a part.

import FoundationEssentials
import Glibc

/// A folder in which the program `openssl` makes one key and one certificate.
final class OpenSSL {
  enum File: String {
    case configuration = "openssl.cnf"
    case database = "index.txt"
    case request = "subject.csr"
    case subjectKey = "subject.key"
    case subjectCertificate = "subject.pem"
    case authorityKey = "ca.key"
    case authorityCertificate = "ca.pem"
    case output = "output"
    case errors = "errors"
  }

  /// What a certificate is for: a section of the configuration.
  enum Purpose: String {
    case authority, identity
  }

  private let folder: String

  /// - Parameter subject: the common name of the certificate, which is its DNS name if it is no authority's.
  init(naming subject: String) throws(LinkAuthority.Invalid) {
    var template = Array("/tmp/jsr-link-keys-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw LinkAuthority.Invalid(description: "no temporary folder: \(String(cString: strerror(errno)))")
    }
    folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    try write(configuration(subject), to: .configuration)
    try write("", to: .database)
  }

  deinit {
    // Its files are known: nothing else can be in it.
    if let directory = opendir(folder) {
      while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) {
          String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        unlink(folder + "/" + name)
      }
      closedir(directory)
    }
    rmdir(folder)
  }

  private func configuration(_ subject: String) -> String {
    """
    [ca]
    default_ca = folder
    [folder]
    database = \(path(.database))
    new_certs_dir = \(folder)
    rand_serial = yes
    unique_subject = no
    default_md = sha256
    policy = names
    [names]
    commonName = supplied
    [req]
    prompt = no
    distinguished_name = subject
    [subject]
    CN = \(subject)
    [\(Purpose.authority.rawValue)]
    basicConstraints = critical, CA:TRUE, pathlen:0
    keyUsage = critical, keyCertSign
    subjectKeyIdentifier = hash
    [\(Purpose.identity.rawValue)]
    basicConstraints = critical, CA:FALSE
    keyUsage = critical, digitalSignature
    extendedKeyUsage = serverAuth, clientAuth
    subjectAltName = DNS:\(subject)
    subjectKeyIdentifier = hash
    authorityKeyIdentifier = keyid

    """
  }

  func path(_ file: File) -> String { folder + "/" + file.rawValue }

  func write(_ text: String, to file: File) throws(LinkAuthority.Invalid) {
    do {
      try Data(text.utf8).write(to: URL(filePath: path(file)))
    } catch {
      throw LinkAuthority.Invalid(description: "cannot write \(path(file)): \(error)")
    }
  }

  func read(_ file: File) throws(LinkAuthority.Invalid) -> String {
    do {
      return String(decoding: try Data(contentsOf: URL(filePath: path(file))), as: UTF8.self)
    } catch {
      throw LinkAuthority.Invalid(description: "cannot read \(path(file)): \(error)")
    }
  }

  /// Makes a new key, and what is to be signed of it.
  func makeRequest() throws(LinkAuthority.Invalid) {
    try run(
      "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path(.subjectKey))
    try run(
      "req", "-new", "-config", path(.configuration), "-key", path(.subjectKey), "-out", path(.request))
  }

  /// - Parameter signer: the options that name the authority.
  func signRequest(
    _ signer: String..., as purpose: Purpose, from start: Date, to end: Date
  ) throws(LinkAuthority.Invalid) -> String {
    var words = ["ca", "-batch", "-notext", "-config", path(.configuration)] + signer
    words += ["-in", path(.request), "-out", path(.subjectCertificate), "-extensions", purpose.rawValue]
    words += ["-startdate", Self.text(start), "-enddate", Self.text(end)]
    try run(words)
    return try read(.subjectCertificate)
  }

  /// GeneralizedTime (RFC 5280, section 4.1.2.5.2): YYYYMMDDHHMMSSZ.
  private static func text(_ date: Date) -> String {
    String(date.formatted(.iso8601).filter { $0.isNumber || $0 == "Z" })
  }

  /// Runs `openssl`, and gives what it prints.
  @discardableResult
  func run(_ arguments: String...) throws(LinkAuthority.Invalid) -> String { try run(arguments) }

  @discardableResult
  private func run(_ arguments: [String]) throws(LinkAuthority.Invalid) -> String {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    let flags = O_WRONLY | O_CREAT | O_TRUNC
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, path(.output), flags, 0o600)
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, path(.errors), flags, 0o600)

    var words: [UnsafeMutablePointer<CChar>?] = [strdup("openssl")]
    for argument in arguments { words.append(strdup(argument)) }
    words.append(nil)
    let search = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
    var environment: [UnsafeMutablePointer<CChar>?] = [strdup("PATH=" + search), nil]
    defer {
      for word in words { free(word) }
      for word in environment { free(word) }
    }

    var process = pid_t()
    let result = posix_spawnp(&process, "openssl", &actions, nil, &words, &environment)
    guard result == 0 else {
      throw LinkAuthority.Invalid(
        description: "cannot run openssl: \(String(cString: strerror(result))); install the package openssl")
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    guard status == 0 else {
      let lines = try read(.errors).split(separator: "\n")
      throw LinkAuthority.Invalid(
        description: "openssl \(arguments[0]): \(lines.last?.prefix(200) ?? "no reason given")")
    }
    return try read(.output)
  }
}
