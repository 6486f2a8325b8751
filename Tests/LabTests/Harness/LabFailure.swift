/// The lab could not do what a case asked of it: what was wanted, and what was there instead.
struct LabFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
