/*
 * JSR: socket replication for nonstop routing. The interface for C and C++.
 *
 * A daemon runs on both routing engines (REs). On the primary it replicates TCP connections and UDP sockets, on the
 * secondary it reads what was replicated from snoop pairs, and after a switchover it merges the pairs into live sockets.
 * docs/guide.md tells how, step by step. Link with: cc $(pkg-config --cflags --libs jsr)
 *
 *
 * Results. Every function that can fail returns 0, or a negative errno value such as -ENOENT; errno itself is
 * left alone. jsr_last_error() says the same in words. Beside the values named at each function, every one
 * that takes a session can return
 *
 *   -EINVAL        an argument that must not be NULL is NULL, or makes no sense
 *   -ECHILD        the session was opened by another process (see fork, below)
 *
 * and every one that asks the engine ("asks" in its description) can also return
 *
 *   -ENOTCONN      the engine has gone, or broke the protocol: the session has ended
 *   -ETIME         the engine did not answer within the time of jsr_set_timeout(): the session has ended
 *   -EPROTO        the engine's answer was not understood: library and engine do not fit
 *   -ENOSPC        the engine has as many sockets, clients or bytes queued as its limits allow
 *   -EPERM         the application may not do this
 *   -ESHUTDOWN     the engine is ending
 *   -EIO           a system call of the engine failed
 *
 * or a value that is not documented, if the engine is newer than the library. What is refused changes nothing.
 *
 * When a session has ended, open sockets live on as ordinary sockets, and snoop pairs come to their end. Give
 * the session up with jsr_disconnect() and connect again.
 *
 * Blocking. A call that asks waits for the engine's answer: one round trip to a process of this machine, about
 * 100 µs, but for jsr_replicate() and jsr_merge(), which say more. None waits longer than the time that
 * jsr_set_timeout() sets, 30 seconds if it is not called. Calls on records that can wait for the peer say how long
 * in an argument. All other calls return at once.
 *
 * Threads. Any number of threads may use a session at the same time, and their calls do not wait for each other,
 * but jsr_disconnect() must be the last call; likewise jsr_free_records(). Each session has one thread of its own,
 * named jsr-session, and the records of a process have one, named jsr-readiness, from the first jsr_begin_records()
 * on. They block all signals and run no code of the application. The library needs no event loop, and runs none.
 *
 * Signals. No call is interrupted by a signal, none raises SIGPIPE, and no signal handler is installed. No
 * function may be called from a signal handler.
 *
 * fork. A session belongs to the process that opened it: daemonize first, connect then. In a child every call
 * returns -ECHILD. A child that does not call an exec function holds the engine's connection open, so that the
 * engine would not notice the death of the parent: it has to call jsr_disconnect(), which there only closes
 * descriptors and leaves the parent's session alone. The same goes for records, and jsr_free_records(). Every
 * descriptor that the library opens is close-on-exec.
 *
 * Descriptors. Each function says who owns what it takes and gives. The library never changes flags of a
 * descriptor, nor of the open file behind it.
 */

#ifndef JSR_H
#define JSR_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. Minor versions add; what is there stays as it is, in the binary too. */
#define JSR_VERSION_MAJOR 0
#define JSR_VERSION_MINOR 2
#define JSR_VERSION_PATCH 0
#define JSR_VERSION "0.2.0"

/* The version of the library that is loaded, as in JSR_VERSION. For any thread. */
const char *jsr_version(void);

/*
 * What went wrong in the last call of the calling thread that failed: one line without a line feed, at most 511
 * bytes; empty before the first. Valid until the thread's next call of a function of this library.
 */
const char *jsr_last_error(void);

/* ---- Sessions ------------------------------------------------------------------------------------------ */

/* A connection to the engine of this RE. */
typedef struct jsr_session jsr_session;

/* Where jsrd listens unless its configuration says otherwise. */
#define JSR_DEFAULT_PATH "/run/jsr/jsrd.sock"

