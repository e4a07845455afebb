/* A long run of many processes that send, receive and ack at random while they are stopped, killed and started
 * again under the same names, inboxes run full and readers are slow. Each life of each process keeps its own
 * ledger on disk; afterwards the ledgers are read together, and say exactly what was lost, doubled or out of
 * order.
 *
 *   tool_soak run [--agents N] [--minutes M | --messages N] [--stops S] [--kills K] [--seed N] --dir LEDGERS
 *   tool_soak check LEDGERS
 *
 * S and K are signals a second. A ledger is a file of 8-byte words, written through a mapping, so that what a
 * process wrote before SIGKILL is there. For each frame that it sends a process writes what it is about to send,
 * then whether it was sent; for each message it got, that it got it and whether that was marked redelivered;
 * that it is about to ack it; that it was acked.
 *
 * What must be true of every message:
 *   told sent            got at least once          told failed     never got
 *   got without the mark at most once               got again       only after its reader's death, with the mark
 *   told acked           never got by a later life
 *   from one life of a sender in one lane: first got in the order sent; in one life of a reader: all got so
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "tests/harness.h"

#define MOST_AGENTS 1000
#define MOST_LIVES 16000
#define PENDING 48
#define LARGE 6000u

/* ---- the ledger ---- */

enum { ABOUT_TO_SEND = 1, SENT, FAILED, GOT, GOT_AGAIN, ABOUT_TO_ACK, ACKED };
/* A message: {lane:2 | agent:10 | life:14 | number:34}; a word of the ledger: {kind:4 | message:60}. */
static uint64_t message_id(uint64_t lane, uint64_t agent, uint64_t life, uint64_t number) {
  return lane << 58 | agent << 48 | life << 34 | number;
}
#define ID_LANE(m) ((unsigned)((m) >> 58) & 3u)
#define ID_AGENT(m) ((unsigned)((m) >> 48) & 1023u)
#define ID_LIFE(m) ((unsigned)((m) >> 34) & 16383u)
#define ID_NUMBER(m) ((m) & ((UINT64_C(1) << 34) - 1))
#define WORD(kind, m) ((uint64_t)(kind) << 60 | (m))
#define WORD_KIND(w) ((unsigned)((w) >> 60))
#define WORD_MESSAGE(w) ((w) & ((UINT64_C(1) << 60) - 1))

#define GROW (UINT64_C(1) << 17) /* words */
typedef struct ledger {
  int fd;
  _Atomic uint64_t *page;
  uint64_t at, base;
} ledger_t;
static ledger_t book;
static const char *folder;

static void ledger_map(void) {
  if (book.page) munmap((void *)(uintptr_t)book.page, GROW * 8);
  CHECK_INT(ftruncate(book.fd, (off_t)((book.base + GROW) * 8)), 0);
  book.page = mmap(NULL, GROW * 8, PROT_READ | PROT_WRITE, MAP_SHARED, book.fd, (off_t)(book.base * 8));
  CHECK(book.page != MAP_FAILED);
}
static void ledger_open(int agent, int life) {
  char path[512];
  snprintf(path, sizeof path, "%s/%d.%d", folder, agent, life);
  book.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (book.fd < 0) {
    fprintf(stderr, "tool_soak: cannot write the ledger %s: %s\n", path, strerror(errno));
    _exit(1);
  }
  ledger_map();
}
static void enter(unsigned kind, uint64_t message) {
  if (book.at == GROW) {
    book.base += GROW;
    book.at = 0;
    ledger_map();
  }
  atomic_store_explicit(&book.page[book.at++], WORD(kind, message), memory_order_release);
}

/* ---- what agents and their driver share ---- */

enum { RUN, QUIET, DRAIN };
static struct shared {
  _Atomic int phase;
  _Atomic int quiet; /* agents that send no more */
  struct {
    _Atomic uint64_t sent, got, again, acked, turns;
    _Atomic int doing;
  } agent[MOST_AGENTS];
} *shared;
static int agents = 200;

static uint64_t dice;
static uint64_t roll(uint64_t n) {
  dice ^= dice << 13;
  dice ^= dice >> 7;
  dice ^= dice << 17;
  return dice % n;
}

/* ---- an agent ---- */

