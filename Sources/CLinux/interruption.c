#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

int jsr_put_descriptor(int from, int to, int close_on_exec) {
  return dup3(from, to, close_on_exec ? O_CLOEXEC : 0);
}

static void nothing(int signal) { (void)signal; }

int jsr_allow_interruption(void) {
  struct sigaction action;
  if (sigaction(SIGURG, NULL, &action) < 0) return -1;
  if (action.sa_flags & SA_SIGINFO) return 0;
  if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) return 0;
  action = (struct sigaction){.sa_handler = nothing, .sa_flags = SA_RESTART};
  return sigaction(SIGURG, &action, NULL);
}

int jsr_interrupt_thread(pid_t thread) { return tgkill(getpid(), thread, SIGURG); }

pid_t jsr_thread(void) { return gettid(); }

int jsr_transfers(long call) {
  switch (call) {
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_sendfile:
    case SYS_splice:
      return 1;
    default:
      return 0;
  }
}
