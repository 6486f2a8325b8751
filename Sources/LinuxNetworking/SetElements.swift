// Theory of operation
//
// libnftables reads the whole table before it carries out a line of text, which costs a millisecond; this is what adds
// and removes elements of sets without it: libnftnl lays out the messages, and the kernel carries out all of them or
// none (a batch, nfnetlink_rcv_batch in net/netfilter/nfnetlink.c). Its answers are there when the batch is sent.
//
// An element's key is what the registers hold that are compared with it: each part at the beginning of 32-bit words of
// its own, in network byte order, what is left of them zero (nft_payload_copy_vlan and the like leave it so).

import CLinux
import CNftnl
import Descriptors
import Glibc

/// Elements of sets of one nftables table, to be added and removed in one transaction.
struct SetElements {
  enum Change { case add, remove }

  private let table: String
  private var batch: [UInt8] = []
  private var lastMessage: Int?
  private var sequence: UInt32 = 1

  /// Elements in one message: what is nested in it has a length of 16 bits.
  private static let elementsPerMessage = 500
  private static let messageCapacity = 64 << 10
  /// NFPROTO_NETDEV (linux/netfilter.h, which Swift cannot import beside netinet/in.h).
  private static let family: UInt16 = 5

  /// - Parameter table: of the family `netdev`.
  init(table: String) {
    self.table = table
    let sequence = sequence
    append(capacity: 64) { nftnl_batch_begin($0, sequence) }
  }

  /// Behind what was said before, in the same transaction. Adding what is there changes nothing; removing what is not
  /// there makes the whole transaction fail.
  ///
  /// - Parameter timeout: after which the kernel removes them by itself; counts in whole milliseconds, at least one.
  mutating func append(_ change: Change, _ keys: [[UInt8]], of set: String, timeout: Duration? = nil) {
    for start in stride(from: 0, to: keys.count, by: Self.elementsPerMessage) {
      appendMessage(change, keys[start..<min(start + Self.elementsPerMessage, keys.count)], of: set, timeout)
    }
  }

  private mutating func appendMessage(
    _ change: Change, _ keys: ArraySlice<[UInt8]>, of name: String, _ timeout: Duration?
  ) {
    let set = nftnl_set_alloc()
    defer { nftnl_set_free(set) }
    nftnl_set_set_str(set, UInt16(NFTNL_SET_TABLE.rawValue), table)
    nftnl_set_set_str(set, UInt16(NFTNL_SET_NAME.rawValue), name)
    for key in keys {
      let element = nftnl_set_elem_alloc()
      nftnl_set_elem_set(element, UInt16(NFTNL_SET_ELEM_KEY), key, UInt32(key.count))
      if let timeout {
        let milliseconds = max(timeout / .milliseconds(1), 1)
        nftnl_set_elem_set_u64(element, UInt16(NFTNL_SET_ELEM_TIMEOUT), UInt64(milliseconds))
      }
      nftnl_set_elem_add(set, element)
    }
    let (type, flags) =
      switch change {
      case .add: (NFT_MSG_NEWSETELEM, NLM_F_CREATE)
      case .remove: (NFT_MSG_DELSETELEM, 0)
      }
    sequence += 1
    let sequence = sequence
    lastMessage = batch.count
    append(capacity: Self.messageCapacity) {
      let header = nftnl_nlmsg_build_hdr($0, UInt16(type.rawValue), Self.family, UInt16(flags), sequence)
      nftnl_set_elems_nlmsg_build_payload(header, set)
      return header
    }
  }

  /// Appends one message of at most `capacity` bytes, which `build` lays out.
  private mutating func append(
    capacity: Int, _ build: (UnsafeMutablePointer<CChar>?) -> UnsafeMutablePointer<nlmsghdr>?
  ) {
    batch += [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
      let length = buffer.withMemoryRebound(to: CChar.self) { build($0.baseAddress)?.pointee.nlmsg_len }
      count = (Int(length ?? 0) + 3) & ~3
    }
  }

  /// - Throws: `ENOENT` if an element that is to be removed is not there, or the set, or the table. Nothing was changed.
  consuming func commit(on socket: borrowing NetlinkSocket) throws(SystemError) {
    guard let lastMessage else { return }
    let flags = lastMessage + MemoryLayout<nlmsghdr>.offset(of: \.nlmsg_flags)!
    batch.withUnsafeMutableBytes { bytes in
      let set = bytes.loadUnaligned(fromByteOffset: flags, as: UInt16.self)
      bytes.storeBytes(of: set | UInt16(NLM_F_ACK), toByteOffset: flags, as: UInt16.self)
    }
    let sequence = sequence + 1
    append(capacity: 64) { nftnl_batch_end($0, sequence) }
    try socket.transact(batch)
  }
}
