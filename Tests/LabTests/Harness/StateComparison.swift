import Testing

extension ConnectionReport {
  /// Checks that what the primary says of a connection at rest is what the secondary has of it, and what the primary's
  /// own kernel says.
  func expectSameState(snooped: ConnectionReport, kernel: KernelSocket) {
    #expect(snooped.state == state)
    #expect(snooped.sndUna == sndUna)
    #expect(snooped.sndNxt == sndNxt)
    #expect(snooped.rcvNxt == rcvNxt)
    #expect(snooped.sndWnd == sndWnd)
    #expect(snooped.rcvRightEdge == rcvRightEdge)
    #expect(snooped.mss == mss)
    #expect(snooped.sndWscale == sndWscale)
    #expect(snooped.rcvWscale == rcvWscale)
    #expect(snooped.sack == sack)
    #expect(snooped.timestamps == timestamps)

    #expect(kernel.state == "ESTAB" && state.uppercased().hasPrefix("ESTAB"))
    #expect(kernel.options.contains("ts") == timestamps && kernel.options.contains("sack") == sack)
    #expect(kernel.values["wscale"] == "\(sndWscale ?? 255),\(rcvWscale ?? 255)")
    // The agreed MSS leaves options out of account (RFC 6691); ss shows what is left for payload beside
    // the timestamps, which take 12 bytes of every segment.
    #expect(kernel.values["mss"] == "\(mss - (timestamps ? 12 : 0))")
    #expect(kernel.values["snd_wnd"] == "\(sndWnd)")
  }
}
