/* How long CRIU's libsoccr takes to restore a connection, for scripts/bench: soccr CONNECTIONS.
 *
 * Makes so many connections on the loopback interface, with 300 unread bytes each, saves one end of each and closes it
 * silently, as a checkpoint does; then restores all, which is timed, and checks that bytes go both ways. Prints the
 * median of one restore in microseconds: from the socket to the end of repair mode. Needs CAP_NET_ADMIN, in a network
 * namespace of its own. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <soccr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void check(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "soccr: %s: %s\n", what, strerror(errno));
  exit(1);
}

struct connection {
  int peer;
  union libsoccr_addr local, remote;
  struct libsoccr_sk_data data;
  int size;
  char *received, *sent;
};

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void save(struct connection *c, int listener, const union libsoccr_addr *server) {
  static const char bytes[300];
  c->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(connect(c->peer, &server->sa, sizeof server->v4) == 0, "connect");
  int fd = accept(listener, NULL, NULL);
  check(fd >= 0, "accept");
  check(send(c->peer, bytes, sizeof bytes, 0) == sizeof bytes, "send");
  socklen_t length = sizeof c->local;
  check(getsockname(fd, &c->local.sa, &length) == 0, "getsockname");
  length = sizeof c->remote;
  check(getpeername(fd, &c->remote.sa, &length) == 0, "getpeername");
  struct libsoccr_sk *saved = libsoccr_pause(fd);
  check(saved != NULL, "libsoccr_pause");
  c->size = libsoccr_save(saved, &c->data, sizeof c->data);
  check(c->size > 0, "libsoccr_save");
  c->received = libsoccr_get_queue_bytes(saved, TCP_RECV_QUEUE, SOCCR_MEM_EXCL);
  c->sent = libsoccr_get_queue_bytes(saved, TCP_SEND_QUEUE, SOCCR_MEM_EXCL);
  close(fd); /* in repair mode: says nothing */
  libsoccr_release(saved);
}

static double restore(struct connection *c) {
  const double begun = microseconds();
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(fd >= 0, "socket");
  struct libsoccr_sk *restored = libsoccr_pause(fd);
  check(restored != NULL, "libsoccr_pause");
  libsoccr_set_addr(restored, 1, &c->local, 0);
  libsoccr_set_addr(restored, 0, &c->remote, 0);
  libsoccr_set_queue_bytes(restored, TCP_RECV_QUEUE, c->received, SOCCR_MEM_EXCL);
  libsoccr_set_queue_bytes(restored, TCP_SEND_QUEUE, c->sent, SOCCR_MEM_EXCL);
  check(libsoccr_restore(restored, &c->data, (unsigned)c->size) == 0, "libsoccr_restore");
  libsoccr_resume(restored);
  const double time = microseconds() - begun;
  char bytes[300];
  check(recv(fd, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes, "unread bytes of a restored socket");
  check(send(fd, "x", 1, MSG_NOSIGNAL) == 1, "send on a restored socket");
  check(recv(c->peer, bytes, 1, 0) == 1, "what a restored socket has sent");
  return time;
}

int main(int count, char **words) {
  const int connections = count == 2 ? atoi(words[1]) : 0;
  check(connections > 0 && connections <= 5000, "soccr CONNECTIONS, 1 to 5000");
  struct connection *all = calloc((size_t)connections, sizeof *all);
  double *times = calloc((size_t)connections, sizeof *times);
  union libsoccr_addr server = {.v4 = {.sin_family = AF_INET, .sin_port = htons(16000)}};
  server.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
  check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0, "setsockopt");
  check(bind(listener, &server.sa, sizeof server.v4) == 0 && listen(listener, 16) == 0, "listen");
  for (int i = 0; i < connections; i++) save(&all[i], listener, &server);
  close(listener);
  for (int i = 0; i < connections; i++) times[i] = restore(&all[i]);
  qsort(times, (size_t)connections, sizeof *times, ascending);
  printf("%.1f\n", times[connections / 2]);
  return 0;
}