typedef struct body {
  uint64_t message;
  uint32_t to, bytes;
} body_t;
static int me, life;
static uint64_t number;
static cfn_bus_t *bus;
static cfn_address_t peer[MOST_AGENTS];

static uint8_t pattern(uint64_t message, uint32_t i) { return (uint8_t)(message * 31 + i * 7 + (message >> 48)); }

static uint32_t make(uint8_t *room, unsigned lane, uint32_t to) {
  body_t b = {message_id(lane, (uint64_t)me, (uint64_t)life, ++number), to, 0};
  b.bytes = (uint32_t)(sizeof b + (roll(50) == 0 ? roll(LARGE) : roll(160)));
  memcpy(room, &b, sizeof b);
  for (uint32_t i = sizeof b; i < b.bytes; i++) room[i] = pattern(b.message, i);
  return b.bytes;
}

static void send_some(void) {
  static uint8_t room[32][sizeof(body_t) + LARGE];
  cfn_outgoing_t m[32];
  uint32_t to = (uint32_t)roll((uint64_t)agents), n = roll(3) ? 1 : 1 + (uint32_t)roll(31);
  if (roll(16) == 0) to = to % 3; /* some are written to by everybody */
  unsigned lane = roll(8) ? CFN_LANE_NORMAL : (unsigned)roll(CFN_LANES);
  uint64_t deadline = roll(40) ? 0 : t_in(0.03);
  uint64_t first = number;
  for (uint32_t i = 0; i < n; i++) m[i] = (cfn_outgoing_t){.body = room[i], .body_bytes = make(room[i], lane, to)};
  uint64_t all = message_id(lane, (uint64_t)me, (uint64_t)life, number);
  enter(ABOUT_TO_SEND, all);
  int r;
  do {
    r = cfn_bus_send(bus, &peer[to], lane, m, n, deadline, NULL);
  } while (r == CFN_INTERRUPTED);
  if (r != CFN_OK && r != CFN_FULL && r != CFN_NO_SPACE && r != CFN_AGENT_DEAD && r != CFN_AGAIN && r != CFN_TOO_LARGE) {
    fprintf(stderr, "agent %d.%d: send: %s\n", me, life, cfn_last_failure()->text);
    abort();
  }
  enter(r == CFN_OK ? SENT : FAILED, all);
  if (r == CFN_OK) atomic_fetch_add(&shared->agent[me].sent, number - first);
}

static struct {
  uint64_t token, message;
} pending[PENDING];
static uint32_t pendings;

static void ack_some(uint32_t keep) {
  while (pendings > keep) {
    uint32_t i = (uint32_t)roll(pendings); /* in any order */
    enter(ABOUT_TO_ACK, pending[i].message);
    CHECK_INT(cfn_bus_ack(bus, &pending[i].token, 1), 0);
    enter(ACKED, pending[i].message);
    atomic_fetch_add(&shared->agent[me].acked, 1);
    pending[i] = pending[--pendings];
  }
}

/* False: nothing came. */
static bool receive_some(double patience) {
  static _Alignas(8) uint8_t out[PENDING * 1024 + 2 * LARGE];
  uint32_t offsets[PENDING], most = PENDING - pendings;
  size_t used;
  int64_t n;
  uint64_t deadline = t_in(patience);
  do {
    n = cfn_bus_recv_many(bus, NULL, 0, CFN_ALL_LANES, 1 + (uint32_t)roll(most), deadline, out, sizeof out, offsets, &used);
  } while (n == CFN_INTERRUPTED);
  if (n == CFN_EMPTY || n == CFN_TIMEOUT) return false;
  if (n < 0) {
    fprintf(stderr, "agent %d.%d: recv: %s\n", me, life, cfn_last_failure()->text);
    abort();
  }
  for (int64_t i = 0; i < n; i++) {
    const cfn_wire_t *w = (const void *)(out + offsets[i]);
    const uint8_t *raw = w->wire_flags & CFN_WIRE_EXTERNAL ? (const void *)(uintptr_t)w->external
                                                           : (const uint8_t *)w + w->total_bytes - w->body_bytes;
    body_t b;
    memcpy(&b, raw, sizeof b);
    bool again = w->wire_flags & CFN_WIRE_REDELIVERED;
    enter(again ? GOT_AGAIN : GOT, b.message);
    CHECK_INT(b.to, me);
    CHECK_INT(b.bytes, w->body_bytes);
    CHECK_INT(ID_LANE(b.message), w->lane);
    for (uint32_t k = sizeof b; k < b.bytes; k++) CHECK_INT(raw[k], pattern(b.message, k));
    pending[pendings].token = w->token;
    pending[pendings++].message = b.message;
  }
  atomic_fetch_add(&shared->agent[me].got, (uint64_t)n);
  return true;
}

