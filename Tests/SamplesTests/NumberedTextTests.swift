import Testing

@testable import Samples

@Suite("The numbers of the mini tools")
struct NumberedTextTests {
  @Test("are read from what was written, with blanks behind, and from nothing else")
  func text() {
    let text = NumberedText(sender: "re0", number: 17)
    #expect(text.description == "re0 17")
    #expect(NumberedText(Array("re0 17".utf8)) == text)
    #expect(NumberedText(Array("re0 17        ".utf8)) == text)
    for wrong in ["", "re0", "17", "re0 x", "re0 0", "re0 -1", "re0 17 18", "re0 99999999999999999999"] {
      #expect(NumberedText(Array(wrong.utf8)) == nil, "\(wrong)")
    }
    #expect(NumberedText([0xff, 0x20, 0x31]) == nil)
  }

  @Test("that are missing, late or come again are counted, and said")
  func sequence() {
    var numbers = NumberSequence()
    #expect(numbers.note(1).isEmpty && numbers.note(2).isEmpty)
    #expect(numbers.note(5) == ", 2 LOST before it")
    #expect(numbers.note(5) == ", REPEATED after 5" && numbers.note(3) == ", LATE after 5")
    #expect(numbers.note(3) == ", REPEATED after 5")
    #expect(numbers.note(6).isEmpty)
    #expect(numbers.received == 7 && numbers.last == 6)
    #expect(numbers.summary == "lost 1, late 1, repeated 2")
    for number in 7...(7 + NumberSequence.memory) { #expect(numbers.note(number).isEmpty) }
    #expect(numbers.note(4).contains("REPEATED"), "nobody knows any more")
    #expect(numbers.summary == "lost 1, late 1, repeated 3")
  }

  @Test("of a sequence that is joined in the middle begin anywhere, and nothing before them is lost")
  func joining() {
    var numbers = NumberSequence()
    for number in [1, 2, 3] as [UInt64] { #expect(numbers.note(number).isEmpty) }
    numbers.join()
    // The first may be late itself.
    #expect(numbers.note(5).isEmpty && numbers.note(90).isEmpty && numbers.note(6) == ", LATE after 90")
    #expect(numbers.note(6) == ", REPEATED after 90")
    for number in 91...UInt64(90 + NumberSequence.joiningCount) { #expect(numbers.note(number).isEmpty) }
    #expect(numbers.summary == "lost 0, late 1, repeated 1")
    #expect(numbers.note(numbers.last + 2) == ", 1 LOST before it")
    #expect(numbers.note(89) == ", LATE after \(numbers.last)")
    #expect(numbers.summary == "lost 1, late 2, repeated 1")
    // Of another sender, which has counted less.
    numbers.join()
    #expect(numbers.note(5).isEmpty && numbers.note(6).isEmpty && numbers.last == 6)
  }
}
