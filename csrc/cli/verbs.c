/* The table of the verbs, and their help texts. */
#include "cli/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"

int cfn_cli_open_as_nobody(const cfn_cli_t *cli, int need, cfn_bus_t **bus) {
  cfn_cli_t nobody = *cli;
  nobody.agent = NULL;
  return cfn_cli_open(&nobody, need, bus);
}

int cfn_cli_open(const cfn_cli_t *cli, int need, cfn_bus_t **bus) {
  cfn_wish_t wish = need & CFN_CREATE_BUS ? cli->wish : (cfn_wish_t){0};
  if (need & CFN_CREATE_BUS) {
    wish.size_bytes = cli->size;
    wish.agents = (uint32_t)cli->agents;
  }
  int r = cfn_bus_open(cli->dir, cli->bus, &wish, need & CFN_CREATE_BUS ? CFN_OPEN_CREATE : 0, bus, NULL);
  if (r < 0) return r;
  if (!cli->agent) {
    if (need & CFN_NEED_AGENT)
      r = cfn_fail(CFN_INVALID, 0, 0, "say who you are: --as NAME or CFNSHM_AGENT");
  } else {
    cfn_address_t at;
    uint64_t inc;
    int owner;
    if (!(need & CFN_CREATE_AGENT)) r = cfn_bus_find(*bus, cli->agent, &at);
    if (r == CFN_OK) r = cfn_bus_act_as(*bus, cli->agent, NULL, need & CFN_OWN_AGENT ? CFN_ACT_OWN : 0, &inc, &owner);
  }
  if (r < 0) cfn_bus_free(*bus);
  return r;
}

/* ---- payloads ---- */

#define STDIN_MOST (UINT64_C(1) << 31)

