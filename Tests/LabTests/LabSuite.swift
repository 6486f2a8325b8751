import Glibc
import Testing

/// All tests that need the lab, one at a time: they measure time, and their captures want the machine.
@Suite(
  .serialized,
  .enabled("lab tests make network namespaces: run them as root") { geteuid() == 0 })
enum LabSuite {}
