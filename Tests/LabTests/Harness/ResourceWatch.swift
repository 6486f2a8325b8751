import Foundation
import Synchronization

/// What programs take of their machine while a case runs: resident memory and open descriptors, again and again.
final class ResourceWatch: Sendable {
  /// One moment of one program (proc(5)).
  struct Sample: Sendable {
    /// Seconds since the watch began.
    let time: Double
    /// Bytes, VmRSS.
    let residentBytes: Int
    let descriptors: Int
  }

  private let samples = Mutex<[String: [Sample]]>([:])
  private let sampling = Mutex<Task<Void, Never>?>(nil)

  /// - Parameter programs: By the names under which ``finish()`` tells of them.
  init(_ programs: [String: Program], every pause: Duration = .seconds(1)) {
    let start = ContinuousClock.now
    let task = Task {
      while !Task.isCancelled {
        for (name, program) in programs {
          // One that has ended has no more figures; that it has is another's concern.
          guard let figures = Self.figures(of: program) else { continue }
          let sample = Sample(
            time: (ContinuousClock.now - start) / .seconds(1), residentBytes: figures.residentBytes,
            descriptors: figures.descriptors)
          samples.withLock { $0[name, default: []].append(sample) }
        }
        try? await Task.sleep(for: pause)
      }
    }
    sampling.withLock { $0 = task }
  }

  /// Ends the watch.
  func finish() async -> [String: [Sample]] {
    let task = sampling.withLock { $0 }
    task?.cancel()
    await task?.value
    return samples.withLock { $0 }
  }

  /// - Returns: `nil` if the program has ended.
  static func figures(of program: Program) -> (residentBytes: Int, descriptors: Int)? {
    let directory = "/proc/\(program.pid)"
    guard let status = try? String(contentsOfFile: "\(directory)/status", encoding: .utf8),
      // VmRSS:	   42984 kB
      let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
      let kilobytes = line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap({ Int($0) }),
      let descriptors = try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/fd").count
    else { return nil }
    return (kilobytes * 1024, descriptors)
  }
}

extension [ResourceWatch.Sample] {
  /// By how many bytes the memory grew in the second half of the watch, by the line that fits its samples best
  /// (least squares): the first half is left for buffers and caches to reach their size.
  ///
  /// - Throws: ``LabFailure`` if there are too few samples to say.
  func growth() throws -> Double {
    guard count >= 10 else { throw LabFailure("\(count) samples of memory say nothing of its growth") }
    let half = self[(count / 2)...]
    let times = half.map(\.time)
    let bytes = half.map { Double($0.residentBytes) }
    let middle = (times.reduce(0, +) / Double(half.count), bytes.reduce(0, +) / Double(half.count))
    let (above, below) = zip(times, bytes).reduce((0.0, 0.0)) { sums, point in
      let distance = point.0 - middle.0
      return (sums.0 + distance * (point.1 - middle.1), sums.1 + distance * distance)
    }
    guard let first = times.first, let last = times.last, below > 0 else {
      throw LabFailure("samples of memory without time between them say nothing")
    }
    return above / below * (last - first)
  }

  /// For the record of a case.
  var summary: String {
    func megabytes(_ bytes: Double) -> String { String(format: "%.1f", bytes / 1_048_576) }
    let bytes = map { Double($0.residentBytes) }
    return "\(megabytes(bytes.first ?? 0)) MiB at first, \(megabytes(bytes.max() ?? 0)) at the most,"
      + " \(megabytes(bytes.last ?? 0)) in the end, grew by \(megabytes((try? growth()) ?? .nan)) in the second half"
  }
}
