#include "jsr_tcp_info.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

int jsr_tcp_info(int descriptor, struct jsr_tcp_info *info) {
  // The kernel writes as much of its struct tcp_info as fits, and the struct only grows at its end:
  // fields younger than the header this was compiled with are read by their offset.
  union {
    struct tcp_info known;
    unsigned char bytes[512];
  } raw;
  memset(&raw, 0, sizeof raw);
  socklen_t length = sizeof raw;
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &raw, &length) < 0) return -1;

  memset(info, 0, sizeof *info);
  info->state = raw.known.tcpi_state;
  info->options = raw.known.tcpi_options;
  info->send_window_scale = raw.known.tcpi_snd_wscale;
  info->receive_window_scale = raw.known.tcpi_rcv_wscale;
  info->retransmits = raw.known.tcpi_retransmits;
  info->retransmission_timeout = raw.known.tcpi_rto;
  info->send_mss = raw.known.tcpi_snd_mss;
  info->receive_mss = raw.known.tcpi_rcv_mss;
  info->unacknowledged = raw.known.tcpi_unacked;
  info->lost = raw.known.tcpi_lost;
  info->retransmitted = raw.known.tcpi_retrans;
  info->path_mtu = raw.known.tcpi_pmtu;
  info->round_trip_time = raw.known.tcpi_rtt;
  info->round_trip_variance = raw.known.tcpi_rttvar;
  info->congestion_window = raw.known.tcpi_snd_cwnd;
  info->advertised_mss = raw.known.tcpi_advmss;
  info->total_retransmitted = raw.known.tcpi_total_retrans;
  info->bytes_acknowledged = raw.known.tcpi_bytes_acked;
  info->bytes_received = raw.known.tcpi_bytes_received;
  info->not_sent = raw.known.tcpi_notsent_bytes;
  info->send_window = raw.known.tcpi_snd_wnd;

  const size_t receive_window = offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof(uint32_t);
  if (length >= receive_window + sizeof(uint32_t))
    memcpy(&info->receive_window, raw.bytes + receive_window, sizeof(uint32_t));
  return 0;
}
