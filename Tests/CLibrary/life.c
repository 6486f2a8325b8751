/* The whole life of a replicated socket, by jsr.h alone:
 *
 *   life select|poll|epoll primary OTHER-RE UNREPLICATE-AFTER
 *   life select|poll|epoll secondary
 *
 * The primary accepts one connection on port 16000, replicates it and echoes it to its end, in records; after half of
 * so many bytes it ends record mode, after all of them the replication, unless that is 0. The secondary follows it, compares both directions, and goes on with it
 * if it becomes primary. Messages are those of jsrpeer. Ends with status 0 if everything was as jsr.h says; every
 * check that fails is a line that names it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <jsr.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(int line, const char *what, long result) {
  printf("FAILED line %d: %s is %ld; errno %d; last error: %s\n", line, what, result, errno, jsr_last_error());
  exit(1);
}
/* The call must return what it should. */
#define EXPECT(call, wanted)                                    \
  do {                                                          \
    long result_ = (call);                                      \
    if (result_ != (wanted)) fail(__LINE__, #call, result_);    \
  } while (0)
/* The call must fail so, and say something about it. */
#define REFUSED(call, number)                                         \
  do {                                                                \
    EXPECT(call, -(number));                                          \
    if (!*jsr_last_error()) fail(__LINE__, "the words of " #call, 0); \
  } while (0)
#define CHECK(condition) EXPECT((condition) != 0, 1)

static jsr_session *session;
static const char *loop;

/* Waits until one of the descriptors is readable, with the loop that was asked for; a bit for each that is. */
static unsigned readable(const int fds[], int count) {
  unsigned bits = 0;
  if (!strcmp(loop, "select")) {
    fd_set set;
    FD_ZERO(&set);
    for (int i = 0; i < count; i++)
      if (fds[i] >= 0) FD_SET(fds[i], &set);
    CHECK(select(FD_SETSIZE, &set, NULL, NULL, NULL) > 0);
    for (int i = 0; i < count; i++)
      if (fds[i] >= 0 && FD_ISSET(fds[i], &set)) bits |= 1u << i;
  } else if (!strcmp(loop, "poll")) {
    struct pollfd set[3];
    for (int i = 0; i < count; i++) set[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    CHECK(poll(set, (nfds_t)count, -1) > 0);
    for (int i = 0; i < count; i++)
      if (set[i].revents) bits |= 1u << i;
  } else {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ready[3];
    for (int i = 0; i < count; i++) {
      struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
      if (fds[i] >= 0) EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event), 0);
    }
    int n = epoll_wait(epoll, ready, 3, -1);
    CHECK(n > 0);
    for (int i = 0; i < n; i++) bits |= 1u << ready[i].data.u32;
    close(epoll);
  }
  return bits;
}

/* The next event, which must be there. */
static jsr_event take_event(void) {
  jsr_event event;
  EXPECT(jsr_next_event(session, &event, sizeof event), 0);
  printf("EVENT %" PRIu32 " handle 0x%" PRIx64 " %s\n", event.type, event.handle, event.reason);
  return event;
}

static uint32_t state_of(jsr_handle handle) {
  jsr_socket_status status;
  EXPECT(jsr_status(session, handle, &status, sizeof status), 0);
  CHECK(status.handle == handle);
  return status.state;
}

/* What a server answers, cut anywhere. */
struct transform {
  uint32_t at, left;
};
static void answer(struct transform *t, unsigned char *bytes, size_t count, int slot) {
  for (unsigned char *byte = bytes; byte < bytes + count; byte++) {
    if (t->at == 12) t->left--;
    else if (t->at++ < 4) t->left = t->left << 8 | *byte;
    else if (t->at == 12) *byte = (unsigned char)slot;
    if (t->at == 12 && t->left == 0) t->at = 0;
  }
}

static void write_all(int fd, const unsigned char *bytes, size_t count) {
  while (count > 0) {
    ssize_t n = send(fd, bytes, count, MSG_NOSIGNAL);
    CHECK(n > 0);
    bytes += n, count -= (size_t)n;
  }
}

static jsr_records_status news_of(jsr_records *records) {
  jsr_records_status news;
  EXPECT(jsr_records_news(records, &news, sizeof news), 0);
  return news;
}

/* Gives a record, waiting in the loop that was asked for until there is room. */
static void give(jsr_records *records, const unsigned char *bytes, size_t count) {
  const int news = jsr_records_descriptor(records);
  const uint64_t before = news_of(records).given;
  uint64_t number;
  int result;
  while ((result = jsr_send_record(records, bytes, count, 0, &number)) == -EAGAIN) {
    readable(&news, 1);
    news_of(records);
  }
  EXPECT(result, 0);
  CHECK(number == before + 1);
}

/* Begins record mode, of which what makes no sense is refused. */
static jsr_records *begin(jsr_handle handle) {
  jsr_records *records, *none;
  EXPECT(jsr_begin_records(session, handle, &records), 0);
  REFUSED(jsr_begin_records(session, handle, &none), EBADFD);
  CHECK(none == NULL);
  jsr_records_status news = news_of(records);
  CHECK(news.state == JSR_RECORDS_OPEN && news.limit >= 65536 && !news.given && !news.safe);
  REFUSED(jsr_records_news(records, &news, 8), EINVAL);
  REFUSED(jsr_send_record(records, "", 0, -1, NULL), EMSGSIZE);
  REFUSED(jsr_send_record(records, "", (size_t)news.limit + 1, -1, NULL), EMSGSIZE);
  REFUSED(jsr_send_record(records, NULL, 1, -1, NULL), EINVAL);
  REFUSED(jsr_wait_record(records, 1, -1), EINVAL);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (jsr_send_record(records, "x", 1, 0, NULL) != -ECHILD) _exit(1);
    jsr_free_records(records), jsr_disconnect(session);
    execl("/bin/true", "true", NULL);
    _exit(2);
  }
  int status;
  EXPECT(waitpid(child, &status, 0), child);
  EXPECT(status, 0);
  return records;
}

