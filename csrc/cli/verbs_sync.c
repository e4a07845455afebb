/* Locks, elections, semaphores and barriers. What is held is held by this process, while a command runs under it. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/verbs.h"

/* A process that holds or waits is the agent's own while nobody else is: `cfnshm list` says what it waits for. */
#define STAYS (CFN_CREATE_BUS | CFN_CREATE_AGENT | CFN_OWN_AGENT)

/* ---- a command under what is held ---- */

typedef struct running {
  cfn_bus_t *bus;
  const cfn_held_t *held; /* NULL: a permit, which nobody takes away */
  const char *name;
  uint64_t token;
  pid_t child;
  cfn_a32 over;
} running_t;

/* Tells the command when what it runs under was taken away. */
static void *watch(void *argument) {
  running_t *run = argument;
  while (!cfn_load_seq(&run->over)) {
    cfn_holder_t now;
    int r = cfn_bus_lease_wait(run->bus, (int)run->held->kind, run->name, (uint32_t)strlen(run->name), run->token,
                               CFN_FOREVER, &now);
    if (r == CFN_INTERRUPTED) continue;
    if (cfn_load_seq(&run->over)) break;
    if (cfn_bus_lease_check(run->bus, run->held) == CFN_OK) {
      if (r < 0 && r != CFN_AGAIN) break; /* nothing can be told any more, but that it is held */
      continue;
    }
    kill(run->child, SIGTERM); /* its number is its own until we have joined this thread */
    break;
  }
  return NULL;
}

/* What ends the command, and us only with it. */
static const int passed_on[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};

static struct sigaction child_before;

static void catch_signals(sigset_t *caught, sigset_t *before) {
  struct sigaction usual = {.sa_handler = SIG_DFL};
  sigaction(SIGCHLD, &usual, &child_before); /* ignored by who started us, its end would not be told */
  sigemptyset(caught);
  sigaddset(caught, SIGCHLD);
  for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++) sigaddset(caught, passed_on[i]);
  pthread_sigmask(SIG_BLOCK, caught, before);
}

/* A signal that the terminal sends has reached the command, too; others are passed on. */
static void until_it_ends(pid_t child, const sigset_t *caught) {
  for (;;) {
    siginfo_t info = {0};
    int r = waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT);
    if (r == 0 ? info.si_pid == child : errno != EINTR) return;
    if (sigwaitinfo(caught, &info) > 0 && info.si_signo != SIGCHLD && info.si_code <= 0) kill(child, info.si_signo);
  }
}