int cfn_cli_read_body(const cfn_cli_t *cli, int argument, uint8_t **body, uint32_t *bytes) {
  if (cli->argc > argument && strcmp(cli->argv[argument], "-") != 0) {
    *bytes = (uint32_t)strlen(cli->argv[argument]);
    *body = (uint8_t *)strdup(cli->argv[argument]);
    return *body ? CFN_OK : cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for what is sent");
  }
  size_t used = 0, room = 1u << 16;
  *body = malloc(room);
  while (*body) {
    ssize_t n = read(0, *body + used, room - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cfn_fail_os("cannot read the message from standard input");
    if (n == 0) break;
    used += (size_t)n;
    if (used > STDIN_MOST)
      return cfn_fail(CFN_TOO_LARGE, STDIN_MOST, (int64_t)used, "standard input gives more than 2 GiB");
    if (used == room) *body = realloc(*body, room *= 2);
  }
  if (!*body) return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for what is sent");
  *bytes = (uint32_t)used;
  return CFN_OK;
}

uint8_t cfn_cli_codec(const cfn_cli_t *cli, const uint8_t *body, size_t bytes) {
  if (cli->as_json) return CFN_CODEC_JSON;
  return cli->as_raw || !cfn_json_is_text(body, bytes) ? CFN_CODEC_RAW : CFN_CODEC_TEXT;
}

int cfn_cli_check_json(const cfn_cli_t *cli, const uint8_t *body, uint32_t bytes) {
  if (!cli->as_json || cfn_json_valid(body, bytes)) return CFN_OK;
  return cfn_fail(CFN_INVALID, 0, bytes, "--body-json: the body is not one JSON value");
}

/* ---- help ---- */

static const char general_help[] =
    "usage: cfnshm VERB [ARGUMENTS] [OPTIONS]\n"
    "\n"
    "Messages between the processes of one machine, through shared memory.\n"
    "\n"
    "  register NAME        make an agent (and the bus, if missing)\n"
    "  unregister NAME      remove it\n"
    "  send TO [BODY]       put a message into TO's inbox; BODY from standard input if '-' or missing\n"
    "  recv                 take the next message of my inbox and print it\n"
    "  ack MSG_ID...        ack messages that were received with --hold\n"
    "  request TO [BODY]    send, and print the answer\n"
    "  reply TOKEN [BODY]   answer a message (its reply_to)\n"
    "  broadcast [BODY]     send to everybody but me\n"
    "  put [FILE]           store a file (or standard input) once, and print its name: sha256:...\n"
    "  get REF              print what was stored under it\n"
    "  delete REF...        take the name away\n"
    "  state ...            named values that all share: get set delete incr list wait\n"
    "  lock NAME -- CMD     run a command while nobody else holds the lock; lock: who holds which\n"
    "  elect NAME -- CMD    run it while this process leads; elect: who leads\n"
    "  semaphore NAME N -- CMD   run it while at most N hold a permit\n"
    "  barrier NAME N       wait until N are there\n"
    "  pause, resume, inject, stop AGENT   direct an agent (--team T: a team); control: what is asked of me\n"
    "  teams                the teams of the bus: who is in them, who lives, what waits\n"
    "  signal NAME          tell all agents, before all else that waits\n"
    "  swarm run|status|logs|aside|pause|resume|stop   commands as a swarm of agents; swarm --help\n"
    "  checkpoint, restore  save and print an agent's state; --swarm, --cut: of all\n"
    "  wait NAME...         wait until these agents are registered\n"
    "  inbox [NAME]         show what waits, without taking it\n"
    "  list                 the agents\n"
    "  status TEXT          set my status line\n"
    "  whoami               my name and the bus\n"
    "  destroy [BUS]        end the bus\n"
    "  buses                the buses of this user, and what is in them\n"
    "  doctor [BUS]         check a bus, and say in words what is wrong, dead or stuck\n"
    "  demo                 708 processes on real work, beside a file-per-message bus\n"
    "  bench                measure it beside other ways to carry messages\n"
    "  version              versions of everything\n"
    "\n"
    "options of all: --bus NAME (CFNSHM_BUS, 'default')  --as AGENT (CFNSHM_AGENT)  --dir DIR\n"
    "  (CFNSHM_DIR, /dev/shm)  --json  --timeout SECONDS|forever  --help\n"
    "exit codes: 0 ok, 1 error, 2 usage, 3 timed out or empty, 4 full, 5 unknown agent, 6 agent dead,\n"
    "  7 permission, 8 corrupt or other version, 9 inbox or lease taken over, 10 busy or a deadlock,\n"
    "  11 no space or too large, 12 no such bus, 13 broken barrier, 14 the lock's last holder died\n";

typedef struct verb {
  const char *name;
  int (*run)(cfn_cli_t *cli);
  int arguments; /* at most; more would be dropped in silence */
  const char *help;
} verb_t;

static const verb_t verbs[] = {
    {"register", cfn_verb_register, 1,
     "usage: cfnshm register NAME [--type T] [--team T] [--capabilities 'a b'] [--tags 'x y']\n"
     "                       [--status TEXT] [--agents N] [--size 64M] [--spill DIR|off]\n"
     "--agents, --size and --spill (CFNSHM_AGENTS, CFNSHM_SIZE, CFNSHM_SPILL) count when the bus is created; spill:\n"
     "where on a disk objects go that do not fit, /var/tmp if nothing is said.\n"},
    {"unregister", cfn_verb_unregister, 1,
     "usage: cfnshm unregister NAME [--force]\n--force: also while its process is alive.\n"},
    {"send", cfn_verb_send, 2,
     "usage: cfnshm send TO [BODY | -] [--priority control|high|normal|low] [--type T]\n"
     "                   [--body-json | --raw] [--wait] [--timeout SECONDS]\n"
     "Waits while the inbox is full (--timeout 0: exit 4 at once). --wait: until it is acked.\n"},
    {"recv", cfn_verb_recv, 0,
     "usage: cfnshm recv --as NAME [--timeout SECONDS] [--count N | --all | --follow]\n"
     "                   [--json | --shell | --raw] [--hold] [--priority LANE] [--steal]\n"
     "A message is acked when it has been written. --hold leaves that to `cfnshm ack MSG_ID`.\n"
     "--shell prints CFN_ID CFN_FROM CFN_TYPE CFN_REQUEST (1: the sender waits) CFN_REPLY CFN_PRIORITY\n"
     "CFN_REDELIVERED CFN_ENCODING (base64 where the body holds NUL) CFN_BODY for eval; on failure they are emptied and the exit code is kept.\n"},
    {"ack", cfn_verb_ack, 1048576, "usage: cfnshm ack MSG_ID... --as NAME\n"},
    {"request", cfn_verb_request, 2,
     "usage: cfnshm request TO [BODY | -] [--type T] [--timeout SECONDS (60)] [--json | --shell]\n"},
    {"reply", cfn_verb_reply, 2,
     "usage: cfnshm reply REPLY_TO [BODY | -]\nREPLY_TO: \"reply_to\" of recv --json, CFN_REPLY of recv --shell.\n"},
    {"broadcast", cfn_verb_broadcast, 1,
     "usage: cfnshm broadcast [BODY | -] [--team T] [--priority LANE] [--type T] [--timeout SECONDS]\n"
     "Prints how many agents got it.\n"},
    {"inbox", cfn_verb_inbox, 1, "usage: cfnshm inbox [NAME] [--total] [--json] [--priority LANE]\n"},
    {"wait", cfn_verb_wait, 1048576,
     "usage: cfnshm wait NAME... [--timeout SECONDS]\n"
     "Waits until all of them are registered; makes the bus if it is missing. Exit 3 names who is not.\n"},
    {"put", cfn_verb_put, 1,
     "usage: cfnshm put [FILE | -] [--json]\n"
     "Stores the bytes under their SHA-256, as sha256sum says it, and prints the name. What is there already is\n"
     "not stored again. It stays until: cfnshm delete REF.\n"},
    {"get", cfn_verb_get, 1,
     "usage: cfnshm get REF [--json]\nPrints the bytes as they are. Exit 3: there is no such object.\n"},
    {"delete", cfn_verb_delete, 1048576, "usage: cfnshm delete REF...\nObjects; a value: cfnshm state delete KEY.\n"},
    {"state", cfn_verb_state, 3,
     "usage: cfnshm state [list [PREFIX]]                       keys, one a line\n"
     "       cfnshm state get KEY\n"
     "       cfnshm state set KEY [VALUE | -] [--body-json | --raw] [--version N]\n"
     "       cfnshm state delete KEY [--version N]\n"
     "       cfnshm state incr KEY [N]                          prints the sum; N may be negative: -- -1\n"
     "       cfnshm state wait KEY [--version N] [--timeout SECONDS]   until it is changed; prints what it is then\n"
     "--version N: only if the value has this version (0: if there is none), which --json shows; exit 1 if\n"
     "somebody was faster. wait --version N returns at once if it has another. Exit 3: there is no value.\n"},
    {"lock", cfn_verb_lock, 1048576,
     "usage: cfnshm lock NAME [--timeout SECONDS] [--intact] [--steal] -- COMMAND [ARGUMENTS]\n"
     "       cfnshm lock NAME          who holds it (exit 3: nobody)\n"
     "       cfnshm lock               all that are held\n"
     "Waits for the lock, runs the command, gives the lock back, and exits as the command did (128+N: by signal N).\n"
     "The command dies with this process; signals to this process are passed on to it. It finds CFNSHM_LOCK,\n"
     "CFNSHM_TOKEN (a number that grows from holder to holder), and CFNSHM_OWNER_DIED (AGENT:PID) if the last\n"
     "holder died holding it; with --intact that is exit 14, and nothing is run. --steal takes it from a living\n"
     "holder, whose command gets SIGTERM and whose exit is 9. Exit 3: timed out. Exit 10: a deadlock.\n"},
    {"elect", cfn_verb_elect, 1048576,
     "usage: cfnshm elect NAME [--timeout SECONDS] [--steal] -- COMMAND [ARGUMENTS]\n"
     "       cfnshm elect NAME         who leads (exit 3: nobody)\n"
     "       cfnshm elect              all who lead\n"
     "As lock, for a leadership: the command runs while this process leads (CFNSHM_LEADS, CFNSHM_TOKEN: the term).\n"},
    {"semaphore", cfn_verb_semaphore, 1048576,
     "usage: cfnshm semaphore NAME PERMITS [--timeout SECONDS] -- COMMAND [ARGUMENTS]\n"
     "       cfnshm semaphore NAME     who holds permits (exit 3: nobody)\n"
     "Runs the command while it holds one of so many permits, and exits as it did. It finds CFNSHM_SEMAPHORE and\n"
     "CFNSHM_TOKEN. Exit 3: timed out.\n"},
    {"barrier", cfn_verb_barrier, 2,
     "usage: cfnshm barrier NAME PARTIES [--timeout SECONDS] [--go-on]\n"
     "       cfnshm barrier NAME [--json]            who is there, and who is missing\n"
     "       cfnshm barrier NAME reset|abort|delete\n"
     "Waits until so many are there, and prints how many came before. Exit 3: timed out, and not there any more.\n"
     "Exit 13: a party died, or it was broken; --go-on: the dead are counted out, and the others go on.\n"},
    {"list", cfn_verb_list, 0,
     "usage: cfnshm list [--team T] [--type T] [--json]\n"
     "LIFE: alive; dead: its process ended without leaving, proven by the kernel; -: nobody owns it now\n"
     "(a shell agent between two commands, or one that left). UNREAD: not acked yet.\n"},
    {"whoami", cfn_verb_whoami, 0, "usage: cfnshm whoami [--json]\n"},
    {"status", cfn_verb_status, 1, "usage: cfnshm status TEXT --as NAME\n"},
    {"destroy", cfn_verb_destroy, 1,
     "usage: cfnshm destroy [BUS] [--force]\n--force: also while processes are attached, or if it is corrupt.\n"},
};

const char *cfn_cli_help(const char *verb) {
  for (size_t i = 0; verb && i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp(verbs[i].name, verb) == 0) return verbs[i].help;
  return general_help;
}

bool cfn_cli_knows(const char *verb) {
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp(verbs[i].name, verb) == 0) return true;
  return false;
}

int cfn_cli_run(cfn_cli_t *cli) {
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp(verbs[i].name, cli->verb) == 0) {
      if (cli->argc > verbs[i].arguments) {
        char problem[300];
        snprintf(problem, sizeof problem, "unexpected argument '%.200s'; quote a text of several words",
                 cli->argv[verbs[i].arguments]);
        return cfn_cli_usage(cli, problem);
      }
      return verbs[i].run(cli);
    }
  return cfn_cli_usage(cli, "no such verb");
}