/*
 * Connects to the engine, and stores the session in *session, to be given back with jsr_disconnect().
 *
 *   path         the engine's control socket; NULL for JSR_DEFAULT_PATH
 *   application  a printable name of 1 to 64 bytes of UTF-8, which `jsrctl show sockets` prints
 *
 * Waits for at most 5 seconds for each of three answers. On failure *session is NULL.
 *
 *   -ENOENT, -ECONNREFUSED   there is no engine at path
 *   -EACCES                  the control socket is not open to this user
 *   -ENAMETOOLONG            path is too long for a Unix socket (107 bytes), or application (64 bytes)
 *   -ETIMEDOUT, -EAGAIN      the engine does not answer
 *   -EPROTONOSUPPORT         the engine speaks another version of the control protocol
 *   -EILSEQ                  path or application is not UTF-8
 *   -ENOSPC, -EPROTO, -ESHUTDOWN, and what socket(2), connect(2), eventfd(2) and pthread_create(3) say
 */
int jsr_connect(const char *path, const char *application, jsr_session **session);

/*
 * Ends the session and frees it; NULL does nothing. The engine frees handles that have no socket, ends the
 * snoop pairs, and does with replicated sockets what `on-application-failure` in its configuration says: by
 * default they move to the other RE, if an application follows them there. So a daemon that ends closes them
 * with jsr_close(), or moves mastership before.
 *
 * No other call on this session may be under way or follow; its event descriptor is closed. Waits for the
 * session's thread, which ends at once.
 */
void jsr_disconnect(jsr_session *session);

/*
 * Sets how long calls from now on wait for the engine's answer, in milliseconds, 1 to 86,400,000 (a day). An
 * engine that does not answer in time hangs, and the session is ended: -ETIME here, -ENOTCONN for everything
 * else, so that it is always clear who owns a socket. Make it longer than the engine's own timeouts, which
 * are a second by default.
 */
int jsr_set_timeout(jsr_session *session, int64_t milliseconds);

/* The name of this RE, such as "re0"; valid as long as the session. NULL if session is NULL. */
const char *jsr_node(const jsr_session *session);

/* The slot of this RE, 0 or 1. */
int jsr_slot(const jsr_session *session);

/* The version of the engine; valid as long as the session. NULL if session is NULL. */
const char *jsr_engine_version(const jsr_session *session);

/* The part that an RE plays. */
enum jsr_role {
  JSR_ROLE_NONE = 0,      /* mastership is not settled, or was released */
  JSR_ROLE_PRIMARY = 1,   /* holds mastership of the replicated addresses */
  JSR_ROLE_SECONDARY = 2, /* stands by, connected to a primary */
};

/* Asks for the part that this RE plays at the moment, a value of enum jsr_role; events tell of changes. */
int jsr_role(jsr_session *session, uint32_t *role);

/* ---- Handles ------------------------------------------------------------------------------------------- */

/*
 * The name of one replicated socket on one RE: slot (8 bits), generation (24), index (32). Never 0, and never
 * used again. Printed as "0x%" PRIx64. A handle belongs to the session that got it.
 */
typedef uint64_t jsr_handle;

/* Asks for a name for a socket that is going to be replicated. */
int jsr_allocate(jsr_session *session, jsr_handle *handle);

/*
 * Asks to take a handle back that has no replicated socket: one that was allocated for nothing, or whose
 * replication has ended. The engine lets go of its duplicate of the socket.
 *
 *   -ESTALE    there is no such handle on this RE (any more)
 *   -EACCES    it is another application's
 *   -EBADFD    its socket is replicated: end that first
 */
int jsr_free(jsr_session *session, jsr_handle handle);