static pid_t start(char **command, const char *variable, const char *name, uint64_t token, const cfn_holder_t *died,
                   const sigset_t *before) {
  char text[CFN_NAME_BYTES + 32];
  pid_t parent = getpid(), child = fork();
  if (child != 0) return child;
  /* It dies with us, a moment after what it runs under is free again: the token tells it from its successor. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  setenv(variable, name, 1);
  snprintf(text, sizeof text, "%" PRIu64, token);
  setenv("CFNSHM_TOKEN", text, 1);
  unsetenv("CFNSHM_OWNER_DIED");
  if (died && died->token) {
    snprintf(text, sizeof text, "%s:%" PRIu64, died->agent, died->pid);
    setenv("CFNSHM_OWNER_DIED", text, 1);
  }
  sigaction(SIGCHLD, &child_before, NULL);
  pthread_sigmask(SIG_SETMASK, before, NULL);
  execvp(command[0], command);
  fprintf(stderr, "cfnshm: cannot run %s: %s\n", command[0], strerror(errno));
  _exit(errno == ENOENT ? 127 : 126);
}

/* Runs the command; its exit status, or a code below 0. */
static int run_under(running_t *run, char **command, const char *variable, const cfn_holder_t *died, sigset_t *caught,
                     sigset_t *before) {
  fflush(stdout);
  run->child = start(command, variable, run->name, run->token, died, before);
  if (run->child < 0) return cfn_fail_os("cannot start %s", command[0]);
  pthread_t watcher;
  bool watched = run->held && pthread_create(&watcher, NULL, watch, run) == 0;
  until_it_ends(run->child, caught);
  cfn_store_seq(&run->over, 1);
  int r = run->held ? cfn_bus_lease_give_back(run->bus, run->held)
                    : cfn_bus_semaphore_give_back(run->bus, run->name, (uint32_t)strlen(run->name), run->token);
  if (watched) pthread_join(watcher, NULL);
  int status;
  bool told = waitpid(run->child, &status, 0) == run->child;
  if (r == CFN_LEASE_LOST) return r;
  if (!told) return cfn_fail_os("cannot tell how %s ended", command[0]);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- showing ---- */

static const char *const lives[] = {"none", "alive", "stopped", "dead"};

static void show_holder(const cfn_cli_t *cli, const cfn_holder_t *h) {
  if (!cli->json) {
    cfn_print_plain(stdout, h->name, strlen(h->name), 32);
    printf(" %-20s %8" PRIu64 " %-8s %" PRIu64 "\n", h->agent[0] ? h->agent : "-", h->pid, lives[h->life & 3], h->token);
    return;
  }
  printf("{\"name\":");
  cfn_json_string(stdout, h->name, strlen(h->name));
  printf(",\"agent\":");
  cfn_json_string(stdout, h->agent, strlen(h->agent));
  printf(",\"pid\":%" PRIu64 ",\"state\":\"%s\",\"token\":%" PRIu64 ",\"since\":", h->pid, lives[h->life & 3], h->token);
  cfn_json_time(stdout, h->since_wall_ns);
  printf("}\n");
}

static void show_head(const cfn_cli_t *cli) {
  if (!cli->json) printf("%-32s %-20s %8s %-8s %s\n", "NAME", "AGENT", "PID", "STATE", "TOKEN");
}

static int list(const cfn_cli_t *cli, cfn_bus_t *bus, int kind) {
  uint64_t most = 256;
  cfn_holder_t *all = NULL;
  int64_t n;
  for (;;) {
    free(all);
    all = calloc(most, sizeof *all);
    n = all ? cfn_bus_lease_list(bus, kind, all, most) : cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a list");
    if (n < 0 || (uint64_t)n <= most) break;
    most = (uint64_t)n + 16;
  }
  if (n > 0) show_head(cli);
  for (int64_t i = 0; i < n; i++) show_holder(cli, &all[i]);
  free(all);
  return n < 0 ? (int)n : CFN_OK;
}

static int show_one(const cfn_cli_t *cli, cfn_bus_t *bus, int kind, const char *name) {
  cfn_holder_t h;
  int r = cfn_bus_lease_holder(bus, kind, name, (uint32_t)strlen(name), &h);
  if (r < 0) return r;
  if (!h.token) return cfn_fail(CFN_EMPTY, 0, 0, "nobody holds '%s'", name);
  show_head(cli);
  show_holder(cli, &h);
  return CFN_OK;
}

/* ---- lock, elect ---- */

/* A command that runs under it would wait for its own parent, for ever. */
static int held_above(cfn_bus_t *bus, int kind, const char *name) {
  const char *token = getenv("CFNSHM_TOKEN");
  cfn_holder_t now;
  int r = token ? cfn_bus_lease_holder(bus, kind, name, (uint32_t)strlen(name), &now) : CFN_OK;
  if (r < 0 || !token || now.token == 0 || now.token != strtoull(token, NULL, 10)) return r;
  return cfn_fail(CFN_DEADLOCK, (int64_t)now.pid, 0, "this command runs under '%s' already (CFNSHM_TOKEN %s, process %" PRIu64
                  "); it cannot be taken twice", name, token, now.pid);
}

static int hold_and_run(const cfn_cli_t *cli, cfn_bus_t *bus, int kind, int *status) {
  const char *name = cli->argv[0];
  cfn_held_t held;
  cfn_holder_t died = {0};
  uint64_t deadline = cfn_cli_deadline(cli, -1);
  int r = held_above(bus, kind, name);
  if (r < 0) return r;
  do {
    r = cfn_bus_lease_take(bus, kind, name, (uint32_t)strlen(name), cli->steal ? CFN_LEASE_STEAL : 0, deadline, &held,
                           cli->intact ? NULL : &died);
  } while (r == CFN_INTERRUPTED);
  if (r < 0) return r;
  if (died.token)
    fprintf(stderr, "cfnshm %s: the last holder of '%s' (%s%sprocess %" PRIu64 ") died holding it; what it protects may be half "
            "done\n", cli->verb, name, died.agent, died.agent[0] ? ", " : "", died.pid);
  sigset_t caught, before;
  catch_signals(&caught, &before); /* from here on they are the command's; while we waited they were ours */
  running_t run = {.bus = bus, .held = &held, .name = name, .token = held.token};
  r = run_under(&run, cli->argv + 1, kind == CFN_LEASE_LEADER ? "CFNSHM_LEADS" : "CFNSHM_LOCK", &died, &caught, &before);
  if (r >= 0) *status = r;
  return r < 0 ? r : CFN_OK;
}

static int lease_verb(cfn_cli_t *cli, int kind) {
  cfn_bus_t *bus;
  int status = 0;
  int r = cfn_cli_open(cli, STAYS, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  if (cli->argc == 0) r = list(cli, bus, kind);
  else if (cli->argc == 1) r = show_one(cli, bus, kind, cli->argv[0]);
  else r = hold_and_run(cli, bus, kind, &status);
  const cfn_failure_t why = *cfn_last_failure();
  cfn_bus_free(bus);
  if (r < 0) cfn_fail(r, why.have, why.want, "%s", why.text);
  return r < 0 ? cfn_cli_fail(cli, r) : status;
}
int cfn_verb_lock(cfn_cli_t *cli) { return lease_verb(cli, CFN_LEASE_LOCK); }
int cfn_verb_elect(cfn_cli_t *cli) { return lease_verb(cli, CFN_LEASE_LEADER); }

/* ---- semaphore ---- */

static bool number(const char *text, uint32_t *out) {
  char *end;
  errno = 0;
  unsigned long n = strtoul(text, &end, 10);
  *out = (uint32_t)n;
  return *text >= '0' && *text <= '9' && *end == 0 && errno == 0 && n > 0 && n < 65536;
}

static int show_permits(const cfn_cli_t *cli, cfn_bus_t *bus, const char *name) {
  uint32_t permits;
  uint64_t most = 65536;
  cfn_holder_t *all = calloc(most, sizeof *all);
  int64_t n = all ? cfn_bus_semaphore_holders(bus, name, (uint32_t)strlen(name), &permits, all, most)
                  : cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a list");
  if (n == 0) n = cfn_fail(CFN_EMPTY, 0, 0, "nobody holds a permit of '%s'", name);
  if (n > 0) show_head(cli);
  for (int64_t i = 0; i < n; i++) show_holder(cli, &all[i]);
  free(all);
  return n < 0 ? (int)n : CFN_OK;
}

static int take_and_run(const cfn_cli_t *cli, cfn_bus_t *bus, uint32_t permits, int *status) {
  const char *name = cli->argv[0];
  uint64_t token, deadline = cfn_cli_deadline(cli, -1);
  int r;
  do {
    r = cfn_bus_semaphore_take(bus, name, (uint32_t)strlen(name), permits, deadline, &token);
  } while (r == CFN_INTERRUPTED);
  if (r < 0) return r;
  sigset_t caught, before;
  catch_signals(&caught, &before);
  running_t run = {.bus = bus, .name = name, .token = token};
  r = run_under(&run, cli->argv + 2, "CFNSHM_SEMAPHORE", NULL, &caught, &before);
  if (r >= 0) *status = r;
  return r < 0 ? r : CFN_OK;
}

int cfn_verb_semaphore(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "which? cfnshm semaphore NAME PERMITS -- COMMAND");
  uint32_t permits = 0;
  if (cli->argc > 1 && !number(cli->argv[1], &permits)) return cfn_cli_usage(cli, "how many permits? 1 to 65535");
  if (cli->argc == 2) return cfn_cli_usage(cli, "which command? It stands behind --");
  cfn_bus_t *bus;
  int status = 0;
  int r = cfn_cli_open(cli, STAYS, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  r = cli->argc == 1 ? show_permits(cli, bus, cli->argv[0]) : take_and_run(cli, bus, permits, &status);
  const cfn_failure_t why = *cfn_last_failure();
  cfn_bus_free(bus);
  if (r < 0) cfn_fail(r, why.have, why.want, "%s", why.text);
  return r < 0 ? cfn_cli_fail(cli, r) : status;
}

/* ---- barrier ---- */

static int show_barrier(const cfn_cli_t *cli, cfn_bus_t *bus, const char *name, uint32_t bytes) {
  cfn_barrier_info_t info = {.known = 64};
  cfn_party_t *parties = NULL;
  int r;
  uint32_t room;
  do { /* as many as there are by now */
    room = info.known + 16;
    free(parties);
    parties = calloc(room, sizeof *parties);
    r = parties ? cfn_bus_barrier_look(bus, name, bytes, &info, parties, room) : cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory");
  } while (r == CFN_OK && info.known > room);
  if (r == CFN_OK && cli->json) {
    printf("{\"round\":%" PRIu64 ",\"parties\":%u,\"arrived\":%u,\"broken\":%s,\"known\":[", info.round, info.parties,
           info.arrived, info.broken ? "true" : "false");
    for (uint32_t i = 0; i < info.known; i++) {
      printf("%s{\"agent\":", i ? "," : "");
      cfn_json_string(stdout, parties[i].agent, strlen(parties[i].agent));
      printf(",\"pid\":%" PRIu64 ",\"arrived\":%s,\"state\":\"%s\"}", parties[i].pid, parties[i].arrived ? "true" : "false",
             lives[parties[i].life & 3]);
    }
    printf("]}\n");
  } else if (r == CFN_OK) {
    printf("round %" PRIu64 ": %u of %u are here%s\n", info.round, info.arrived, info.parties, info.broken ? "; broken" : "");
    for (uint32_t i = 0; i < info.known; i++)
      printf("  %-24s %8" PRIu64 " %-8s %s\n", parties[i].agent[0] ? parties[i].agent : "-", parties[i].pid,
             lives[parties[i].life & 3], parties[i].arrived ? "here" : "missing");
  }
  free(parties);
  return r;
}

static int wait_at(const cfn_cli_t *cli, cfn_bus_t *bus, const char *name, uint32_t bytes, uint32_t parties) {
  cfn_arrival_t arrival = {0};
  uint64_t deadline = cfn_cli_deadline(cli, -1);
  int r;
  do {
    r = cfn_bus_barrier_wait(bus, name, bytes, parties, cli->go_on ? CFN_BARRIER_GO_ON : 0, NULL, 0, deadline, &arrival);
  } while (r == CFN_INTERRUPTED);
  if (r < 0) return r;
  if (cli->json) printf("{\"place\":%u}\n", arrival.index);
  else printf("%u\n", arrival.index);
  return CFN_OK;
}

int cfn_verb_barrier(cfn_cli_t *cli) {
  static const struct {
    const char *word;
    int (*run)(cfn_bus_t *, const char *, uint32_t);
  } changes[] = {{"reset", cfn_bus_barrier_reset}, {"abort", cfn_bus_barrier_break}, {"delete", cfn_bus_barrier_delete}};
  if (cli->argc < 1) return cfn_cli_usage(cli, "which? cfnshm barrier NAME PARTIES");
  int (*change)(cfn_bus_t *, const char *, uint32_t) = NULL;
  uint32_t parties = 0, bytes = (uint32_t)strlen(cli->argv[0]);
  for (size_t i = 0; cli->argc > 1 && i < sizeof changes / sizeof changes[0]; i++)
    if (strcmp(cli->argv[1], changes[i].word) == 0) change = changes[i].run;
  if (cli->argc > 1 && !change && !number(cli->argv[1], &parties))
    return cfn_cli_usage(cli, "how many parties? 1 to 65535; or: reset, abort, delete");
  cfn_bus_t *bus;
  int r = cfn_cli_open(cli, STAYS, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  if (cli->argc == 1) r = show_barrier(cli, bus, cli->argv[0], bytes);
  else r = change ? change(bus, cli->argv[0], bytes) : wait_at(cli, bus, cli->argv[0], bytes, parties);
  const cfn_failure_t why = *cfn_last_failure();
  cfn_bus_free(bus);
  if (r < 0) cfn_fail(r, why.have, why.want, "%s", why.text);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}
