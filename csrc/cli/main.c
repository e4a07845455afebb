/* cfnshm, the command. Hot verbs are done here, in a process that starts in under a millisecond; the cold
 * ones are handed to Python (`python -m cfnshm`).
 *
 * stdout is data only, stderr is for people. Exit codes: base/error.h. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/cli.h"
#include "cli/json.h"

#ifndef CFN_VERSION
#define CFN_VERSION "0.0.0"
#endif

/* What Python does: known here, so that a mistyped verb is answered with all of them. */
static const char *const cold[] = {"demo", "bench",  "doctor", "buses",   "version",    "pause",   "resume", "swarm",
                                   "inject", "stop", "signal", "control", "checkpoint", "restore", "teams", NULL};

static bool is_cold(const char *verb) {
  for (int i = 0; cold[i]; i++)
    if (strcmp(cold[i], verb) == 0) return true;
  return false;
}

/* ---- errors ---- */

static const char *remedy(int code) {
  switch (code) {
    case CFN_UNKNOWN_AGENT: return "register the agent, or look at: cfnshm list";
    case CFN_AGENT_DEAD: return "start it again under its name, or: cfnshm unregister NAME";
    case CFN_AGENT_BUSY: return "end the process that holds it, or use --steal / --force";
    case CFN_FULL: return "wait longer with --timeout SECONDS; who should read it: cfnshm list";
    case CFN_TIMEOUT: case CFN_EMPTY: return "wait longer with --timeout SECONDS";
    case CFN_UNKNOWN_KEY: return "which there are: cfnshm state list";
    case CFN_CONFLICT: return "read it again (cfnshm state get KEY --json) and decide anew";
    case CFN_LEASE_LOST: return "what the command did since then may meet what the new holder does: compare tokens";
    case CFN_OWNER_DIED: return "look at what it left, then take it without --intact";
    case CFN_BROKEN_BARRIER: return "cfnshm barrier NAME reset";
    case CFN_DEADLOCK: return "give back what is held, and begin again";
    case CFN_UNKNOWN_OBJECT: return "put it again: cfnshm put FILE";
    case CFN_NO_SPACE: return "read the full inboxes; destroy what is not needed (cfnshm buses); or choose "
                              "another size (CFNSHM_SIZE)";
    case CFN_OVER_CAPACITY: return "create the bus larger: CFNSHM_SIZE, CFNSHM_AGENTS";
    case CFN_NO_BUS: return "cfnshm register NAME creates it";
    case CFN_VERSION_MISMATCH: case CFN_CORRUPT: return "cfnshm doctor; cfnshm destroy --force";
    default: return "";
  }
}

int cfn_cli_fail(const cfn_cli_t *cli, int code) {
  const cfn_failure_t *f = cfn_last_failure();
  const char *text = f->code == code && f->text[0] ? f->text : cfn_error_text(code);
  int status = cfn_error_exit_status(code);
  if (cli->json) {
    printf("{\"error\":");
    cfn_json_string(stdout, text, strlen(text));
    printf(",\"code\":\"%s\",\"remedy\":", cfn_error_name(code));
    cfn_json_string(stdout, remedy(code), strlen(remedy(code)));
    printf("}\n");
  } else {
    fprintf(stderr, "cfnshm %s: %s\n", cli->verb, text);
  }
  return status;
}

int cfn_cli_usage(const cfn_cli_t *cli, const char *problem) {
  if (cli->json) {
    printf("{\"error\":");
    cfn_json_string(stdout, problem, strlen(problem));
    printf(",\"code\":\"USAGE\",\"remedy\":\"cfnshm %s --help\"}\n", cli->verb);
  } else {
    fprintf(stderr, "cfnshm %s: %s\n%s", cli->verb, problem, cfn_cli_help(cli->verb));
  }
  cfn_cli_empty_variables(cli, 2);
  return 2;
}

uint64_t cfn_cli_deadline(const cfn_cli_t *cli, double otherwise) {
  double seconds = cli->timeout_set ? cli->timeout : otherwise;
  if (seconds < 0 || seconds > 1e9) return CFN_FOREVER;
  if (seconds == 0) return 0;
  return cfn_os_monotonic_ns() + (uint64_t)(seconds * 1e9);
}

/* ---- options ---- */

static bool parse_seconds(const char *text, double *out) {
  char *end;
  if (strcmp(text, "forever") == 0) {
    *out = -1;
    return true;
  }
  *out = strtod(text, &end);
  return *text && *end == 0 && *out >= 0;
}

/* 64, 64K, 64M, 1G */
static bool parse_size(const char *text, uint64_t *out) {
  char *end;
  if (*text < '0' || *text > '9') return false;
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  unsigned shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20
                   : *end == 'G' || *end == 'g' ? 30 : 0;
  if (shift) end++;
  if (shift && (*end == 'B' || *end == 'b')) end++;
  *out = (uint64_t)n << shift;
  return errno == 0 && *end == 0 && *out >> shift == n;
}

static bool parse_lane(const char *text, unsigned *out) {
  static const char *const names[] = {"control", "high", "normal", "low"};
  for (unsigned i = 0; i < 4; i++)
    if (strcmp(text, names[i]) == 0) {
      *out = i;
      return true;
    }
  return false;
}