/* Names come and go beside the traffic, too. */
static void pass_by(void) {
  char name[40];
  cfn_address_t at;
  int created;
  uint64_t dropped;
  snprintf(name, sizeof name, "passing-%d-%d", me, life);
  if (cfn_bus_register(bus, name, NULL, &at, &created) != CFN_OK) return;
  cfn_outgoing_t m = {.body = name, .body_bytes = 4};
  cfn_bus_send(bus, &at, CFN_LANE_LOW, &m, 1, 0, NULL);
  cfn_bus_unregister(bus, name, CFN_FORCE, &dropped);
}

static _Noreturn void agent(uint64_t seed) {
  char name[16];
  uint64_t inc;
  int owner;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (nice(5) < 0) errno = 0; /* the driver must get its turn beside hundreds */
  dice = seed | 1;
  ledger_open(me, life);
  CHECK_INT(cfn_bus_open(NULL, t_bus_name(), NULL, 0, &bus, NULL), 0);
  snprintf(name, sizeof name, "a%d", me);
  CHECK_INT(cfn_bus_act_as(bus, name, NULL, CFN_ACT_OWN, &inc, &owner), 0);
  CHECK(owner); /* the life before this one is dead, and nobody else has the name */
  CHECK_INT(cfn_bus_claim_inbox(bus, 0), 0);
  for (int i = 0; i < agents; i++) {
    snprintf(name, sizeof name, "a%d", i);
    CHECK_INT(cfn_bus_find(bus, name, &peer[i]), 0);
  }
  bool slow = me % 7 == 3; /* its inbox runs full */
  while (atomic_load(&shared->phase) == RUN) {
    atomic_fetch_add(&shared->agent[me].turns, 1);
    int turns = 1 + (int)roll(6);
    for (int i = 0; i < turns; i++) send_some();
    for (bool more = !slow || roll(5) == 0; more;) {
      more = receive_some(roll(8) ? 0 : 0.02);
      ack_some((uint32_t)roll(PENDING - 1) & (uint32_t)roll(PENDING - 1));
    }
    if (roll(500) == 0) pass_by();
    if (slow) cfn_os_yield();
  }
  atomic_fetch_add(&shared->quiet, 1);
  while (receive_some(0.05) || atomic_load(&shared->phase) != DRAIN) ack_some(0);
  ack_some(0);
  CHECK(!receive_some(0));
  CHECK_INT(ftruncate(book.fd, (off_t)((book.base + book.at) * 8)), 0);
  t_close(bus);
  _exit(0);
}

/* ---- the driver ---- */

static pid_t pid_of[MOST_AGENTS];
static int life_of[MOST_AGENTS];
static uint64_t awake_at[MOST_AGENTS]; /* it is stopped until then, or 0 */

static void birth(int i, uint64_t seed) {
  if (++life_of[i] >= MOST_LIVES) {
    fprintf(stderr, "tool_soak: too many lives for the ledger's words\n");
    exit(1);
  }
  pid_of[i] = t_fork();
  if (pid_of[i] == 0) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    me = i;
    life = life_of[i];
    agent(seed ^ (uint64_t)i << 40 ^ (uint64_t)life << 20);
  }
}

static uint64_t total(size_t offset) {
  uint64_t n = 0;
  for (int i = 0; i < agents; i++) n += *(_Atomic uint64_t *)(void *)((uint8_t *)&shared->agent[i] + offset);
  return n;
}
#define SENT_SO_FAR total(offsetof(__typeof__(shared->agent[0]), sent))
#define GOT_SO_FAR total(offsetof(__typeof__(shared->agent[0]), got))

