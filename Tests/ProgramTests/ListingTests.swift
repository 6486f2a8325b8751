import Foundation
import Testing

/// What the documents quote is what the examples say.
@Suite("A listing") struct ListingTests {
  struct Listing: Sendable, CustomTestStringConvertible {
    let document: String
    /// The line of the document on which it begins, from 1.
    let line: Int
    let language: String
    /// The file named by a comment on the line before; `nil` if there is none.
    let file: String?
    let text: String

    var testDescription: String { "\(document):\(line)" }
  }

  static let listings: [Listing] = ["README.md", "docs/guide.md"].flatMap { document -> [Listing] in
    let url = CLibraryTests.package.appendingPathComponent(document)
    guard let text = try? String(contentsOf: url, encoding: .utf8) else { return [] }
    var found: [Listing] = []
    let lines = text.components(separatedBy: "\n")
    var start: Int?
    for (index, line) in lines.enumerated() {
      if let first = start, line == "```" {
        let before = first > 0 ? lines[first - 1] : ""
        let file =
          before.hasPrefix("<!-- ") && before.hasSuffix(" -->")
          ? String(before.dropFirst(5).dropLast(4)) : nil
        found.append(
          Listing(
            document: document, line: first + 1, language: String(lines[first].dropFirst(3)), file: file,
            text: lines[(first + 1)..<index].joined(separator: "\n")))
        start = nil
      } else if start == nil, line.hasPrefix("```") {
        start = index
      }
    }
    return found
  }

  @Test("of C or Swift stands, as it is, in a file that is compiled", arguments: listings.filter(\.isCode))
  func quote(_ listing: Listing) throws {
    let file = try #require(listing.file, "no comment before it names a file")
    #expect(file.hasPrefix("Examples/"))
    let text = try String(
      contentsOf: CLibraryTests.package.appendingPathComponent(file), encoding: .utf8)
    #expect(("\n" + text).contains("\n" + listing.text + "\n"), "\(file) does not say so")
  }

  @Test("is found in every document that should have some")
  func found() {
    let documents = Self.listings.filter(\.isCode).map(\.document)
    #expect(documents.count { $0 == "README.md" } >= 1)
    #expect(documents.count { $0 == "docs/guide.md" } >= 8)
  }

  @Test(
    "is of a program of 150 lines at the most",
    arguments: [
      "Examples/echo-c/echo.c", "Examples/echo-swift/EchoServer.swift", "Examples/numbers-c/numbers.c",
    ])
  func length(_ file: String) throws {
    let text = try String(contentsOf: CLibraryTests.package.appendingPathComponent(file), encoding: .utf8)
    #expect(text.split(separator: "\n", omittingEmptySubsequences: false).count - 1 <= 150)
  }
}

extension ListingTests.Listing {
  var isCode: Bool { language == "c" || language == "swift" }
}