/* Ends record mode: everything was accepted, and is safe. */
static void end(jsr_records *records) {
  jsr_records_status news = news_of(records);
  uint64_t accepted;
  EXPECT(jsr_wait_record(records, news.given, 10000), 0);
  EXPECT(jsr_end_records(records, 10000, &accepted), 0);
  CHECK(accepted == news.given && accepted > 0);
  news = news_of(records);
  CHECK(news.state == JSR_RECORDS_ENDED && news.accepted == accepted && news.safe == accepted);
  const int ended = jsr_records_descriptor(records);
  CHECK(readable(&ended, 1) == 1);
  REFUSED(jsr_send_record(records, "x", 1, -1, NULL), ESHUTDOWN);
  jsr_free_records(records);
  printf("RECORDS %" PRIu64 "\n", accepted);
}

/* Echoes until the peer closes. */
static void serve(int fd, jsr_handle handle, struct transform t, size_t unreplicate_after) {
  static unsigned char bytes[65536];
  size_t total = 0;
  const int fds[2] = {fd, jsr_event_descriptor(session)};
  bool asked = false, closed = false;
  jsr_records *records = handle ? begin(handle) : NULL;
  while (!closed) {
    unsigned ready = readable(fds, 2);
    if (ready & 2) {
      jsr_event event = take_event();
      if (event.type == JSR_EVENT_UNREPLICATED && event.handle == handle) {
        EXPECT(state_of(handle), JSR_STATE_UNREPLICATED);
        EXPECT(jsr_free(session, handle), 0);
        REFUSED(jsr_free(session, handle), ESTALE);
        handle = 0;
        printf("UNREPLICATED: %s\n", event.reason);
      }
    }
    if (ready & 1) {
      ssize_t n = read(fd, bytes, sizeof bytes);
      CHECK(n >= 0);
      answer(&t, bytes, (size_t)n, jsr_slot(session));
      if (records && n > 0) give(records, bytes, (size_t)n);
      else write_all(fd, bytes, (size_t)n);
      total += (size_t)n;
      closed = n == 0;
      if (records && (closed || (unreplicate_after && total >= unreplicate_after / 2))) end(records), records = NULL;
      if (handle && !asked && unreplicate_after && total >= unreplicate_after) {
        asked = true;
        EXPECT(jsr_unreplicate(session, handle), 0);
      }
    }
  }
  printf("CLOSED by the peer after %zu bytes\n", total);
  if (handle) EXPECT(jsr_close(session, fd, handle), 0);
  else EXPECT(close(fd), 0);
}