static void wake(int i) {
  if (awake_at[i]) kill(pid_of[i], SIGCONT);
  awake_at[i] = 0;
}

/* Waits until `condition`; when for a minute nothing moves, says on what everybody waits, and fails. */
static void until(const char *what, int (*condition)(void)) {
  uint64_t before = 0;
  double since = t_now();
  while (!condition()) {
    uint64_t now = SENT_SO_FAR + GOT_SO_FAR;
    if (now != before) since = t_now();
    before = now;
    if (t_now() - since > 60) {
      fprintf(stderr, "tool_soak: WEDGED: for 60 s nothing moved, waiting until %s\n", what);
      abort();
    }
    nanosleep(&(struct timespec){0, 2000000}, NULL);
  }
}
static int all_quiet(void) { return atomic_load(&shared->quiet) >= agents; }
static int ended;
static int all_ended(void) {
  int status;
  pid_t p;
  while ((p = waitpid(-1, &status, WNOHANG)) > 0) {
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
      fprintf(stderr, "tool_soak: process %d ended with status %#x\n", (int)p, (unsigned)status);
      t_destroy();
      exit(1);
    }
    ended++;
  }
  return ended == agents;
}

/* Names of those who died while passing by stay registered: their inboxes would wait for successors for ever. */
static void forget_passers(cfn_bus_t *watcher) {
  static cfn_address_t all[MOST_AGENTS + 64];
  int n = cfn_bus_agents(watcher, all, MOST_AGENTS + 64);
  for (int i = 0; i < n; i++) {
    cfn_agent_info_t info;
    uint64_t dropped;
    if (cfn_bus_agent_info(watcher, &all[i], &info) != CFN_OK || info.name[0] == 'a') continue;
    int passing, born;
    CHECK_INT(sscanf(info.name, "passing-%d-%d", &passing, &born), 2);
    if (born == life_of[passing]) continue; /* of a life that goes on */
    int r = cfn_bus_unregister(watcher, info.name, 0, &dropped);
    CHECK(r == CFN_OK || r == CFN_STALE || r == CFN_UNKNOWN_AGENT);
  }
}