/* Where a handle stands in its life. */
enum jsr_state {
  JSR_STATE_OTHER = 0,        /* something that a newer engine knows */
  JSR_STATE_ALLOCATED = 1,    /* no socket yet */
  JSR_STATE_STARTING = 2,     /* the handshake is under way */
  JSR_STATE_REPLICATING = 3,  /* a socket of the primary, replicated */
  JSR_STATE_SNOOPING = 4,     /* a snoop pair of the secondary */
  JSR_STATE_UNREPLICATED = 5, /* replication has ended; the handle waits to be freed or closed */
  JSR_STATE_MERGED = 6,       /* a snoop pair that has become a live socket */
  JSR_STATE_CLOSING = 7,      /* closed by the application, its last bytes and FIN still under way */
};

/* The state of one handle as the engine sees it. May grow at its end: see jsr_status(). */
typedef struct jsr_socket_status {
  jsr_handle handle;
  jsr_handle peer_handle; /* of the same connection on the other RE; 0 if it is not known */
  uint32_t state;         /* enum jsr_state */
  uint32_t role;          /* enum jsr_role: of this RE for this socket; none if it is not replicated */
  char local[64];         /* address and port of this end, such as "5.5.5.5:16000"; "" without a socket */
  char remote[64];        /* of the peer */
} jsr_socket_status;

/*
 * Asks for the state of a handle of this RE, also one of another application.
 *
 *   size       sizeof(jsr_socket_status); with another version's structure fields are left out, or zero
 *
 *   -ESTALE    there is no such handle on this RE (any more)
 *   -EINVAL    size is less than the structure has ever been
 */
int jsr_status(jsr_session *session, jsr_handle handle, jsr_socket_status *status, size_t size);

/* ---- On the primary ------------------------------------------------------------------------------------ */

/*
 * Replicates a socket. Asks, and waits for the handshake with the other RE: some milliseconds usually, the engine's
 * timeouts at most.
 *
 *   socket     an established TCP connection; unread and unacknowledged bytes are no obstacle, and no byte is lost. Or
 *              a UDP socket that is bound to a replicated address, connected or not; unread datagrams go along
 *   primary    from jsr_allocate()
 *   secondary  the handle that the other instance got from jsr_attach()
 *
 * The descriptor stays the caller's, with the same number, whatever is returned; the engine works on a duplicate
 * of its own. Until this returns, no thread may read, write, poll, shut down or close the socket: the kernel
 * would let it, but a byte that is read or written then may be missing on the other RE.
 *
 * On failure the socket is an ordinary one, as before, and the handle is as it was, to be used again or freed.
 *
 *   -EBADF        socket is not an open descriptor
 *   -EOPNOTSUPP   it is not a socket that can be replicated: neither an established TCP connection nor a bound UDP
 *                 socket, not from a replicated address, of another network namespace, MPTCP, ...
 *   -EPROTONOSUPPORT   the engine of the other RE is too old for UDP sockets
 *   -ESTALE       there is no handle `primary` on this RE (any more), or `secondary` is one of this RE
 *   -EACCES       `primary` is another application's
 *   -EBADFD       `primary` has a socket already, the connection is replicated already, or there is no snoop
 *                 pair `secondary` on the other RE
 *   -EREMOTE      this RE is not primary
 *   -ENOLINK      there is no secondary that is connected and ready
 *   -ETIMEDOUT    the other RE did not answer in time
 */
int jsr_replicate(jsr_session *session, int socket, jsr_handle primary, jsr_handle secondary);

/*
 * Asks to end the replication of a socket, which goes on as an ordinary one; its snoop pair on the other RE
 * ends after the bytes replicated so far. JSR_EVENT_UNREPLICATED tells when that is done; free the handle
 * then. On the secondary: gives a snoop pair up.
 *
 *   -ESTALE    there is no such handle on this RE (any more)
 *   -EACCES    it is another application's
 *   -EBADFD    it is not replicated
 */
int jsr_unreplicate(jsr_session *session, jsr_handle handle);