enum {
  O_BUS = 256, O_AS, O_DIR, O_JSON, O_TIMEOUT, O_PRIORITY, O_TYPE, O_TEAM, O_CAPABILITIES, O_TAGS,
  O_STATUS, O_AGENTS, O_SIZE, O_FOLLOW, O_HOLD, O_FORCE, O_STEAL, O_BODY_JSON, O_RAW, O_COUNT,
  O_SPILL, O_ALL, O_SHELL, O_TOTAL, O_WAIT, O_VERSION, O_INTACT, O_GO_ON, O_HELP
};
static const struct option options[] = {
    {"bus", 1, 0, O_BUS},         {"as", 1, 0, O_AS},
    {"dir", 1, 0, O_DIR},         {"json", 0, 0, O_JSON},
    {"timeout", 1, 0, O_TIMEOUT}, {"priority", 1, 0, O_PRIORITY},
    {"type", 1, 0, O_TYPE},       {"team", 1, 0, O_TEAM},
    {"capabilities", 1, 0, O_CAPABILITIES}, {"tags", 1, 0, O_TAGS},
    {"status", 1, 0, O_STATUS},   {"agents", 1, 0, O_AGENTS},
    {"size", 1, 0, O_SIZE},       {"spill", 1, 0, O_SPILL},
    {"follow", 0, 0, O_FOLLOW},
    {"hold", 0, 0, O_HOLD},       {"force", 0, 0, O_FORCE},
    {"steal", 0, 0, O_STEAL},     {"body-json", 0, 0, O_BODY_JSON},
    {"raw", 0, 0, O_RAW},         {"count", 1, 0, O_COUNT},
    {"all", 0, 0, O_ALL},         {"shell", 0, 0, O_SHELL},
    {"total", 0, 0, O_TOTAL},     {"wait", 0, 0, O_WAIT},
    {"version", 1, 0, O_VERSION}, {"intact", 0, 0, O_INTACT},
    {"go-on", 0, 0, O_GO_ON},     {"help", 0, 0, O_HELP},
    {0, 0, 0, 0}};

/* 0, or the exit status: -1 stands for "help was printed". */
static int parse(cfn_cli_t *cli, int argc, char **argv) {
  char problem[300];
  int o, which = 0;
  bool json = false, shell = false; /* until they are met, cli has main's guess: for what is wrong before */
  opterr = 0;
  while ((o = getopt_long(argc, argv, "", options, &which)) != -1) {
    bool good = true;
    switch (o) {
      case O_BUS: cli->bus = optarg; break;
      case O_AS: cli->agent = optarg; break;
      case O_DIR: cli->dir = optarg; break;
      case O_JSON: json = true; break;
      case O_TIMEOUT: good = cli->timeout_set = parse_seconds(optarg, &cli->timeout); break;
      case O_PRIORITY: good = cli->lane_set = parse_lane(optarg, &cli->lane); break;
      case O_TYPE: cli->type = optarg; break;
      case O_TEAM: cli->team = optarg; break;
      case O_CAPABILITIES: cli->capabilities = optarg; break;
      case O_TAGS: cli->tags = optarg; break;
      case O_STATUS: cli->status = optarg; break;
      case O_AGENTS: good = parse_size(optarg, &cli->agents) && cli->agents <= CFN_MAX_AGENTS; break;
      case O_SIZE: good = parse_size(optarg, &cli->size); break;
      case O_SPILL: cli->wish.spill = optarg; break;
      case O_FOLLOW: cli->follow = true; break;
      case O_HOLD: cli->hold = true; break;
      case O_FORCE: cli->force = true; break;
      case O_STEAL: cli->steal = true; break;
      case O_BODY_JSON: cli->as_json = true; break;
      case O_RAW: cli->as_raw = true; break;
      case O_COUNT: good = parse_size(optarg, &cli->count) && cli->count > 0; break;
      case O_ALL: cli->all = true; break;
      case O_SHELL: shell = true; break;
      case O_TOTAL: cli->total = true; break;
      case O_WAIT: cli->wait_ack = true; break;
      case O_VERSION: good = parse_size(optarg, &cli->version); break;
      case O_INTACT: cli->intact = true; break;
      case O_GO_ON: cli->go_on = true; break;
      case O_HELP: fputs(cfn_cli_help(cli->verb), stdout); return -1;
      default:
        snprintf(problem, sizeof problem, "unknown option, or one without its value: %s",
                 argv[optind - 1]);
        return cfn_cli_usage(cli, problem);
    }
    if (!good) {
      snprintf(problem, sizeof problem, "--%s does not take '%s'", options[which].name, optarg);
      return cfn_cli_usage(cli, problem);
    }
  }
  cli->json = json;
  cli->shell = shell;
  cli->argc = argc - optind;
  cli->argv = argv + optind;
  return 0;
}

static const char *env(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value && *value ? value : otherwise;
}

