/* An echo server that survives the loss of its routing engine (RE): echo PORT OTHER-RE CHANNEL-PORT
 *
 * Started the same way on both REs. A message is a header of 12 bytes, which begins with the length of the rest;
 * its answer is the same with the RE's slot in the last byte of the header. The primary's instance serves. The
 * secondary's reads what is replicated and makes the same answers; those it did not see sent, it sends when it
 * takes over. To protect a connection the two tell each other their handles, 8 bytes, over a channel. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <jsr.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
enum { LIMIT = 1024, HEADER = 12, ENOUGH = 1 << 16 };
static struct connection {
  bool used, snoops, ended; /* is a snoop pair; the peer has closed its direction */
  int snd;                  /* of a snoop pair; -1 at its end */
  jsr_handle handle;        /* 0 if it is not replicated */
  uint32_t at, left;        /* bytes read of the header at hand, and still to come of its payload */
  size_t count, debt;       /* answers made and not sent; sent by the primary before we knew why */
  unsigned char *answers;
} connections[LIMIT]; /* at the number of their descriptor: the live socket, or rcv of the pair */
static jsr_session *session;
static unsigned char slot, buffer[ENOUGH];
static struct sockaddr_in other_instance;

static int listening(const char *port) {
  int fd = socket(AF_INET6, SOCK_STREAM, 0), yes = 1; /* for IPv4, too: bindv6only(7) is off by default */
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){1, 0}, sizeof(struct timeval)); /* of the channel */
  if (bind(fd, (struct sockaddr *)&any, sizeof any) || listen(fd, 64)) perror(port), exit(71);
  return fd;
}

static void forget(int fd) {
  struct connection *c = connections + fd;
  if (c->snoops) jsr_unreplicate(session, c->handle), close(c->snd);
  if (c->snoops || !c->handle || jsr_close(session, fd, c->handle) == -EBADF) close(fd);
  free(c->answers), *c = (struct connection){.used = false};
}

/* What the peer sent, n bytes in buffer, becomes answers. */
static void made(struct connection *c, size_t n) {
  if (!(c->answers = realloc(c->answers, c->count + n))) abort();
  for (unsigned char *byte = buffer; byte < buffer + n; byte++) {
    if (c->at == HEADER) c->left--;
    else if (c->at++ < 4) c->left = c->left << 8 | *byte;
    else if (c->at == HEADER) *byte = slot;
    if (c->at == HEADER && c->left == 0) c->at = 0;
    if (c->debt) c->debt--;
    else c->answers[c->count++] = *byte;
  }
}

/* Answers were sent: by us, or by the primary, as we have seen. */
static void sent(struct connection *c, size_t n) {
  size_t known = n < c->count ? n : c->count;
  c->count -= known, c->debt += n - known;
  memmove(c->answers, c->answers + known, c->count);
}

/* Reads what is there; false at the end. */
static bool took(int fd, struct connection *c, void (*take)(struct connection *, size_t)) {
  ssize_t n = read(fd, buffer, sizeof buffer);
  if (n > 0) take(c, (size_t)n);
  return n > 0 || (n < 0 && errno == EAGAIN);
}

static void go_on(int fd, struct connection *c, const fd_set *in) {
  if (FD_ISSET(fd, in) && !took(fd, c, made)) c->ended = true;
  if (c->snoops && c->snd >= 0 && FD_ISSET(c->snd, in) && !took(c->snd, c, sent)) close(c->snd), c->snd = -1;
  ssize_t n = c->count && !c->snoops ? send(fd, c->answers, c->count, MSG_NOSIGNAL) : 0;
  if (n > 0) sent(c, (size_t)n);
  if (n < 0 && errno != EAGAIN) c->ended = true, c->count = 0; /* ECONNABORTED: it lives on the other RE */
  if (c->ended && (c->snoops ? c->snd < 0 : !c->count)) forget(fd);
}