static int check(void);
static int run(double minutes, uint64_t messages, double stops, double kills, uint64_t seed) {
  if (mkdir(folder, 0700) != 0) {
    fprintf(stderr, "tool_soak: cannot make %s: %s\n", folder, strerror(errno));
    return 2;
  }
  dice = seed | 1;
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  cfn_wish_t wish = {.agents = (uint32_t)agents + 40, .size_bytes = UINT64_C(48) << 20, .lane_slots = {16, 32, 128, 32}};
  cfn_bus_t *watcher = t_open(NULL, &wish);
  for (int i = 0; i < agents; i++) {
    char name[16];
    cfn_address_t at;
    int created;
    snprintf(name, sizeof name, "a%d", i);
    CHECK_INT(cfn_bus_register(watcher, name, NULL, &at, &created), 0);
  }
  printf("soak: %d agents, seed %llu, %g stops and %g kills a second, pid %d\n", agents, (unsigned long long)seed, stops,
         kills, (int)getpid());
  fflush(stdout);
  for (int i = 0; i < agents; i++) birth(i, seed);
  double start = t_now(), last = start, next_stop = start, next_kill = start + 0.5, shown = start;
  uint64_t stopped = 0, killed = 0, killed_asleep = 0, crashed = 0;
  while (t_now() - start < minutes * 60 && (!messages || SENT_SO_FAR < messages)) {
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    double now = t_now();
    uint64_t ns = cfn_os_monotonic_ns();
    for (int i = 0; i < agents; i++)
      if (awake_at[i] && awake_at[i] <= ns) wake(i);
    for (; stops > 0 && next_stop < now; next_stop += 1 / stops) {
      int i = (int)roll((uint64_t)agents);
      if (awake_at[i]) continue;
      kill(pid_of[i], SIGSTOP);
      awake_at[i] = ns + roll(roll(20) ? 30000000 : 1500000000); /* seldom for long */
      stopped++;
    }
    for (; kills > 0 && next_kill < now; next_kill += 1 / kills) {
      int i = (int)roll((uint64_t)agents);
      killed_asleep += awake_at[i] != 0;
      awake_at[i] = 0;
      t_kill(pid_of[i], false);
      killed++;
      birth(i, seed);
    }
    int status;
    pid_t p = waitpid(-1, &status, WNOHANG);
    if (p > 0) {
      fprintf(stderr, "tool_soak: process %d ended by itself with status %#x\n", (int)p, (unsigned)status);
      crashed++;
      break;
    }
    if (now - shown > 10) {
      printf("  %5.0f s  %11llu sent  %11llu got  %8llu stops  %6llu kills  %.0f/s\n", now - start,
             (unsigned long long)SENT_SO_FAR, (unsigned long long)GOT_SO_FAR, (unsigned long long)stopped,
             (unsigned long long)killed, (double)SENT_SO_FAR / (now - start));
      fflush(stdout);
      shown = now;
    }
    if (now - last > 1) { /* what the driver of a swarm does */
      CHECK(cfn_bus_reap(watcher) >= 0);
      forget_passers(watcher);
      last = now;
    }
  }
  double took = t_now() - start;
  for (int i = 0; i < agents; i++) wake(i);
  atomic_store(&shared->phase, QUIET);
  if (!crashed) {
    until("everybody has stopped sending", all_quiet);
    atomic_store(&shared->phase, DRAIN);
    until("everybody has drained its inbox and left", all_ended);
  }
  CHECK_INT(crashed, 0);
  printf("  %.0f s: %llu messages sent in %.0f s (%.0f/s) under %llu SIGSTOPs and %llu SIGKILLs (%llu while stopped)\n", took,
         (unsigned long long)SENT_SO_FAR, took, (double)SENT_SO_FAR / took, (unsigned long long)stopped,
         (unsigned long long)killed, (unsigned long long)killed_asleep);
  /* Nobody is left: nothing is held, every agent's inbox is whole and empty. */
  CHECK(cfn_bus_reap(watcher) >= 0);
  for (int i = 0; i < agents; i++) life_of[i]++;
  forget_passers(watcher);
  static cfn_address_t all[MOST_AGENTS + 64];
  CHECK_INT(cfn_bus_agents(watcher, all, MOST_AGENTS), agents);
  for (int i = 0; i < agents; i++) {
    cfn_agent_info_t of;
    CHECK_INT(cfn_bus_agent_info(watcher, &all[i], &of), 0);
    for (unsigned lane = 0; lane < CFN_LANES; lane++) CHECK_INT(of.depth[lane], 0);
  }
  cfn_bus_info_t info;
  CHECK_INT(cfn_bus_info(watcher, &info), 0);
  CHECK_INT(info.attached, 1);
  CHECK_INT(info.dead, 0);
  CHECK_INT(info.corrupt_dropped, 0);
  t_check_region(watcher, true);
  t_check_nothing_held(watcher);
  uint64_t total_free = 0, total_chunks = 0;
  for (unsigned c = 0; c < CFN_CLASSES; c++) {
    total_free += info.free_chunks[c];
    total_chunks += info.config.class_chunks[c];
  }
  CHECK_INT(total_free, total_chunks); /* also those who look for a chunk find every one */
  t_close(watcher);
  t_destroy();
  printf("  leaked: 0 chunks of %llu, 0 slots, 0 names; wedged: 0\n", (unsigned long long)total_chunks);
  fflush(stdout);
  return check();
}

/* ---- reading the ledgers ---- */

enum { F_ABOUT = 1, F_SENT = 2, F_FAILED = 4, F_GOT = 8, F_AGAIN = 16, F_ACKED = 32, F_ACKING = 64 };
typedef struct book_of_life {
  uint64_t *word;
  uint64_t words, numbers; /* how many messages it was about to send */
  uint8_t *flags;          /* of each */
} life_book_t;
static life_book_t *lives[MOST_AGENTS];
static int live_count[MOST_AGENTS];
static uint64_t complaints;

static void complain(uint64_t m, const char *what) {
  if (complaints++ < 20)
    fprintf(stderr, "  message %llu of agent %u, life %u, lane %u: %s\n", (unsigned long long)ID_NUMBER(m), ID_AGENT(m),
            ID_LIFE(m), ID_LANE(m), what);
}