/*
 * Closes a replicated or merged socket in order: closes `socket`, and asks the engine to close its duplicate, so
 * that the kernel sends its FIN behind the last byte. close(2) alone would not: the engine's duplicate keeps
 * the connection open. The engine frees the handle when both directions are closed.
 *
 * `socket` is closed whatever is returned, but for -EBADF.
 *
 *   -EBADF     socket is not an open descriptor
 *   -EACCES    the handle is another application's
 *   -ESTALE    there never was such a handle on this RE
 */
int jsr_close(jsr_session *session, int socket, jsr_handle handle);

/* ---- On the secondary ---------------------------------------------------------------------------------- */

/*
 * Asks for the snoop pair of a handle of the primary, which the other instance has told. Bytes come once the
 * primary has replicated its socket with *handle as `secondary`.
 *
 *   primary    the primary's handle
 *   handle     the name of the pair on this RE
 *   rcv        stream of what the peer sent, from the first byte that the primary's application had not read
 *   snd        stream of what the primary sent, from the first byte that the peer had not acknowledged
 *
 * rcv and snd are the caller's, in blocking mode, to be closed with close(2), for reading only. Read both: a pair that is not
 * read slows its connection down, and is given up. At the end of either stream the peer, or the primary, has
 * closed its direction, or replication has ended, of which JSR_EVENT_UNREPLICATED gives the reason.
 *
 *   -EREMOTE   this RE is not secondary
 *   -ENOLINK   the primary is not connected
 *   -ESTALE    the handle cannot be one of the primary: it is of this RE
 */
int jsr_attach(jsr_session *session, jsr_handle primary, jsr_handle *handle, int *rcv, int *snd);

/*
 * As jsr_attach(), for a UDP socket. Each recv(2) on rcv or snd gives one datagram, or nothing at the end of replication:
 * a struct jsr_datagram, and the payload behind it, which may be empty. JSR_DATAGRAM_MAX bytes hold any. They come in
 * the order in which the primary took or sent them, each once.
 */
int jsr_attach_datagrams(jsr_session *session, jsr_handle primary, jsr_handle *handle, int *rcv, int *snd);

