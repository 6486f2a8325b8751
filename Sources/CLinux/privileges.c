#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int get(struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return (int)syscall(SYS_capget, &header, sets);
}

int64_t jsr_effective_capabilities(void) {
  struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
  if (get(sets) != 0) return -1;
  return (int64_t)((uint64_t)sets[1].effective << 32 | sets[0].effective);
}

int jsr_limit_capabilities(uint64_t kept) {
  struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
  if (get(sets) != 0) return -1;
  // The bounding set needs CAP_SETPCAP. Whoever lacks that is no superuser, and cannot gain anything by
  // executing a program either, with what comes below.
  if (sets[0].effective & 1u << CAP_SETPCAP) {
    for (unsigned long number = 0; prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; number++) {
      if (!(kept >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) return -1;
    }
  }
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return -1;
  for (int half = 0; half < _LINUX_CAPABILITY_U32S_3; half++) {
    sets[half].permitted &= (uint32_t)(kept >> 32 * half);
    sets[half].effective = sets[half].permitted;
    sets[half].inheritable = 0;
  }
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  if (syscall(SYS_capset, &header, sets) != 0) return -1;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

int jsr_join_group(gid_t group) {
  int count = getgroups(0, NULL);
  if (count < 0) return -1;
  gid_t *groups = malloc(sizeof(gid_t) * ((size_t)count + 1));
  if (groups == NULL) return -1;
  count = getgroups(count, groups);
  int result = -1;
  if (count >= 0) {
    groups[count] = group;
    result = setgroups((size_t)count + 1, groups);
  }
  const int error = errno;
  free(groups);
  errno = error;
  return result;
}