static int read_ledgers(void) {
  DIR *dir = opendir(folder);
  if (!dir) {
    fprintf(stderr, "tool_soak: cannot read %s: %s\n", folder, strerror(errno));
    return 2;
  }
  for (struct dirent *entry; (entry = readdir(dir));) {
    int a, l;
    if (sscanf(entry->d_name, "%d.%d", &a, &l) != 2 || a < 0 || a >= MOST_AGENTS || l < 1 || l >= MOST_LIVES) continue;
    if (!lives[a]) lives[a] = calloc(MOST_LIVES, sizeof **lives);
    CHECK(lives[a]);
    int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    life_book_t *b = &lives[a][l];
    b->words = (uint64_t)st.st_size / 8;
    if (b->words) {
      b->word = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
      CHECK(b->word != MAP_FAILED);
    }
    close(fd);
    if (l > live_count[a]) live_count[a] = l;
  }
  closedir(dir);
  return 0;
}

/* What each life was about to send, sent, and failed to send. */
static void read_senders(void) {
  for (int a = 0; a < MOST_AGENTS; a++)
    for (int l = 1; l <= live_count[a]; l++) {
      life_book_t *b = &lives[a][l];
      for (uint64_t i = 0; i < b->words; i++)
        if (WORD_KIND(b->word[i]) == ABOUT_TO_SEND) b->numbers = ID_NUMBER(b->word[i]);
      b->flags = calloc(b->numbers + 1, 1);
      CHECK(b->flags);
      uint64_t done = 0;
      for (uint64_t i = 0; i < b->words; i++) {
        unsigned kind = WORD_KIND(b->word[i]);
        if (kind != SENT && kind != FAILED) continue;
        for (; done < ID_NUMBER(b->word[i]); done++) b->flags[done + 1] |= kind == SENT ? F_SENT : F_FAILED;
      }
    }
}

static uint8_t *flags_of(uint64_t m) {
  unsigned a = ID_AGENT(m), l = ID_LIFE(m);
  if (a >= MOST_AGENTS || (int)l > live_count[a] || ID_NUMBER(m) == 0 || ID_NUMBER(m) > lives[a][l].numbers) {
    complain(m, "was got and nobody ever sent it");
    return NULL;
  }
  return &lives[a][l].flags[ID_NUMBER(m)];
}

/* The last number got, for each {agent, life, lane}: looked up in a small hash table. */
typedef struct last {
  uint64_t key, number;
} last_t;
typedef struct lasts {
  last_t *slot;
  uint64_t size, used;
} lasts_t;
static uint64_t *last_of(lasts_t *t, uint64_t key) {
  if (2 * t->used >= t->size) {
    lasts_t bigger = {calloc(t->size ? 4 * t->size : 1024, sizeof(last_t)), t->size ? 4 * t->size : 1024, 0};
    CHECK(bigger.slot);
    for (uint64_t i = 0; i < t->size; i++)
      if (t->slot[i].key) *last_of(&bigger, t->slot[i].key) = t->slot[i].number;
    free(t->slot);
    *t = bigger;
  }
  uint64_t i = key * UINT64_C(0x9E3779B97F4A7C15) >> 20;
  while (t->slot[i & (t->size - 1)].key && t->slot[i & (t->size - 1)].key != key) i++;
  last_t *found = &t->slot[i & (t->size - 1)];
  if (!found->key) {
    found->key = key;
    t->used++;
  }
  return &found->number;
}