/* Follows a pair to its end, or takes it over. */
static void follow(jsr_handle handle, int rcv, int snd) {
  static unsigned char answers[1 << 20], bytes[65536];
  size_t made = 0, sent = 0, compared = 0; /* counted from the beginning */
  struct transform t = {0, 0};
  const int events = jsr_event_descriptor(session);
  int live = -1;
  bool ended = false;
  while (live < 0 && !ended) {
    const int fds[3] = {rcv, snd, events};
    unsigned ready = readable(fds, 3);
    if (ready & 4) {
      jsr_event event = take_event();
      if (event.type == JSR_EVENT_MASTERSHIP_GAINED) {
        REFUSED(jsr_merge_signed(session, handle, "key", 3, &live), EINVAL); /* it is not signed */
        EXPECT(jsr_merge(session, handle, &live), 0);
        REFUSED(jsr_merge(session, handle, &live), ESTALE);
        ready = 3; /* both to their end */
      }
      ended = event.type == JSR_EVENT_UNREPLICATED && event.handle == handle;
      if (ended) printf("UNREPLICATED: %s\n", event.reason), ready = 3;
    }
    while (ready & 1 && rcv >= 0) {
      CHECK(made + sizeof bytes <= sizeof answers);
      ssize_t n = read(rcv, answers + made, sizeof bytes);
      CHECK(n >= 0);
      /* The primary is the other one. */
      answer(&t, answers + made, (size_t)n, !jsr_slot(session));
      made += (size_t)n;
      if (n == 0) close(rcv), rcv = -1;
      if (live < 0 && !ended) break;
    }
    while (ready & 2 && snd >= 0) {
      ssize_t n = read(snd, bytes, sizeof bytes);
      CHECK(n >= 0);
      /* What is sent follows from what was received, which may lie in the other descriptor still. */
      while (made < sent + (size_t)n) {
        ssize_t more = read(rcv, answers + made, sizeof bytes);
        CHECK(more > 0);
        answer(&t, answers + made, (size_t)more, !jsr_slot(session));
        made += (size_t)more;
      }
      CHECK(memcmp(answers + sent, bytes, (size_t)n) == 0);
      sent += (size_t)n, compared += (size_t)n;
      if (n == 0) close(snd), snd = -1;
      if (live < 0 && !ended) break;
    }
  }
  printf("FOLLOWED %zu bytes received, %zu bytes sent, compared\n", made, compared);
  CHECK(compared > 0);
  if (ended) {
    jsr_free(session, handle);
    return;
  }
  puts("MERGED");
  write_all(live, answers + sent, made - sent);
  serve(live, 0, t, 0);
}

static int listening(uint16_t port) {
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  EXPECT(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), 0);
  EXPECT(bind(fd, (struct sockaddr *)&any, sizeof any), 0);
  EXPECT(listen(fd, 1), 0);
  return fd;
}

/* With epoll the instances meet through the engines; with the others over a channel. */
static bool has_rendezvous(void) { return !strcmp(loop, "epoll"); }

/* Waits for an event of this type, and takes those before it. */
static jsr_event wait_for(uint32_t type) {
  const int events = jsr_event_descriptor(session);
  while (true) {
    readable(&events, 1);
    jsr_event event = take_event();
    if (event.type == type) return event;
  }
}

