import Testing

@Suite("A completion script of jsrctl") struct CompletionTests {
  @Test("is one that the shell can read, and knows the commands and the settings")
  func bash() throws {
    let script = try Run("jsrctl", ["--generate-completion-script", "bash"])
    #expect(script.status == 0)
    for word in ["hold-acks", "unreplicate", "prl.timeout", "limits.hold-buffer", "memory"] {
      #expect(script.output.contains(word), "\(word) is missing")
    }
    let check = try Run("/bin/bash", ["-n"], input: script.output)
    #expect(check.status == 0, "\(check.errors)")
  }

  @Test("is there for every shell that people have", arguments: ["bash", "zsh", "fish"])
  func shells(_ shell: String) throws {
    let script = try Run("jsrctl", ["--generate-completion-script", shell])
    #expect(script.status == 0)
    #expect(script.output.contains("unreplicate"))
  }

  @Test("proposes no handle, and complains of nothing, where there is no engine")
  func handles() throws {
    let words = ["jsrctl", "--socket", "/nonexistent/jsrd.sock", "unreplicate", ""]
    let run = try Run("jsrctl", ["---completion", "unreplicate", "--", "positional@0", "4", "0"] + words)
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.output.split(whereSeparator: \.isNewline) == [])
    #expect(run.errors.isEmpty)
  }
}