static uint64_t got, again, acked;
static void read_receiver(int a) {
  lasts_t first = {0};
  for (int l = 1; l <= live_count[a]; l++) {
    life_book_t *b = &lives[a][l];
    lasts_t here = {0};
    for (uint64_t i = 0; i < b->words; i++) {
      uint64_t m = WORD_MESSAGE(b->word[i]), key = (m >> 34) + 1;
      unsigned kind = WORD_KIND(b->word[i]);
      if (kind < GOT) continue;
      uint8_t *f = flags_of(m);
      if (!f) continue;
      if (kind == GOT || kind == GOT_AGAIN) {
        if (*f & F_ACKED) complain(m, "came again after its ack");
        if (kind == GOT && *f & F_GOT) complain(m, "came twice without a mark");
        if (kind == GOT_AGAIN && l == 1) complain(m, "is marked redelivered, and its reader is the first");
        uint64_t *last = last_of(&here, key);
        if (ID_NUMBER(m) <= *last) complain(m, "is out of order in this life of its reader, or came twice to it");
        *last = ID_NUMBER(m);
        last = last_of(&first, key);
        if (kind == GOT && ID_NUMBER(m) <= *last) complain(m, "is out of order over the lives of its reader");
        if (ID_NUMBER(m) > *last) *last = ID_NUMBER(m);
        *f |= F_GOT;
        if (kind == GOT_AGAIN) *f |= F_AGAIN, again++;
        else got++;
      } else if (kind == ACKED) {
        *f |= F_ACKED;
        acked++;
      } else {
        *f |= F_ACKING;
      }
    }
    free(here.slot);
  }
  free(first.slot);
}

static int check(void) {
  int r = read_ledgers();
  if (r) return r;
  read_senders();
  for (int a = 0; a < MOST_AGENTS; a++) read_receiver(a);
  uint64_t sent = 0, failed = 0, unknown = 0, unknown_got = 0, lost = 0;
  for (uint64_t a = 0; a < MOST_AGENTS; a++)
    for (int l = 1; l <= live_count[a]; l++)
      for (uint64_t n = 1; n <= lives[a][l].numbers; n++) {
        uint8_t f = lives[a][l].flags[n];
        uint64_t m = message_id(0, a, (uint64_t)l, n);
        sent += (f & F_SENT) != 0;
        failed += (f & F_FAILED) != 0;
        if (f & F_SENT && !(f & F_GOT)) complain(m, "was sent and never got: LOST"), lost++;
        if (f & F_FAILED && f & F_GOT) complain(m, "was got and its sender was told that it failed");
        if (!(f & (F_SENT | F_FAILED))) unknown++, unknown_got += (f & F_GOT) != 0;
        if (f & F_GOT && !(f & (F_ACKED | F_ACKING))) complain(m, "was got and nobody ever acked it");
      }
  printf("ledgers: %llu told sent, %llu told not sent, %llu whose sender died over them (%llu of them arrived);\n"
         "         %llu first got without a mark, %llu got marked redelivered, %llu told acked\n"
         "lost %llu, all complaints %llu\n",
         (unsigned long long)sent, (unsigned long long)failed, (unsigned long long)unknown,
         (unsigned long long)unknown_got, (unsigned long long)got, (unsigned long long)again, (unsigned long long)acked,
         (unsigned long long)lost, (unsigned long long)complaints);
  if (complaints == 0) printf("exactly once, in order, nothing lost\n");
  return complaints ? 1 : 0;
}

int main(int argc, char **argv) {
  double minutes = 1, stops = 150, kills = 15;
  uint64_t messages = 0, seed = cfn_os_random() >> 32;
  t_guard(0);
  if (argc == 3 && !strcmp(argv[1], "check")) {
    folder = argv[2];
    return check();
  }
  for (int i = 2; i + 1 < argc; i += 2) {
    const char *v = argv[i + 1];
    if (!strcmp(argv[i], "--agents")) agents = atoi(v);
    else if (!strcmp(argv[i], "--minutes")) minutes = atof(v);
    else if (!strcmp(argv[i], "--messages")) messages = strtoull(v, NULL, 10);
    else if (!strcmp(argv[i], "--stops")) stops = atof(v);
    else if (!strcmp(argv[i], "--kills")) kills = atof(v);
    else if (!strcmp(argv[i], "--seed")) seed = strtoull(v, NULL, 10);
    else if (!strcmp(argv[i], "--dir")) folder = v;
    else folder = NULL, i = argc;
  }
  if (argc < 2 || strcmp(argv[1], "run") || !folder || agents < 2 || agents > MOST_AGENTS) {
    fprintf(stderr, "usage: %s run [--agents N] [--minutes M] [--messages N] [--stops S] [--kills K] [--seed N] --dir LEDGERS\n"
                    "       %s check LEDGERS\n", argv[0], argv[0]);
    return 2;
  }
  return run(messages ? 1e9 : minutes, messages, stops, kills, seed);
}