static void take_over(int fd, struct connection *c) {
  int live;
  if (jsr_merge(session, c->handle, &live)) { forget(fd); return; } /* lost */
  while (took(fd, c, made)) continue; /* what was on its way comes before what the live socket has */
  while (took(c->snd, c, sent)) continue;
  close(fd), close(c->snd);
  c->snoops = c->ended = false, c->handle = 0;
  connections[live] = *c, *c = (struct connection){.used = false};
}

/* On the primary: tells the other instance our handle, gets its own, and replicates. */
static void protect(int fd) {
  jsr_handle ours, other;
  if (jsr_allocate(session, &ours)) return;
  int channel = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  for (int option = SO_RCVTIMEO; option <= SO_SNDTIMEO; option++) /* a hung instance holds us up for a second */
    setsockopt(channel, SOL_SOCKET, option, &(struct timeval){1, 0}, sizeof(struct timeval));
  if (!connect(channel, (struct sockaddr *)&other_instance, sizeof other_instance) &&
      send(channel, &ours, 8, MSG_NOSIGNAL) == 8 && recv(channel, &other, 8, MSG_WAITALL) == 8 &&
      !jsr_replicate(session, fd, ours, other))
    connections[fd].handle = ours;
  else jsr_free(session, ours); /* it goes on unprotected */
  close(channel);
}

/* On the secondary: makes the snoop pair that is asked for. */
static void attach(int channel) {
  struct connection new = {.used = true, .snoops = true};
  jsr_handle primarys;
  int rcv;
  if (recv(channel, &primarys, 8, MSG_WAITALL) == 8 &&
      !jsr_attach(session, primarys, &new.handle, &rcv, &new.snd))
    connections[rcv] = new;
  send(channel, &new.handle, 8, MSG_NOSIGNAL), close(channel);
}

static void notice(void) {
  jsr_event event;
  if (jsr_next_event(session, &event, sizeof event)) return;
  if (event.type == JSR_EVENT_ENGINE_GONE) jsr_disconnect(session), session = NULL;
  for (int fd = 0; event.type == JSR_EVENT_MASTERSHIP_GAINED && fd < LIMIT; fd++)
    if (connections[fd].snoops) take_over(fd, connections + fd);
}

int main(int argc, char **argv) {
  if (argc != 4 || !inet_aton(argv[2], &other_instance.sin_addr))
    return fprintf(stderr, "usage: echo PORT OTHER-RE CHANNEL-PORT\n"), 64;
  setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, LIMIT}); /* which is all that select takes */
  other_instance.sin_family = AF_INET, other_instance.sin_port = htons((uint16_t)atoi(argv[3]));
  int peers = listening(argv[1]), instances = listening(argv[3]), fd;
  for (;;) {
    if (!session && !jsr_connect(NULL, "echo", &session)) slot = (unsigned char)jsr_slot(session);
    fd_set in = {0}, out = {0};
    FD_SET(peers, &in), FD_SET(instances, &in);
    if (session) FD_SET(jsr_event_descriptor(session), &in);
    for (struct connection *c = connections; c < connections + LIMIT; c++) {
      if (c->used && !c->ended && (c->snoops || c->count < ENOUGH)) FD_SET(c - connections, &in);
      if (c->used && !c->snoops && c->count) FD_SET(c - connections, &out);
      if (c->snoops && c->snd >= 0) FD_SET(c->snd, &in);
    }
    if (select(LIMIT, &in, &out, NULL, &(struct timeval){1, 0}) <= 0) continue;
    for (fd = 0; fd < LIMIT; fd++)
      if (connections[fd].used) go_on(fd, connections + fd, &in);
    if (session && FD_ISSET(jsr_event_descriptor(session), &in)) notice();
    if (FD_ISSET(instances, &in) && (fd = accept(instances, NULL, NULL)) >= 0) attach(fd);
    if (FD_ISSET(peers, &in) && (fd = accept4(peers, NULL, NULL, SOCK_NONBLOCK)) >= 0)
      connections[fd].used = true, protect(fd);
  }
}
