#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_SPACE CMSG_SPACE(sizeof(int) * JSR_MAXIMUM_DESCRIPTORS)

ssize_t jsr_send_with_descriptors(
    int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count, int flags) {
  if (descriptor_count < 0 || descriptor_count > JSR_MAXIMUM_DESCRIPTORS) {
    errno = EINVAL;
    return -1;
  }
  struct iovec vector = {.iov_base = (void *)bytes, .iov_len = count};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  union {
    struct cmsghdr alignment;
    char bytes[CONTROL_SPACE];
  } control;

  if (descriptor_count > 0) {
    // A stream socket takes a message without bytes for no message at all, and drops what came with it.
    if (count == 0) {
      errno = EINVAL;
      return -1;
    }
    const size_t size = sizeof(int) * (size_t)descriptor_count;
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(size);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), descriptors, size);
  }
  return sendmsg(socket, &message, flags);
}

ssize_t jsr_receive_with_descriptors(
    int socket, void *bytes, size_t count, int *descriptors, int maximum, int *descriptor_count,
    int *truncated, int flags) {
  struct iovec vector = {.iov_base = bytes, .iov_len = count};
  union {
    struct cmsghdr alignment;
    char bytes[CONTROL_SPACE];
  } control;
  struct msghdr message = {
      .msg_iov = &vector,
      .msg_iovlen = 1,
      .msg_control = control.bytes,
      .msg_controllen = sizeof control.bytes,
  };
  *descriptor_count = 0;
  *truncated = 0;

  const ssize_t received = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  if (received < 0) return received;
  if (message.msg_flags & MSG_CTRUNC) *truncated = 1;

  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t arrived = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < arrived; index++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(header) + index * sizeof(int), sizeof descriptor);
      if (*descriptor_count < maximum) {
        descriptors[(*descriptor_count)++] = descriptor;
      } else {
        close(descriptor);
        *truncated = 1;
      }
    }
  }
  return received;
}

int jsr_peer_credentials(int socket, pid_t *process, uid_t *user, gid_t *group) {
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -1;
  *process = credentials.pid;
  *user = credentials.uid;
  *group = credentials.gid;
  return 0;
}

static int set_name(struct ifreq *request, const char *name) {
  memset(request, 0, sizeof *request);
  const size_t length = strlen(name);
  if (length == 0 || length >= IFNAMSIZ) {
    errno = ENODEV;
    return -1;
  }
  memcpy(request->ifr_name, name, length);
  return 0;
}

int jsr_open_tap(const char *name, int header_size) {
  struct ifreq request;
  if (set_name(&request, name) < 0) return -1;
  const int descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return -1;

  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(descriptor, TUNSETIFF, &request) < 0 ||
      ioctl(descriptor, TUNSETVNETHDRSZ, &header_size) < 0 ||
      ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) {
    const int reason = errno;
    close(descriptor);
    errno = reason;
    return -1;
  }
  return descriptor;
}

int jsr_interface_index(int socket, const char *name) {
  struct ifreq request;
  if (set_name(&request, name) < 0 || ioctl(socket, SIOCGIFINDEX, &request) < 0) return -1;
  return request.ifr_ifindex;
}

int jsr_interface_flags(int socket, const char *name) {
  struct ifreq request;
  if (set_name(&request, name) < 0 || ioctl(socket, SIOCGIFFLAGS, &request) < 0) return -1;
  return (unsigned short)request.ifr_flags;
}

int jsr_interface_set_flags(int socket, const char *name, int set, int clear) {
  struct ifreq request;
  if (set_name(&request, name) < 0 || ioctl(socket, SIOCGIFFLAGS, &request) < 0) return -1;
  request.ifr_flags = (short)((request.ifr_flags | set) & ~clear);
  return ioctl(socket, SIOCSIFFLAGS, &request);
}

int jsr_interface_mtu(int socket, const char *name) {
  struct ifreq request;
  if (set_name(&request, name) < 0 || ioctl(socket, SIOCGIFMTU, &request) < 0) return -1;
  return request.ifr_mtu;
}

int jsr_interface_set_mtu(int socket, const char *name, int mtu) {
  struct ifreq request;
  if (set_name(&request, name) < 0) return -1;
  request.ifr_mtu = mtu;
  return ioctl(socket, SIOCSIFMTU, &request);
}

int jsr_interface_set_queue_length(int socket, const char *name, int length) {
  struct ifreq request;
  if (set_name(&request, name) < 0) return -1;
  request.ifr_qlen = length;
  return ioctl(socket, SIOCSIFTXQLEN, &request);
}

int jsr_interface_hardware_address(int socket, const char *name, uint8_t *address) {
  struct ifreq request;
  if (set_name(&request, name) < 0 || ioctl(socket, SIOCGIFHWADDR, &request) < 0) return -1;
  if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
    errno = EPFNOSUPPORT;
    return -1;
  }
  memcpy(address, request.ifr_hwaddr.sa_data, 6);
  return 0;
}

int jsr_interface_set_hardware_address(int socket, const char *name, const uint8_t *address) {
  struct ifreq request;
  if (set_name(&request, name) < 0) return -1;
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, address, 6);
  return ioctl(socket, SIOCSIFHWADDR, &request);
}

static int queued(int socket, unsigned long request) {
  int bytes = 0;
  return ioctl(socket, request, &bytes) < 0 ? -1 : bytes;
}

int jsr_queued_unacknowledged(int socket) { return queued(socket, SIOCOUTQ); }
int jsr_queued_unsent(int socket) { return queued(socket, SIOCOUTQNSD); }
int jsr_queued_unread(int socket) { return queued(socket, SIOCINQ); }

int jsr_set_signing_key(
    int socket, const struct sockaddr *address, socklen_t length, int prefix_length, const void *key,
    size_t key_length) {
  struct tcp_md5sig signature;
  memset(&signature, 0, sizeof signature);
  if (length > sizeof signature.tcpm_addr || key_length == 0 || key_length > sizeof signature.tcpm_key) {
    errno = EINVAL;
    return -1;
  }
  memcpy(&signature.tcpm_addr, address, length);
  memcpy(signature.tcpm_key, key, key_length);
  signature.tcpm_keylen = (uint16_t)key_length;
  if (prefix_length >= 0) {
    signature.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX;
    signature.tcpm_prefixlen = (uint8_t)prefix_length;
  }
  const int name = prefix_length >= 0 ? TCP_MD5SIG_EXT : TCP_MD5SIG;
  return setsockopt(socket, IPPROTO_TCP, name, &signature, sizeof signature);
}

int jsr_enter_network_namespace(int descriptor) { return setns(descriptor, CLONE_NEWNET); }

void jsr_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

int jsr_semaphore_wait(sem_t *semaphore, const struct timespec *deadline) {
  return sem_clockwait(semaphore, CLOCK_MONOTONIC, deadline);
}
