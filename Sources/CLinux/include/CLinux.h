// What Swift cannot import of Linux: structs with unions, function-like macros, control messages.
//
// Everything here is a thin call of the kernel; decisions are made in Swift. Functions return -1 with
// errno set when the call fails, unless they say otherwise.

#ifndef JSR_CLINUX_H
#define JSR_CLINUX_H

#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <malloc.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "jsr_tcp_info.h"

// Descriptors over Unix sockets (unix(7), SCM_RIGHTS).

/// The kernel takes no more descriptors in one message (SCM_MAX_FD, include/net/scm.h).
#define JSR_MAXIMUM_DESCRIPTORS 253

/// Sends `count` bytes, and with the first of them `descriptor_count` descriptors, which stay open here.
/// Returns how many bytes went; the descriptors went if that is above 0. EINVAL if there are more than
/// JSR_MAXIMUM_DESCRIPTORS, or descriptors without a byte that carries them on a stream socket.
ssize_t jsr_send_with_descriptors(
    int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count, int flags);

/// Receives up to `count` bytes and the descriptors that came with them, close-on-exec set. The caller owns
/// the descriptors. Returns how many bytes came, 0 at the end of the stream.
///
/// `*truncated` is 1 if descriptors were lost because more than `maximum` came or this process may not open
/// more; those that did arrive are still returned in `descriptors`.
ssize_t jsr_receive_with_descriptors(
    int socket, void *bytes, size_t count, int *descriptors, int maximum, int *descriptor_count,
    int *truncated, int flags);

/// Who is on the other end of a connected Unix socket (SO_PEERCRED).
int jsr_peer_credentials(int socket, pid_t *process, uid_t *user, gid_t *group);

// TAP devices (Documentation/networking/tuntap.rst).

/// Opens the TAP device `name`, made if there is none: no packet information, with a virtio-net header of
/// `header_size` bytes, with partial checksums and large TCP segments both ways, non-blocking. Returns the
/// descriptor; the device goes away when it is closed.
int jsr_open_tap(const char *name, int header_size);

// Interfaces (netdevice(7)). `socket` is any socket of the network namespace in question.

int jsr_interface_index(int socket, const char *name);
/// IFF_ flags; -1 on error (no interface has all flags set).
int jsr_interface_flags(int socket, const char *name);
int jsr_interface_set_flags(int socket, const char *name, int set, int clear);
int jsr_interface_mtu(int socket, const char *name);
int jsr_interface_set_mtu(int socket, const char *name, int mtu);
int jsr_interface_set_queue_length(int socket, const char *name, int length);
/// Six bytes. EPFNOSUPPORT if the interface is not Ethernet.
int jsr_interface_hardware_address(int socket, const char *name, uint8_t *address);
int jsr_interface_set_hardware_address(int socket, const char *name, const uint8_t *address);

/// Bytes in a socket's send queue, not yet acknowledged (SIOCOUTQ); bytes not yet sent (SIOCOUTQNSD); bytes
/// not yet read (SIOCINQ).
int jsr_queued_unacknowledged(int socket);
int jsr_queued_unsent(int socket);
int jsr_queued_unread(int socket);

/// Signs a TCP socket's segments to and from `address` with `key` (TCP_MD5SIG, RFC 2385), of 1 to 80 bytes.
/// With a `prefix_length` of 0 or more (TCP_MD5SIG_EXT, Linux 4.14) it holds for the whole prefix.
int jsr_set_signing_key(
    int socket, const struct sockaddr *address, socklen_t length, int prefix_length, const void *key,
    size_t key_length);

/// setns(2) with CLONE_NEWNET: moves the calling thread into a network namespace.
int jsr_enter_network_namespace(int descriptor);

/// Names the calling thread, in at most 15 bytes, for whoever looks at the process from outside.
void jsr_name_thread(const char *name);

/// sem_clockwait(3) until `deadline`, a time of CLOCK_MONOTONIC.
int jsr_semaphore_wait(sem_t *semaphore, const struct timespec *deadline);

// Privileges (capabilities(7)). Sets of capabilities are masks, with a bit for each number.

/// What the calling thread may do now, and -1 if the kernel does not say.
int64_t jsr_effective_capabilities(void);

/// Takes every capability away from the calling thread that is not in `kept`, from all sets, also for
/// whatever it executes, and forbids it to gain any (PR_SET_NO_NEW_PRIVS). Threads that it makes afterwards
/// have no more.
int jsr_limit_capabilities(uint64_t kept);

/// Adds a group to those of the process.
int jsr_join_group(gid_t group);

// Descriptors that change under a program's calls.

/// dup3(2): lets the number `to` mean what `from` means.
int jsr_put_descriptor(int from, int to, int close_on_exec);

/// Makes SIGURG interrupt a call, and the kernel begin the call again, unless the program has a handler of its
/// own for it. Lasts; without a handler SIGURG is ignored anyway.
int jsr_allow_interruption(void);

/// Interrupts the call in which a thread of this process waits (SIGURG).
int jsr_interrupt_thread(pid_t thread);

/// The kernel's number of the calling thread.
pid_t jsr_thread(void);

/// Whether the system call of this number moves bytes from or to the descriptor that is its first argument.
int jsr_transfers(long call);

/// A key of a signed socket as sock_diag(7) gives it: struct tcp_diag_md5sig of <linux/tcp.h>, which cannot
/// be included beside <netinet/tcp.h>.
struct jsr_signing_key {
  uint8_t family;
  uint8_t prefix_length;
  uint16_t key_length;
  uint32_t address[4];
  uint8_t key[80];
};

// Constants of newer kernels than the headers at hand.

#define JSR_IPPROTO_MPTCP 262
#define JSR_SO_BUF_LOCK 72
#define JSR_PACKET_IGNORE_OUTGOING 23
#define JSR_IPV6_MINHOPCOUNT 73
#define JSR_TCP_AO_INFO 40

#endif