/* In a child every call is refused, and giving the session up leaves the parent's alone. */
static void check_fork(void) {
  jsr_handle handle;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (jsr_allocate(session, &handle) != -ECHILD) _exit(1);
    jsr_disconnect(session);
    /* A checker of memory would count what the threads of the parent hold as lost in a child that exits. */
    execl("/bin/true", "true", NULL);
    _exit(2);
  }
  int status;
  EXPECT(waitpid(child, &status, 0), child);
  EXPECT(status, 0);
}

static void primary(const char *other, size_t unreplicate_after) {
  jsr_handle handle, stale, theirs, none;
  jsr_event event;
  jsr_socket_status status;
  int rcv, snd, listener = listening(16000);
  EXPECT(jsr_event_descriptor(session), jsr_event_descriptor(session));
  while (jsr_next_event(session, &event, sizeof event) == 0) continue;
  REFUSED(jsr_next_event(session, &event, sizeof event), EAGAIN);
  REFUSED(jsr_next_event(session, &event, 8), EINVAL);
  REFUSED(jsr_set_timeout(session, 0), EINVAL);
  EXPECT(jsr_set_timeout(session, 20000), 0);
  check_fork();

  EXPECT(jsr_allocate(session, &stale), 0);
  EXPECT(state_of(stale), JSR_STATE_ALLOCATED);
  EXPECT(jsr_free(session, stale), 0);
  REFUSED(jsr_free(session, stale), ESTALE);
  EXPECT(jsr_allocate(session, &handle), 0);
  CHECK(handle != stale);
  REFUSED(jsr_attach(session, handle ^ (jsr_handle)1 << 56, &none, &rcv, &snd), EREMOTE);
  REFUSED(jsr_replicate(session, listener, handle, 0), EOPNOTSUPP);
  REFUSED(jsr_replicate(session, 1000, handle, 0), EBADF);
  REFUSED(jsr_unreplicate(session, handle), EBADFD);
  REFUSED(jsr_merge(session, handle, &rcv), EBADFD);
  REFUSED(jsr_merge_signed(session, handle, "key", 3, &rcv), EBADFD);
  REFUSED(jsr_merge_signed(session, handle, "key", 0, &rcv), EINVAL);
  REFUSED(jsr_merge_signed(session, handle, "key", 81, &rcv), EINVAL);
  REFUSED(jsr_merge_signed(session, handle, NULL, 3, &rcv), EINVAL);

  if (has_rendezvous()) {
    REFUSED(jsr_register(session, "no name"), EPROTO);
    REFUSED(jsr_unregister(session, "life"), ENOENT);
    EXPECT(jsr_register(session, "life"), 0);
    REFUSED(jsr_register(session, "life"), EEXIST);
    event = wait_for(JSR_EVENT_SERVICE_AVAILABLE);
    CHECK(!strcmp(event.service, "life"));
  }
  puts("LISTENING");
  fflush(stdout);
  int fd = accept(listener, NULL, NULL), channel = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  /* Nothing is attached yet on the other RE, and the handle can be used again. */
  REFUSED(jsr_replicate(session, fd, handle, (handle & ~((jsr_handle)0xff << 56)) | (jsr_handle)!jsr_slot(session) << 56),
          EBADFD);
  if (has_rendezvous()) {
    static const unsigned char long_note[JSR_NOTE_LIMIT + 1];
    REFUSED(jsr_replicate_by_service(session, fd, handle, "nobody", NULL, 0), ENOENT);
    REFUSED(jsr_replicate_by_service(session, fd, handle, "life", long_note, sizeof long_note), EMSGSIZE);
    REFUSED(jsr_replicate_by_service(session, fd, handle, "life", "no", 2), ECONNREFUSED);
    CHECK(strstr(jsr_last_error(), "life") && strstr(jsr_last_error(), "not this one"));
    EXPECT(jsr_replicate_by_service(session, fd, handle, "life", "note", 4), 0);
    EXPECT(jsr_status(session, handle, &status, sizeof status), 0);
    theirs = status.peer_handle;
  } else {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(17000)};
    CHECK(inet_aton(other, &address.sin_addr));
    EXPECT(connect(channel, (struct sockaddr *)&address, sizeof address), 0);
    EXPECT(send(channel, &handle, 8, MSG_NOSIGNAL), 8);
    EXPECT(recv(channel, &theirs, 8, MSG_WAITALL), 8);
    EXPECT(jsr_replicate(session, fd, handle, theirs), 0);
  }
  EXPECT(state_of(handle), JSR_STATE_REPLICATING);
  REFUSED(jsr_free(session, handle), EBADFD);
  EXPECT(jsr_status(session, handle, &status, sizeof status), 0);
  CHECK(status.peer_handle == theirs && status.role == JSR_ROLE_PRIMARY);
  CHECK(!strcmp(status.local, "5.5.5.5:16000") && !strncmp(status.remote, "5.5.5.4:", 8));
  event = take_event();
  CHECK(event.type == JSR_EVENT_REPLICATED && event.handle == handle);
  close(channel), close(listener);
  printf("REPLICATED 0x%" PRIx64 "\n", handle);
  serve(fd, handle, (struct transform){0, 0}, unreplicate_after);
}