/* A number from the environment: 0, or the exit status. */
static int env_size(const cfn_cli_t *cli, const char *name, uint64_t most, uint64_t *out) {
  const char *value = env(name, NULL);
  char problem[200];
  if (!value || (parse_size(value, out) && *out > 0 && *out <= most)) return 0;
  snprintf(problem, sizeof problem, "%s is '%.60s', which is not a number such as 512 or 64M", name, value);
  return cfn_cli_usage(cli, problem);
}

/* CFNSHM_LANES as control=64,normal=1024; CFNSHM_SLABS as 256=16384,1K=8192: 0, or the exit status. */
static int env_wish(cfn_cli_t *cli) {
  static const uint32_t class_bytes[CFN_CLASSES] = {256, 1024, 4096, 16384, 65536, 1u << 20};
  static const char *const names[] = {"CFNSHM_LANES", "CFNSHM_SLABS"};
  char problem[300];
  for (int which = 0; which < 2; which++) {
    const char *value = env(names[which], NULL);
    char copy[256], *rest = copy, *part;
    if (!value) continue;
    snprintf(copy, sizeof copy, "%s", value);
    while ((part = strsep(&rest, ",")) != NULL) {
      char *number = strchr(part, '=');
      uint64_t n = 0, bytes = 0;
      unsigned at = CFN_CLASSES;
      if (number) *number++ = 0;
      bool good = number && parse_size(number, &n) && n <= UINT32_MAX;
      if (good && which == 0) good = parse_lane(part, &at);
      if (good && which == 1) {
        good = parse_size(part, &bytes);
        for (at = 0; at < CFN_CLASSES && class_bytes[at] != bytes; at++) {
        }
        good = good && at < CFN_CLASSES;
      }
      if (!good) {
        snprintf(problem, sizeof problem, "%s is '%.120s'; it looks like %s", names[which], value,
                 which ? "256=16384,1K=8192 (of 256, 1K, 4K, 16K, 64K, 1M)"
                       : "control=64,high=128,normal=1024,low=128");
        return cfn_cli_usage(cli, problem);
      }
      if (which == 0) {
        cli->wish.lane_slots[at] = (uint32_t)n;
      } else {
        cli->wish.class_chunks[at] = (uint32_t)n;
        cli->wish.class_wished |= 1u << at;
      }
    }
  }
  return 0;
}

/* ---- cold verbs ---- */

/* The interpreter of the environment that this command was installed into stands beside it. */
static int run_python(int argc, char **argv) {
  char self[CFN_PATH_BYTES], python[CFN_PATH_BYTES + 16];
  char **args = calloc((size_t)argc + 4, sizeof *args);
  if (!args) return 1;
  const char *interpreter = getenv("CFNSHM_PYTHON");
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (!interpreter && n > 0) {
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    snprintf(python, sizeof python, "%s/python3", self);
    if (access(python, X_OK) == 0) interpreter = python;
  }
  if (!interpreter) interpreter = "python3";
  args[0] = (char *)(uintptr_t)interpreter;
  args[1] = (char *)(uintptr_t) "-m";
  args[2] = (char *)(uintptr_t) "cfnshm";
  for (int i = 1; i < argc; i++) args[i + 2] = argv[i];
  execvp(interpreter, args);
  fprintf(stderr, "cfnshm: cannot start %s for '%s': %s; set CFNSHM_PYTHON\n", interpreter,
          argc > 1 ? argv[1] : "", strerror(errno));
  return 1;
}

/* A closed standard descriptor would be given to the next file that is opened, which is one of the
 * bus, and output would go there. They are opened the wrong way round, so that using them fails. */
static void hold_standard_descriptors(void) {
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
      (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv) {
  hold_standard_descriptors();
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
    fputs(cfn_cli_help(argc > 2 ? argv[2] : NULL), argc < 2 ? stderr : stdout);
    return argc < 2 ? 2 : 0;
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("cfnshm %s (layout %u)\n", CFN_VERSION, CFN_ABI);
    return 0;
  }
  if (is_cold(argv[1])) return run_python(argc, argv);
  cfn_cli_t cli = {.verb = argv[1],
                   .bus = env("CFNSHM_BUS", "default"),
                   .agent = env("CFNSHM_AGENT", NULL),
                   .lane = CFN_LANE_NORMAL,
                   .count = 1,
                   .version = CFN_ANY_VERSION};
  cfn_cli_t *c = &cli;
  for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) { /* how to say what is wrong with the others */
    if (strcmp(argv[i], "--json") == 0) c->json = true;
    if (strcmp(argv[i], "--shell") == 0) c->shell = true;
  }
  if (!cfn_cli_knows(argv[1])) return cfn_cli_usage(c, "there is no such verb");
  int status = parse(c, argc - 1, argv + 1);
  if (!status && !c->agents) status = env_size(c, "CFNSHM_AGENTS", CFN_MAX_AGENTS, &c->agents);
  if (!status && !c->size) status = env_size(c, "CFNSHM_SIZE", UINT64_MAX, &c->size);
  if (!status) status = env_wish(c);
  if (status) return status < 0 ? 0 : status;
  status = cfn_cli_run(c);
  if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
    fprintf(stderr, "cfnshm %s: cannot write: %s\n", c->verb, strerror(errno));
    return 1;
  }
  return status;
}
