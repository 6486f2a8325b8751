#ifndef JSR_TCP_INFO_H
#define JSR_TCP_INFO_H

#include <stdint.h>

/// What TCP_INFO says of a socket, in plain fields: <linux/tcp.h> has bit fields, which Swift does not
/// import, and cannot be included beside <netinet/tcp.h>.
struct jsr_tcp_info {
  uint8_t state;
  /// TCPI_OPT_ bits.
  uint8_t options;
  uint8_t send_window_scale;
  uint8_t receive_window_scale;
  uint8_t retransmits;
  /// Microseconds.
  uint32_t retransmission_timeout;
  uint32_t send_mss;
  uint32_t receive_mss;
  /// Segments.
  uint32_t unacknowledged;
  uint32_t lost;
  uint32_t retransmitted;
  uint32_t path_mtu;
  /// Microseconds.
  uint32_t round_trip_time;
  uint32_t round_trip_variance;
  /// Segments.
  uint32_t congestion_window;
  uint32_t advertised_mss;
  uint32_t total_retransmitted;
  /// How far snd_una and rcv_nxt have come, in bytes of sequence space, since the socket was made.
  uint64_t bytes_acknowledged;
  uint64_t bytes_received;
  uint32_t not_sent;
  /// The peer's window, and our own (0 before kernel 6.2), in bytes.
  uint32_t send_window;
  uint32_t receive_window;
};

/// Reads TCP_INFO. 0, or -1 with errno set.
int jsr_tcp_info(int descriptor, struct jsr_tcp_info *info);

#endif