static void secondary(void) {
  jsr_handle theirs, ours;
  int rcv, snd, listener = listening(17000), channel = -1;
  if (has_rendezvous()) EXPECT(jsr_register(session, "life"), 0);
  puts("LISTENING");
  fflush(stdout);
  if (has_rendezvous()) {
    jsr_event request = wait_for(JSR_EVENT_REPLICATION_REQUESTED);
    CHECK(!strcmp(request.service, "life") && request.note_size == 2 && !memcmp(request.note, "no", 2));
    CHECK(!strcmp(request.local, "5.5.5.5:16000") && !strncmp(request.remote, "5.5.5.4:", 8));
    REFUSED(jsr_accept(session, request.handle ^ 1, &ours, &rcv, &snd), ESTALE);
    EXPECT(jsr_decline(session, request.handle, "not this one"), 0);
    request = wait_for(JSR_EVENT_REPLICATION_REQUESTED);
    CHECK(request.note_size == 4 && !memcmp(request.note, "note", 4));
    EXPECT(jsr_accept(session, request.handle, &ours, &rcv, &snd), 0);
    REFUSED(jsr_accept(session, request.handle, &(jsr_handle){0}, &(int){0}, &(int){0}), ESTALE);
  } else {
    channel = accept(listener, NULL, NULL);
    EXPECT(recv(channel, &theirs, 8, MSG_WAITALL), 8);
    REFUSED(jsr_attach(session, (jsr_handle)jsr_slot(session) << 56 | 1, &ours, &rcv, &snd), ESTALE);
    EXPECT(jsr_attach(session, theirs, &ours, &rcv, &snd), 0);
    EXPECT(send(channel, &ours, 8, MSG_NOSIGNAL), 8);
    close(channel);
  }
  REFUSED(jsr_merge(session, ours, &(int){0}), EREMOTE);
  close(listener);
  printf("SNOOPING 0x%" PRIx64 "\n", ours);
  follow(ours, rcv, snd);
}

int main(int argc, char **argv) {
  CHECK(argc >= 3);
  uint32_t role;
  loop = argv[1];
  setvbuf(stdout, NULL, _IOLBF, 0);
  REFUSED(jsr_connect("/nonexistent/jsrd.sock", "life", &session), ENOENT);
  REFUSED(jsr_connect(NULL, "", &session), EINVAL);
  CHECK(session == NULL);
  EXPECT(jsr_connect(NULL, "life", &session), 0);
  printf("CONNECTED to %s, slot %d, engine %s, library %s\n", jsr_node(session), jsr_slot(session),
         jsr_engine_version(session), jsr_version());
  EXPECT(jsr_role(session, &role), 0);
  if (!strcmp(argv[2], "primary")) {
    CHECK(argc == 5 && role == JSR_ROLE_PRIMARY);
    primary(argv[3], strtoul(argv[4], NULL, 10));
  } else {
    CHECK(role == JSR_ROLE_SECONDARY);
    secondary();
  }
  jsr_disconnect(session);
  puts("DONE");
  return 0;
}