/* One end of a datagram: an IPv4 or an IPv6 address, as its family (first of both) says, and a port. */
union jsr_address {
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

/* What stands before the payload of a datagram that is read from a snoop descriptor. */
typedef struct jsr_datagram {
  union jsr_address source;
  union jsr_address destination;
} jsr_datagram;

/* Bytes of the longest message on a snoop descriptor of datagrams. */
#define JSR_DATAGRAM_MAX (sizeof(jsr_datagram) + 65535)

/*
 * Turns a snoop pair into the live socket, on the new primary, after JSR_EVENT_MASTERSHIP_GAINED. Asks, and
 * waits for some milliseconds usually.
 *
 *   handle     from jsr_attach()
 *   socket     the live socket: the caller's, to be closed with close(2) or jsr_close()
 *
 * For a UDP socket: bound, and connected, as the other one was; datagrams that were not read from rcv can be read from
 * it. One that the old primary had written when it died may not have left; it is not sent again.
 *
 * It has the options that the socket of the old primary had when it was replicated: O_NONBLOCK; TCP_NODELAY,
 * TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, TCP_LINGER2, TCP_CONGESTION;
 * IP_TTL, IP_MINTTL, IP_TOS, IP_MTU_DISCOVER; SO_KEEPALIVE, SO_PRIORITY, SO_MARK, SO_OOBINLINE, SO_RCVLOWAT,
 * SO_REUSEADDR, SO_REUSEPORT, and SO_SNDBUF and SO_RCVBUF if they were set; of UDP sockets SO_BROADCAST, SO_NO_CHECK,
 * IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVERR, UDP_SEGMENT and UDP_GRO. Others, and multicast memberships, have to be
 * set again.
 *
 * Both descriptors of the pair come to their end. What was not read from rcv when this is called is in the
 * live socket; a byte that was on its way through rcv meanwhile may still come there, before those of the live
 * socket, so read rcv to its end first. snd can be read to its end, too: that is where the outgoing stream
 * stands, and where the application has to go on. Then close both.
 *
 * The handle is gone with success; the socket can be replicated again under a new one.
 *
 *   -ESTALE    there is no such handle on this RE (any more)
 *   -EACCES    it is another application's
 *   -EBADFD    it is not a snoop pair, or its replication has ended
 *   -EREMOTE   this RE is not primary
 *   -ENOKEY    the connection is signed: call jsr_merge_signed()
 *   -EIO       the socket could not be rebuilt; the handle is gone, and the connection with it
 */
int jsr_merge(jsr_session *session, jsr_handle handle, int *socket);

/*
 * As jsr_merge(), for a connection that was signed (TCP_MD5SIG, RFC 2385) when it was replicated. The engines
 * tell each other that it is, and never its key.
 *
 *   key        what this end and the peer sign with now. A wrong key is only noticed by the peer, which
 *              ignores everything that is signed with it
 *   key_size   1 to 80 bytes
 *
 *   -EINVAL    key_size is out of range, or the connection is not signed; the handle is as it was
 */
int jsr_merge_signed(jsr_session *session, jsr_handle handle, const void *key, size_t key_size, int *socket);

/* ---- Rendezvous ---------------------------------------------------------------------------------------- */

/*
 * The two instances of an application can meet through the engines instead of a channel of their own. Both register
 * the same name of a service. The primary's replicates naming it; the secondary's gets
 * JSR_EVENT_REPLICATION_REQUESTED and accepts, or declines. JSR_EVENT_SERVICE_AVAILABLE tells the primary's, also
 * when an RE or an instance comes late, that it can replicate what is not replicated.
 */

/* Bytes of a note from instance to instance, at most. */
#define JSR_NOTE_LIMIT 256

/*
 * Asks to make this session the instance of a service on this RE, until it ends or jsr_unregister().
 *
 *   service    1 to 64 printable characters of ASCII, without spaces
 *
 *   -EEXIST    another application of this RE has registered it, and lives
 *   -ENOSPC    there are 64 services on this RE already
 *   -EPROTO    it is no name of a service, or the engine is too old
 *   -EILSEQ    it is not UTF-8
 */
int jsr_register(jsr_session *session, const char *service);

/*
 * Asks not to be that instance any more. Requests that were not answered are refused.
 *
 *   -ENOENT    this session has not registered it
 */
int jsr_unregister(jsr_session *session, const char *service);

/*
 * Replicates a socket, as jsr_replicate(), with the pair that the instance of `service` on the other RE makes of it. Asks,
 * and waits for that instance, two seconds at most, and for the handshake. While it waits for the instance, packets
 * and bytes go their way, but the same rules hold for the socket as in jsr_replicate() until this returns.
 *
 *   socket, primary   as in jsr_replicate()
 *   note, note_size   for the other instance, JSR_NOTE_LIMIT bytes at most; NULL and 0 for none
 *
 * On failure the socket is an ordinary one, as before, and the handle is as it was; the message names the service. Ask
 * again under another handle: the instance there may be about to answer for this one.
 *
 *   -ENOENT           nobody has registered the service on the other RE
 *   -ECONNREFUSED     the instance there has declined
 *   -ETIMEDOUT        the instance there, or the other engine, has not answered in time
 *   -EPROTONOSUPPORT  the engine of the other RE is too old
 *   -ENOSPC           too many requests of the service wait on the other RE
 *   -EMSGSIZE         the note is too long
 *   and as in jsr_replicate()
 */
int jsr_replicate_by_service(jsr_session *session, int socket, jsr_handle primary, const char *service,
                             const void *note, size_t note_size);

/*
 * Accepts a request: asks for the snoop pair of the socket, for which the other instance waits. The results are as in
 * jsr_attach(), or, if the event's protocol is IPPROTO_UDP, in jsr_attach_datagrams(). Should nothing come of it all
 * the same, JSR_EVENT_UNREPLICATED says so of *handle.
 *
 *   primary    `handle` of JSR_EVENT_REPLICATION_REQUESTED
 *
 *   -ESTALE    the request was withdrawn, or answered already
 *   -EACCES    the service is another application's
 *   and as in jsr_attach()
 */
int jsr_accept(jsr_session *session, jsr_handle primary, jsr_handle *handle, int *rcv, int *snd);

/*
 * Asks to decline a request.
 *
 *   reason     what the other instance is told, cut after 200 bytes
 *
 *   -ESTALE, -EACCES   as in jsr_accept()
 */
int jsr_decline(jsr_session *session, jsr_handle primary, const char *reason);

/* ---- Events -------------------------------------------------------------------------------------------- */

/* What an event is about. Others may be added: ignore those that you do not know. */
enum jsr_event_type {
  JSR_EVENT_REPLICATED = 1,        /* handle: the handshake of a socket, or of a snoop pair, is over */
  JSR_EVENT_UNREPLICATED = 2,      /* handle, reason: replication of a socket has ended */
  JSR_EVENT_SECONDARY_UP = 3,      /* the other RE is connected and can take snoop pairs */
  JSR_EVENT_SECONDARY_DOWN = 4,    /* the other RE is gone */
  JSR_EVENT_MASTERSHIP_GAINED = 5, /* this RE has become primary: merge every snoop pair */
  JSR_EVENT_MASTERSHIP_LOST = 6,   /* this RE is primary no more: its replicated sockets are dead */
  JSR_EVENT_PEER_CLOSED = 7,       /* handle: the peer of a replicated socket has closed its direction */
  JSR_EVENT_MISSED = 8,            /* count: so many events were dropped here, because nobody read them */
  JSR_EVENT_ENGINE_GONE = 9,       /* the session has ended; always the last event */
  /* Of services that the session has registered: */
  JSR_EVENT_SERVICE_AVAILABLE = 10,     /* service: this RE is primary and the other instance there; replicate */
  JSR_EVENT_SERVICE_UNAVAILABLE = 11,   /* service: it is not so any more */
  JSR_EVENT_REPLICATION_REQUESTED = 12, /* service, handle (the primary's), local, remote, note: accept or decline
                                           it within two seconds */
  JSR_EVENT_REQUEST_WITHDRAWN = 13,     /* service, handle: a request that was not answered is off */
};

/* One event. May grow at its end: see jsr_next_event(). */
typedef struct jsr_event {
  uint32_t type;     /* enum jsr_event_type */
  uint32_t protocol; /* of JSR_EVENT_REPLICATION_REQUESTED: IPPROTO_TCP or IPPROTO_UDP; otherwise 0 */
  jsr_handle handle; /* 0 if the event is not about one */
  uint64_t count;    /* of JSR_EVENT_MISSED, otherwise 0 */
  char reason[232];  /* one line for people, cut if it is longer; "" if there is none */
  /* From version 0.2 on; empty unless the event has them. */
  char service[72];
  char local[64];    /* address and port of this end, such as "5.5.5.5:16000" */
  char remote[64];   /* of the peer */
  uint32_t note_size; /* bytes of note */
  uint32_t reserved_2; /* 0 */
  uint8_t note[JSR_NOTE_LIMIT];
} jsr_event;

/*
 * Returns a descriptor for select, poll or epoll: readable as long as jsr_next_event() has something to say
 * (level-triggered), and for ever after the last event. It is the session's: do not read, write or close it.
 * The number stays the same; what is returned is never 0 or above and an error. Or a negative errno value:
 *
 *   -EMFILE, -ENFILE, -ENOMEM   see eventfd(2)
 */
int jsr_event_descriptor(jsr_session *session);

/*
 * Takes the next event. Never waits. Events come in the order in which things happened, each to one taker, and
 * begin with the session: those of the RE, and those about the session's own handles. Up to 16,384 wait for a
 * reader; those beyond are counted in JSR_EVENT_MISSED, which comes where they would have been.
 *
 *   size       sizeof(jsr_event); with another version's structure fields are left out, or zero
 *
 *   -EAGAIN    there is none now
 *   -ENOTCONN  JSR_EVENT_ENGINE_GONE was taken: there will be no more
 *   -EINVAL    size is less than the structure has ever been
 */
int jsr_next_event(jsr_session *session, jsr_event *event, size_t size);

/* ---- Records ------------------------------------------------------------------------------------------- */

/*
 * Plain bytes that the kernel has accepted and not yet sent are not on the secondary, and a switchover may cut a
 * message in two. Where messages cannot be made twice, give them as records: of each the peer gets all or nothing,
 * whoever is primary in the end. All of it is on the secondary before its first byte leaves, snd shows it whole,
 * and what was given whole is sent even if the application dies.
 *
 * Records are of the primary's side of one replicated socket. They are numbered from 1, in the order in which they
 * were given. A record is *given* when the library has it, which sees to it that the engine gets the rest;
 * *accepted* when the engine has all of it; *safe* when the other RE has, too.
 *
 * Any number of threads may use the same jsr_records at once. They outlive jsr_disconnect(), but the engine takes
 * that for the death of the application.
 */
typedef struct jsr_records jsr_records;

/*
 * Begins record mode: whatever is sent on the socket from now on comes as records, and nothing may be written to it
 * otherwise until the mode has ended. It is read as always. Asks, and waits up to a second until what was written
 * before has left.
 *
 *   handle     of a socket that jsr_replicate() has replicated
 *   records    to be given back with jsr_free_records(); NULL on failure
 *
 *   -ESTALE    there is no such handle on this RE (any more)
 *   -EACCES    it is another application's
 *   -EBADFD    it is not replicated, is in record mode already or shut down, or what was written before does not
 *              leave, since the peer does not read
 *   -EREMOTE, -ENOLINK   this RE is not primary; there is no secondary
 */
int jsr_begin_records(jsr_session *session, jsr_handle handle, jsr_records **records);

/*
 * Gives a record.
 *
 *   record, size   1 byte or more, and no more than `limit` of jsr_records_news(); copied
 *   milliseconds   how long to wait for room; 0 not at all, below 0 for ever, as in poll(2). There is room as soon as
 *                  the engine has taken all of the record before, and it takes no more than it can get rid of: that
 *                  is how a slow peer slows the application
 *   number         the record's number, with success; may be NULL
 *
 *   -EAGAIN        there was no room in time, and nothing was given: try again when jsr_records_descriptor() is
 *                  readable
 *   -EMSGSIZE      size is 0 or above the limit
 *   -ESHUTDOWN     the mode has ended: jsr_records_news() says how many records were accepted, and those behind them
 *                  the peer does not get. Write to the socket itself from there on
 *   -EREMOTE       the connection is the other RE's now, or gone
 *   -ENOTCONN      the engine has gone
 */
int jsr_send_record(jsr_records *records, const void *record, size_t size, int milliseconds, uint64_t *number);

/*
 * Waits until a record is safe, or written to a socket that is not replicated any more.
 *
 *   number         from jsr_send_record()
 *   milliseconds   as there
 *
 *   -EAGAIN        it is not safe yet
 *   -EINVAL        no record of this number was given
 *   -ESHUTDOWN     the mode has ended, and this record was not accepted
 *   -EREMOTE, -ENOTCONN   as at jsr_send_record(); the record may be safe nevertheless
 */
int jsr_wait_record(jsr_records *records, uint64_t number, int milliseconds);

/* Where record mode stands. */
enum jsr_records_state {
  JSR_RECORDS_OPEN = 1,        /* records are taken */
  JSR_RECORDS_ENDED = 2,       /* by jsr_end_records(), or with replication; the socket can be written to again */
  JSR_RECORDS_MOVED = 3,       /* the connection is the other RE's now, or gone */
  JSR_RECORDS_ENGINE_GONE = 4, /* the engine ended in the middle of it */
};

/* May grow at its end: see jsr_records_news(). */
typedef struct jsr_records_status {
  uint32_t state;    /* enum jsr_records_state */
  uint32_t limit;    /* bytes of one record, at most (limits.record of the engine's configuration) */
  uint64_t given;    /* how many records were given */
  uint64_t safe;     /* how many of them are known to be safe */
  uint64_t accepted; /* of JSR_RECORDS_ENDED: how many the peer gets, whole; otherwise 0 */
  uint64_t reserved; /* 0 */
} jsr_records_status;

/*
 * Says where record mode stands, as far as the engine has told. Never waits.
 *
 *   size       sizeof(jsr_records_status); with another version's structure fields are left out, or zero
 *
 *   -EINVAL    size is less than the structure has ever been
 */
int jsr_records_news(jsr_records *records, jsr_records_status *news, size_t size);

/*
 * Returns a descriptor for select, poll or epoll, or a negative errno value. It is readable (level-triggered)
 *
 *   - when more records are safe than jsr_records_news() has said, until it says so;
 *   - when there is room again after jsr_send_record() returned -EAGAIN, until it is called;
 *   - for ever when the mode has ended.
 *
 * It belongs to the records, and is closed by jsr_free_records(): do not read, write or close it. The number stays
 * the same.
 *
 *   -EMFILE, -ENFILE, -ENOMEM   see eventfd(2)
 */
int jsr_records_descriptor(jsr_records *records);

/*
 * Ends record mode: no more records are taken, and it waits until those that were given are written to the socket,
 * which can then be written to directly, and jsr_close()d. With a peer that does not read that takes as long as the
 * peer likes.
 *
 *   milliseconds   how long to wait, as at jsr_send_record()
 *   accepted       how many records were accepted, with success; may be NULL
 *
 *   -EAGAIN        not yet: call again when jsr_records_descriptor() is readable
 *   -EREMOTE, -ENOTCONN   as at jsr_send_record()
 */
int jsr_end_records(jsr_records *records, int milliseconds, uint64_t *accepted);

/*
 * Gives the records back, and ends record mode if it has not ended, behind all that was given and without waiting
 * for it. NULL does nothing. No other call on these records may be under way or follow.
 */
void jsr_free_records(jsr_records *records);

/* ---- Layout: part of the binary interface -------------------------------------------------------------- */

#ifdef __cplusplus
#define JSR_ASSERT_LAYOUT(condition) static_assert(condition, #condition)
#else
#define JSR_ASSERT_LAYOUT(condition) _Static_assert(condition, #condition)
#endif
JSR_ASSERT_LAYOUT(sizeof(jsr_handle) == 8);
JSR_ASSERT_LAYOUT(sizeof(jsr_socket_status) == 152);
JSR_ASSERT_LAYOUT(offsetof(jsr_socket_status, state) == 16);
JSR_ASSERT_LAYOUT(offsetof(jsr_socket_status, local) == 24);
JSR_ASSERT_LAYOUT(offsetof(jsr_socket_status, remote) == 88);
JSR_ASSERT_LAYOUT(sizeof(jsr_datagram) == 56);
JSR_ASSERT_LAYOUT(sizeof(jsr_event) == 720);
JSR_ASSERT_LAYOUT(offsetof(jsr_event, service) == 256);
JSR_ASSERT_LAYOUT(offsetof(jsr_event, note) == 464);
JSR_ASSERT_LAYOUT(offsetof(jsr_event, handle) == 8);
JSR_ASSERT_LAYOUT(offsetof(jsr_event, count) == 16);
JSR_ASSERT_LAYOUT(offsetof(jsr_event, reason) == 24);
JSR_ASSERT_LAYOUT(sizeof(jsr_records_status) == 40);
JSR_ASSERT_LAYOUT(offsetof(jsr_records_status, given) == 8);
JSR_ASSERT_LAYOUT(offsetof(jsr_records_status, accepted) == 24);
#undef JSR_ASSERT_LAYOUT

#ifdef __cplusplus
}
#endif

#endif
