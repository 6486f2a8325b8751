import Glibc

/// Asks every few milliseconds until `condition` holds; false if it does not within `seconds`.
func eventually(within seconds: Double = 5, _ condition: () throws -> Bool) rethrows -> Bool {
  let clock = ContinuousClock()
  let end = clock.now + .milliseconds(Int(seconds * 1000))
  while true {
    if try condition() { return true }
    if clock.now >= end { return false }
    usleep(2000)
  }
}

func pause(milliseconds: Int) { usleep(UInt32(milliseconds) * 1000) }
