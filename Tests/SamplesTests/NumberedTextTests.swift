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

  @Test("that are missing or come again are counted, and said")
  func sequence() {
    var numbers = NumberSequence()
    #expect(numbers.note(1).isEmpty && numbers.note(2).isEmpty)
    #expect(numbers.note(5) == ", 2 LOST before it")
    #expect(numbers.note(5) == ", REPEATED after 5" && numbers.note(3) == ", REPEATED after 5")
    #expect(numbers.note(6).isEmpty)
    numbers.join()
    #expect(numbers.note(2).isEmpty && numbers.note(3).isEmpty && numbers.note(5) == ", 1 LOST before it")
    numbers = NumberSequence()
    for number in [1, 2, 5, 5, 3, 6] as [UInt64] { _ = numbers.note(number) }
    #expect(numbers.received == 6 && numbers.lost == 2 && numbers.repeated == 2 && numbers.last == 6)
  }
}
