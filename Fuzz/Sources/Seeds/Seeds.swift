import Glibc

/// Writes real messages for the corpora to begin with, one file each: `Seeds FOLDER` makes a folder there for
/// each target.
@main
struct Seeds {
  static func main() {
    guard CommandLine.arguments.count == 2 else {
      print("usage: Seeds FOLDER")
      exit(64)
    }
    let folder = CommandLine.arguments[1]
    write(linkSeeds(), to: "\(folder)/LinkInput")
    write(packetSeeds(), to: "\(folder)/PacketViews")
    write(controlSeeds(), to: "\(folder)/ControlMessages")
    write(configurationSeeds(), to: "\(folder)/ConfigurationText")
  }

  private static func write(_ seeds: [[UInt8]], to folder: String) {
    mkdir(folder, 0o755)
    for (number, seed) in seeds.enumerated() {
      let path = "\(folder)/seed-\(number)"
      guard let file = fopen(path, "we"), fwrite(seed, 1, seed.count, file) == seed.count, fclose(file) == 0
      else {
        print("\(path) cannot be written: \(String(cString: strerror(errno)))")
        exit(73)
      }
    }
    print("\(folder): \(seeds.count) seeds")
  }
}
