/* Answers every datagram with the next number, and survives the loss of its routing engine (RE):
 *
 *   numbers PRIMARY|SECONDARY ADDRESS PORT PEER PEER-PORT
 *
 * Started on both REs: as the primary's instance on that which is primary, as the secondary's on the other. The two
 * meet by the name of a service. The socket is bound to the replicated ADDRESS, and connected. The secondary's
 * instance learns from what is replicated which number was the last that left, and goes on with the next when it takes
 * over. Numbers look as those of jsrutil_mini, so that jsrpeer_mini can be the peer. */
#define _GNU_SOURCE
#include <errno.h>
#include <jsr.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static const char service[] = "numbers";
static jsr_session *session;
static jsr_handle handle;                /* of the live socket, or of the snoop pair; 0 if there is none */
static int live = -1, rcv = -1, snd = -1; /* this instance has the socket, or the pair */
static unsigned long long last, waiting;  /* number that was sent; datagrams that came and were not answered yet */
static struct { jsr_datagram head; char payload[65536]; } message;

/* Reads one datagram of a descriptor of the pair; false if there is none, now or ever. */
static int took(int *fd) {
  ssize_t count = recv(*fd, &message, sizeof message - 1, MSG_DONTWAIT);
  if (count < (ssize_t)sizeof message.head) {
    if (count == 0 || errno != EAGAIN) close(*fd), *fd = -1; /* the end of replication */
    return 0;
  }
  message.payload[(size_t)count - sizeof message.head] = 0;
  return 1;
}

static void follow(void) {
  while (rcv >= 0 && took(&rcv)) waiting++, printf("rcv %s\n", message.payload);
  while (snd >= 0 && took(&snd)) {
    printf("snd %s\n", message.payload);
    if (sscanf(message.payload, "%*s %llu", &last) == 1 && waiting > 0) waiting--;
  }
}

/* Sends the next number: the answer to a datagram, or the first of all. */
static void answer(void) {
  char text[64];
  int size = snprintf(text, sizeof text, "%s %llu", jsr_node(session), last + 1);
  if (send(live, text, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL) == size) last++;
}

static void serve(void) {
  static char datagram[65536];
  for (; waiting > 0; waiting--) answer();
  while (recv(live, datagram, sizeof datagram, MSG_DONTWAIT) >= 0) answer();
  if (errno == ECONNABORTED) close(live), live = -1; /* it lives on the other RE */
}

static int opened(char **ends) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *here, *there;
  if (getaddrinfo(ends[0], ends[1], &hints, &here) || getaddrinfo(ends[2], ends[3], &hints, &there)) return -1;
  int fd = socket(here->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int wrong = fd < 0 || bind(fd, here->ai_addr, here->ai_addrlen) || connect(fd, there->ai_addr, there->ai_addrlen);
  freeaddrinfo(here), freeaddrinfo(there);
  return wrong ? -1 : fd;
}

static void protect(void) {
  if (live < 0 || handle || jsr_allocate(session, &handle)) return;
  int result = jsr_replicate_by_service(session, live, handle, service, NULL, 0);
  printf("replicated: %s\n", result ? jsr_last_error() : "yes");
  if (result) jsr_free(session, handle), handle = 0;
}

static void take_over(void) {
  int result = jsr_merge(session, handle, &live);
  follow(); /* what was on its way comes before what the live socket has */
  if (rcv >= 0) close(rcv), rcv = -1;
  if (snd >= 0) close(snd), snd = -1;
  handle = 0;
  printf("merged: %s\n", result ? jsr_last_error() : "yes");
}

/* False when the engine is gone. */
static int notice(void) {
  jsr_event event;
  while (!jsr_next_event(session, &event, sizeof event)) switch (event.type) {
    case JSR_EVENT_SERVICE_AVAILABLE: protect(); break;
    case JSR_EVENT_REPLICATION_REQUESTED:
      if (live < 0 && rcv < 0 && event.protocol == IPPROTO_UDP) {
        waiting = 0;
        if (jsr_accept(session, event.handle, &handle, &rcv, &snd)) handle = 0;
      } else jsr_decline(session, event.handle, "this instance follows one UDP socket");
      break;
    case JSR_EVENT_MASTERSHIP_GAINED: if (rcv >= 0) take_over(); break;
    case JSR_EVENT_MASTERSHIP_LOST: if (live >= 0) close(live), live = -1, handle = 0; break;
    case JSR_EVENT_UNREPLICATED:
      if (event.handle == handle && live >= 0) jsr_free(session, handle);
      if (event.handle == handle) handle = 0;
      break;
    case JSR_EVENT_ENGINE_GONE: return 0;
  }
  return 1;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc != 6) return fprintf(stderr, "usage: numbers PRIMARY|SECONDARY ADDRESS PORT PEER PEER-PORT\n"), 64;
  if (jsr_connect(NULL, "numbers", &session)) return fprintf(stderr, "%s\n", jsr_last_error()), 69;
  if (!strcmp(argv[1], "PRIMARY") && (live = opened(argv + 2)) < 0) return perror(argv[2]), 71;
  if (jsr_register(session, service)) return fprintf(stderr, "%s\n", jsr_last_error()), 69;
  while (notice()) {
    if (live >= 0) {
      serve();
      if (last == 0) answer(); /* the peer does not know us yet */
    } else follow();
    struct pollfd entries[] = {{jsr_event_descriptor(session), POLLIN, 0}, {live, POLLIN, 0}, {rcv, POLLIN, 0},
                               {snd, POLLIN, 0}}; /* those that are -1 are left out: see poll(2) */
    poll(entries, 4, 1000);
  }
  return 0;
}
