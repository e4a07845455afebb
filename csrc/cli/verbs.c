/* The hot verbs. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/show.h"

#define OUT_BYTES (sizeof(cfn_wire_t) + 1024u + (1u << 16))
#define STDIN_MOST (1u << 26)


static const char *const life_names[] = {"none", "alive", "dead"};

/* ---- opening ---- */

enum { NEED_AGENT = 1, CREATE_BUS = 2, CREATE_AGENT = 4 };

static int open_bus(const cfn_cli_t *cli, int need, cfn_bus_t **bus) {
  cfn_wish_t wish = {.size_bytes = need & CREATE_BUS ? cli->size : 0,
                     .agents = need & CREATE_BUS ? (uint32_t)cli->agents : 0};
  int r = cfn_bus_open(cli->dir, cli->bus, &wish, need & CREATE_BUS ? CFN_OPEN_CREATE : 0, bus, NULL);
  if (r < 0) return r;
  if (!cli->agent) {
    if (need & NEED_AGENT)
      r = cfn_fail(CFN_INVALID, 0, 0, "say who you are: --as NAME or CFNSHM_AGENT");
  } else {
    cfn_address_t at;
    uint64_t inc;
    int owner;
    if (!(need & CREATE_AGENT)) r = cfn_bus_find(*bus, cli->agent, &at);
    if (r == CFN_OK) r = cfn_bus_act_as(*bus, cli->agent, NULL, 0, &inc, &owner);
  }
  if (r < 0) cfn_bus_free(*bus);
  return r;
}

/* The payload: the argument, or standard input where it is "-" or missing. */
static int read_body(const cfn_cli_t *cli, int argument, uint8_t **body, uint32_t *bytes) {
  if (cli->argc > argument && strcmp(cli->argv[argument], "-") != 0) {
    *bytes = (uint32_t)strlen(cli->argv[argument]);
    *body = (uint8_t *)strdup(cli->argv[argument]);
    return *body ? CFN_OK : cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for the message");
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
      return cfn_fail(CFN_TOO_LARGE, STDIN_MOST, (int64_t)used, "standard input gives more than 64 MiB");
    if (used == room) *body = realloc(*body, room *= 2);
  }
  if (!*body) return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for the message");
  *bytes = (uint32_t)used;
  return CFN_OK;
}

static cfn_outgoing_t outgoing(const cfn_cli_t *cli, const uint8_t *body, uint32_t bytes) {
  uint8_t codec = cli->as_json ? CFN_CODEC_JSON
                  : cli->as_raw || !cfn_json_is_text(body, bytes) ? CFN_CODEC_RAW : CFN_CODEC_TEXT;
  return (cfn_outgoing_t){.body = body,
                          .body_bytes = bytes,
                          .type = cli->type,
                          .type_bytes = cli->type ? (uint8_t)strlen(cli->type) : 0,
                          .codec = codec};
}

static int check_json(const cfn_cli_t *cli, const uint8_t *body, uint32_t bytes) {
  if (!cli->as_json || cfn_json_valid(body, bytes)) return CFN_OK;
  return cfn_fail(CFN_INVALID, 0, bytes, "--body-json: the body is not one JSON value");
}

static int check_type(const cfn_cli_t *cli) {
  if (cli->type && strlen(cli->type) > CFN_TYPE_BYTES_MAX)
    return cfn_fail(CFN_INVALID, CFN_TYPE_BYTES_MAX, (int64_t)strlen(cli->type),
                    "--type has at most %u bytes", CFN_TYPE_BYTES_MAX);
  return CFN_OK;
}

/* With --shell a failure must not leave the last message's variables: eval would repeat it. */
static int fail_shell(const cfn_cli_t *cli, int r) {
  int status = cfn_cli_fail(cli, r);
  if (cli->shell)
    printf("CFN_ID='' CFN_FROM='' CFN_TYPE='' CFN_REQUEST='' CFN_REPLY='' CFN_BODY='' CFN_ENCODING=''\n(exit %d)\n",
           status);
  return status;
}

/* ---- verbs ---- */

static int verb_register(cfn_cli_t *cli) {
  const char *name = cli->argc > 0 ? cli->argv[0] : cli->agent;
  if (!name) return cfn_cli_usage(cli, "which agent? give a NAME");
  cfn_bus_t *bus;
  cfn_cli_t nobody = *cli;
  nobody.agent = NULL;
  int r = open_bus(&nobody, CREATE_BUS, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  cfn_profile_t profile = {{cli->type, cli->team, cli->capabilities, cli->tags, cli->status}};
  cfn_address_t at;
  int created;
  r = cfn_bus_register(bus, name, &profile, &at, &created);
  if (r == CFN_OK && cli->json) {
    printf("{\"agent\":");
    cfn_json_string(stdout, name, strlen(name));
    printf(",\"bus\":");
    cfn_json_string(stdout, cli->bus, strlen(cli->bus));
    printf(",\"created\":%s}\n", created ? "true" : "false");
  }
  cfn_bus_free(bus);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

static int verb_unregister(cfn_cli_t *cli) {
  const char *name = cli->argc > 0 ? cli->argv[0] : cli->agent;
  if (!name) return cfn_cli_usage(cli, "which agent? give a NAME");
  cfn_bus_t *bus;
  cfn_cli_t nobody = *cli;
  nobody.agent = NULL;
  int r = open_bus(&nobody, 0, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  uint64_t dropped = 0;
  r = cfn_bus_unregister(bus, name, cli->force ? CFN_FORCE : 0, &dropped);
  cfn_bus_free(bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  if (cli->json) printf("{\"dropped\":%llu}\n", (unsigned long long)dropped);
  else if (dropped)
    fprintf(stderr, "cfnshm unregister: %llu unread messages were dropped\n",
            (unsigned long long)dropped);
  return 0;
}

static int send_waiting(cfn_bus_t *bus, const char *to, unsigned lane, const cfn_outgoing_t *m,
                        uint64_t deadline, cfn_receipt_t *receipt) {
  for (;;) {
    cfn_address_t at;
    int r = cfn_bus_find(bus, to, &at);
    if (r < 0) return r;
    r = cfn_bus_send(bus, &at, lane, m, 1, deadline, receipt);
    if (r != CFN_INTERRUPTED && r != CFN_STALE) return r;
  }
}

static int wait_receipt(cfn_bus_t *bus, const cfn_receipt_t *t, uint64_t deadline) {
  int r;
  do {
    r = cfn_bus_receipt_wait(bus, t, CFN_RECEIPT_ACKED, deadline);
  } while (r == CFN_INTERRUPTED);
  return r;
}

/* The same id that the receiver is shown. */
static void show_sent_id(const cfn_bus_t *bus, const cfn_receipt_t *receipt) {
  printf("\"msg_id\":\"%u.%llu.%llu\"", cfn_bus_attachment(bus),
         (unsigned long long)cfn_bus_attachment_inc(bus), (unsigned long long)receipt->first_sequence);
}

static int verb_send(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "to whom? cfnshm send TO [BODY | -]");
  uint8_t *body = NULL;
  uint32_t bytes = 0;
  int r = check_type(cli);
  if (r == CFN_OK) r = read_body(cli, 1, &body, &bytes);
  if (r == CFN_OK) r = check_json(cli, body, bytes);
  cfn_bus_t *bus = NULL;
  if (r == CFN_OK) r = open_bus(cli, CREATE_AGENT, &bus);
  cfn_receipt_t receipt = {0};
  if (r == CFN_OK) {
    cfn_outgoing_t m = outgoing(cli, body, bytes);
    r = send_waiting(bus, cli->argv[0], cli->lane, &m, cfn_cli_deadline(cli, -1), &receipt);
    if (r == CFN_OK && cli->wait_ack) r = wait_receipt(bus, &receipt, cfn_cli_deadline(cli, -1));
    if (r == CFN_RECEIPT_DROPPED)
      r = cfn_fail(CFN_STALE, 0, 0, "the agent was unregistered before it acked");
    if (r >= 0 && cli->json) {
      putchar('{');
      show_sent_id(bus, &receipt);
      printf(",\"position\":%llu,\"sequence\":%llu,\"state\":\"%s\"}\n",
             (unsigned long long)receipt.position, (unsigned long long)receipt.first_sequence,
             cli->wait_ack ? "acked" : "stored");
    }
    cfn_bus_free(bus);
  }
  free(body);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

/* Has whoever would read our output gone away? Then a waiting `x=$(cfnshm recv)` whose shell was killed
 * must not go on holding the inbox. */
static bool reader_gone(void) {
  struct pollfd p = {1, 0, 0};
  return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLNVAL));
}

/* One message: 0, or an error. */
static int receive_one(cfn_bus_t *bus, unsigned lanes, uint64_t deadline, uint8_t *out) {
  int64_t n;
  do {
    n = cfn_bus_recv(bus, NULL, 0, lanes, 0, deadline, out, OUT_BYTES);
  } while (n == CFN_INTERRUPTED && !reader_gone());
  if (n == CFN_INTERRUPTED) return cfn_fail(CFN_CLOSED, 0, 0, "nobody reads the output any more");
  return n < 0 ? (int)n : CFN_OK;
}

static int verb_recv(cfn_cli_t *cli) {
  cfn_bus_t *bus;
  int r = open_bus(cli, NEED_AGENT, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  unsigned lanes = cli->lane_set ? 1u << cli->lane : CFN_ALL_LANES;
  uint8_t *out = malloc(OUT_BYTES);
  uint64_t got = 0;
  if (!out) r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a message");
  if (r == CFN_OK && cli->steal) r = cfn_bus_claim_inbox(bus, 1);
  while (r == CFN_OK && (cli->follow || cli->all || got < cli->count)) {
    uint64_t deadline = cli->all ? (got ? 0 : cfn_cli_deadline(cli, 0)) : cfn_cli_deadline(cli, -1);
    r = receive_one(bus, lanes, deadline, out);
    if (r < 0) break;
    const cfn_wire_t *w = (const void *)out;
    cfn_show(cli, w, cli->agent);
    /* Acked only after the output was written: a reader that goes away loses nothing. */
    if (fflush(stdout) != 0) {
      r = cfn_fail_os("cannot write the message (it stays in the inbox)");
      break;
    }
    uint64_t token = w->token;
    if (!cli->hold) r = cfn_bus_ack(bus, &token, 1);
    got++;
  }
  free(out);
  cfn_bus_free(bus);
  if (r == CFN_EMPTY && cli->all && got > 0) r = CFN_OK;
  return r < 0 ? fail_shell(cli, r) : 0;
}

/* Finds the message `id` in the inbox and acks it. Everything before it keeps its place. */
static int ack_id(cfn_bus_t *bus, const char *id, uint8_t *out) {
  unsigned att;
  unsigned long long inc, sequence;
  if (sscanf(id, "%u.%llu.%llu", &att, &inc, &sequence) != 3)
    return cfn_fail(CFN_INVALID, 0, 0, "'%s' is not a message id (as in 7.1.42)", id);
  for (;;) {
    int r = receive_one(bus, CFN_ALL_LANES, 0, out);
    if (r == CFN_EMPTY)
      return cfn_fail(CFN_EMPTY, 0, 0, "no message %s in the inbox: acked already?", id);
    if (r < 0) return r;
    const cfn_wire_t *w = (const void *)out;
    uint64_t token = w->token;
    if (w->source_att == att && w->source_inc == inc && w->sequence == sequence)
      return cfn_bus_ack(bus, &token, 1);
  }
}

static int verb_ack(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "which message? cfnshm ack MSG_ID...");
  cfn_bus_t *bus;
  int r = open_bus(cli, NEED_AGENT, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  uint8_t *out = malloc(OUT_BYTES);
  if (!out) r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a message");
  int acked = 0, first = r;
  for (int i = 0; i < cli->argc && r >= 0; i++) { /* all of them; what is missing is told at the end */
    int one = ack_id(bus, cli->argv[i], out);
    if (one >= 0) acked++;
    else if (first >= 0) first = one;
    if (one < 0 && !cli->json)
      fprintf(stderr, "cfnshm ack: %s\n", cfn_last_failure()->text);
    cfn_bus_release_inbox(bus); /* start over from the head for the next one */
  }
  r = first;
  free(out);
  cfn_bus_free(bus);
  if (cli->json && r >= 0) printf("{\"acked\":%d}\n", acked);
  if (r < 0 && cli->json) return cfn_cli_fail(cli, r);
  return r < 0 ? cfn_error_exit_status(r) : 0;
}

static int verb_request(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "whom? cfnshm request TO [BODY | -]");
  uint8_t *body = NULL;
  uint32_t bytes = 0;
  int r = check_type(cli);
  if (r == CFN_OK) r = read_body(cli, 1, &body, &bytes);
  if (r == CFN_OK) r = check_json(cli, body, bytes);
  cfn_bus_t *bus = NULL;
  if (r == CFN_OK) r = open_bus(cli, CREATE_AGENT, &bus);
  uint8_t *out = malloc(OUT_BYTES);
  bool failure = false;
  if (r == CFN_OK && out) {
    cfn_outgoing_t m = outgoing(cli, body, bytes);
    uint64_t deadline = cfn_cli_deadline(cli, 60), correlation;
    cfn_address_t at;
    do {
      r = cfn_bus_find(bus, cli->argv[0], &at);
      if (r == CFN_OK) r = cfn_bus_request(bus, &at, cli->lane, &m, deadline, &correlation);
    } while (r == CFN_INTERRUPTED || r == CFN_STALE);
    if (r == CFN_OK) {
      int64_t n;
      do {
        n = cfn_bus_request_wait(bus, &at, correlation, deadline, out, OUT_BYTES);
      } while (n == CFN_INTERRUPTED);
      r = n < 0 ? (int)n : CFN_OK;
      if (r == CFN_OK) {
        failure = ((const cfn_wire_t *)(const void *)out)->flags & CFN_MESSAGE_FAILURE;
        cfn_show(cli, (const void *)out, cli->agent ? cli->agent : "");
      }
    }
    cfn_bus_free(bus);
  }
  free(out);
  free(body);
  return r < 0 ? cfn_cli_fail(cli, r) : failure ? 1 : 0;
}

static int verb_reply(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "to what? cfnshm reply REPLY_TO [BODY | -]");
  const char *token = cli->argv[0];
  unsigned att;
  unsigned long long inc, correlation;
  int name_at = 0;
  bool request = sscanf(token, "request:%u:%llu:%llu", &att, &inc, &correlation) == 3;
  if (!request && sscanf(token, "message:%llu:%n", &correlation, &name_at) != 1)
    return cfn_cli_usage(cli, "REPLY_TO is what recv gave: \"reply_to\" of --json, CFN_REPLY of --shell");
  uint8_t *body = NULL;
  uint32_t bytes = 0;
  cfn_bus_t *bus = NULL;
  int r = check_type(cli);
  if (r == CFN_OK) r = read_body(cli, 1, &body, &bytes);
  if (r == CFN_OK) r = check_json(cli, body, bytes);
  if (r == CFN_OK) r = open_bus(cli, CREATE_AGENT, &bus);
  if (r == CFN_OK) {
    cfn_outgoing_t m = outgoing(cli, body, bytes);
    m.correlation = correlation;
    m.flags = CFN_MESSAGE_REPLY;
    do {
      if (request) r = cfn_bus_reply(bus, att, inc, &m, cfn_cli_deadline(cli, -1));
      else r = send_waiting(bus, token + name_at, cli->lane, &m, cfn_cli_deadline(cli, -1), NULL);
    } while (r == CFN_INTERRUPTED);
    cfn_bus_free(bus);
  }
  free(body);
  if (r >= 0 && cli->json) printf("{\"delivered\":true}\n");
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

static int verb_broadcast(cfn_cli_t *cli) {
  uint8_t *body = NULL;
  uint32_t bytes = 0;
  int r = check_type(cli);
  if (r == CFN_OK) r = read_body(cli, 0, &body, &bytes);
  if (r == CFN_OK) r = check_json(cli, body, bytes);
  cfn_bus_t *bus = NULL;
  if (r == CFN_OK) r = open_bus(cli, CREATE_AGENT, &bus);
  if (r < 0) {
    free(body);
    return cfn_cli_fail(cli, r);
  }
  uint32_t most = cfn_bus_region(bus)->geo.config.agents;
  cfn_address_t *to = calloc(most, sizeof *to);
  int *result = calloc(most, sizeof *result);
  cfn_receipt_t *receipt = calloc(most, sizeof *receipt);
  cfn_outgoing_t m = outgoing(cli, body, bytes);
  int all = cfn_bus_agents(bus, to, most), n = 0, got = 0, worst = CFN_OK;
  cfn_agent_info_t info;
  for (int i = 0; i < all; i++) {
    if (cfn_bus_agent_info(bus, &to[i], &info) < 0) continue;
    if (cli->agent && strcmp(info.name, cli->agent) == 0) continue;
    if (cli->team && strcmp(info.text[CFN_TEXT_TEAM], cli->team) != 0) continue;
    to[n++] = to[i];
  }
  r = cfn_bus_broadcast(bus, to, (uint32_t)n, cli->lane, &m, result, receipt); /* everybody first */
  uint64_t deadline = cfn_cli_deadline(cli, -1);
  for (int i = 0; i < n && r >= 0; i++) {
    while (result[i] == CFN_FULL || result[i] == CFN_NO_SPACE || result[i] == CFN_INTERRUPTED) {
      result[i] = cfn_bus_send(bus, &to[i], cli->lane, &m, 1, deadline, NULL); /* then wait for the full */
      if (result[i] != CFN_INTERRUPTED) break;
    }
    if (result[i] == CFN_OK) got++;
    else if (result[i] != CFN_STALE) worst = result[i];
  }
  if (cli->json) printf("{\"agents\":%d,\"delivered\":%d}\n", n, got);
  else printf("%d\n", got);
  cfn_bus_free(bus);
  free(to);
  free(result);
  free(receipt);
  free(body);
  if (r < 0) return cfn_cli_fail(cli, r);
  if (worst < 0) fprintf(stderr, "cfnshm broadcast: %d of %d agents did not get it: %s\n", n - got, n,
                         cfn_error_text(worst));
  return cfn_error_exit_status(worst);
}

static int verb_inbox(cfn_cli_t *cli) {
  const char *name = cli->argc > 0 ? cli->argv[0] : cli->agent;
  if (!name) return cfn_cli_usage(cli, "whose? give a NAME or --as");
  cfn_cli_t nobody = *cli;
  nobody.agent = NULL;
  cfn_bus_t *bus;
  int r = open_bus(&nobody, 0, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  cfn_address_t at;
  cfn_agent_info_t info;
  r = cfn_bus_find(bus, name, &at);
  if (r == CFN_OK) r = cfn_bus_agent_info(bus, &at, &info);
  if (r == CFN_OK && cli->total) {
    uint64_t depth = 0;
    for (int l = 0; l < (int)CFN_LANES; l++) depth += info.depth[l];
    if (cli->json) printf("{\"messages\":%llu}\n", (unsigned long long)depth);
    else printf("%llu\n", (unsigned long long)depth);
  } else if (r == CFN_OK) {
    size_t room = 1u << 26, used;
    uint32_t most = 1u << 17;
    uint8_t *out = malloc(room);
    uint32_t *offsets = calloc(most, sizeof *offsets);
    unsigned lanes = cli->lane_set ? 1u << cli->lane : CFN_ALL_LANES;
    int64_t n = CFN_NO_MEMORY;
    if (out && offsets) n = cfn_bus_peek(bus, &at, lanes, out, room, offsets, most, &used);
    r = n < 0 ? (int)n : CFN_OK;
    for (int64_t i = 0; i < n; i++) {
      const cfn_wire_t *w = (const void *)(out + offsets[i]);
      if (cli->json) {
        cfn_show_json(w, name);
        continue;
      }
      const char *sender = (const char *)(w + 1);
      cfn_show_id(stdout, w);
      printf("\t%s\t", cfn_lane_names[w->lane & 3]);
      cfn_print_plain(stdout, sender, w->sender_bytes, 0);
      putchar('\t');
      cfn_print_plain(stdout, sender + w->sender_bytes, w->type_bytes, 0);
      printf("\t%s\t%u bytes\n", w->wire_flags & CFN_WIRE_REDELIVERED ? "seen" : "new", w->body_bytes);
    }
    free(out);
    free(offsets);
  }
  cfn_bus_free(bus);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

static const char *wait_name(unsigned kind) {
  static const char *const names[] = {"", "inbox", "space", "chunks", "receipt", "reply", "agent"};
  return kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}

static void list_json(const cfn_agent_info_t *a) {
  static const char *const texts[CFN_TEXTS] = {"type", "team", "capabilities", "tags", "status"};
  printf("{\"name\":");
  cfn_json_string(stdout, a->name, strlen(a->name));
  for (unsigned t = 0; t < CFN_TEXTS; t++) {
    printf(",\"%s\":", texts[t]);
    cfn_json_string(stdout, a->text[t], strlen(a->text[t]));
  }
  printf(",\"life\":\"%s\",\"incarnation\":%llu,\"owner_pid\":%llu,\"reader_pid\":%llu,\"waiting\":\"%s\"",
         life_names[a->life % 3], (unsigned long long)a->incarnation,
         (unsigned long long)a->owner_pid, (unsigned long long)a->reader_pid, wait_name(a->waiting));
  printf(",\"sent\":%llu,\"registered\":", (unsigned long long)a->sent);
  cfn_json_time(stdout, a->registered_wall_ns);
  for (unsigned l = 0; l < CFN_LANES; l++)
    printf("%s\"%s\":%llu", l ? "," : ",\"depth\":{", cfn_lane_names[l], (unsigned long long)a->depth[l]);
  printf("}}\n");
}

static int verb_list(cfn_cli_t *cli) {
  cfn_cli_t nobody = *cli;
  nobody.agent = NULL;
  cfn_bus_t *bus;
  int r = open_bus(&nobody, 0, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  uint32_t most = cfn_bus_region(bus)->geo.config.agents;
  cfn_address_t *all = calloc(most, sizeof *all);
  int n = all ? cfn_bus_agents(bus, all, most) : CFN_NO_MEMORY;
  if (n > 0 && !cli->json)
    printf("%-24s %-12s %-12s %-6s %7s %6s %6s  %s\n", "NAME", "TYPE", "TEAM", "LIFE", "PID", "UNREAD",
           "SENT", "STATUS");
  for (int i = 0; i < n; i++) {
    cfn_agent_info_t a;
    if (cfn_bus_agent_info(bus, &all[i], &a) < 0) continue;
    if (cli->team && strcmp(a.text[CFN_TEXT_TEAM], cli->team) != 0) continue;
    if (cli->type && strcmp(a.text[CFN_TEXT_TYPE], cli->type) != 0) continue;
    if (cli->json) {
      list_json(&a);
      continue;
    }
    uint64_t depth = a.depth[0] + a.depth[1] + a.depth[2] + a.depth[3];
    printf("%-24s ", a.name);
    cfn_print_plain(stdout, a.text[CFN_TEXT_TYPE], strlen(a.text[CFN_TEXT_TYPE]), 13);
    cfn_print_plain(stdout, a.text[CFN_TEXT_TEAM], strlen(a.text[CFN_TEXT_TEAM]), 13);
    printf("%-6s %7llu %6llu %6llu  ", a.life == CFN_LIFE_NONE ? "-" : life_names[a.life % 3],
           (unsigned long long)(a.owner_pid ? a.owner_pid : a.reader_pid), (unsigned long long)depth,
           (unsigned long long)a.sent);
    cfn_print_plain(stdout, a.text[CFN_TEXT_STATUS], strlen(a.text[CFN_TEXT_STATUS]), 0);
    putchar('\n');
  }
  free(all);
  cfn_bus_free(bus);
  return n < 0 ? cfn_cli_fail(cli, n) : 0;
}

static int verb_whoami(cfn_cli_t *cli) {
  char path[CFN_PATH_BYTES];
  int r = cfn_region_path(cli->dir, cli->bus, path);
  if (r < 0) return cfn_cli_fail(cli, r);
  const char *agent = cli->agent ? cli->agent : "";
  if (cli->json) {
    printf("{\"agent\":");
    cfn_json_string(stdout, agent, strlen(agent));
    printf(",\"bus\":");
    cfn_json_string(stdout, cli->bus, strlen(cli->bus));
    printf(",\"path\":");
    cfn_json_string(stdout, path, strlen(path));
    printf("}\n");
  } else {
    printf("%s\n", agent);
    fprintf(stderr, "bus %s at %s\n", cli->bus, path);
  }
  return cli->agent ? 0 : 1;
}

static int verb_status(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "what? cfnshm status TEXT (to ask: cfnshm list)");
  cfn_bus_t *bus;
  int r = open_bus(cli, NEED_AGENT, &bus);
  if (r == CFN_OK) {
    cfn_profile_t profile = {{NULL, NULL, NULL, NULL, cli->argv[0]}};
    r = cfn_bus_set_profile(bus, cli->agent, &profile);
    cfn_bus_free(bus);
  }
  if (r >= 0 && cli->json) printf("{\"ok\":true}\n");
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

static int verb_destroy(cfn_cli_t *cli) {
  cfn_bus_t *bus;
  if (cli->argc > 0) cli->bus = cli->argv[0];
  cfn_cli_t nobody = *cli;
  nobody.agent = NULL;
  int r = open_bus(&nobody, 0, &bus);
  if (r == CFN_OK) {
    cfn_bus_info_t info;
    r = cfn_bus_info(bus, &info);
    if (r == CFN_OK && info.attached > 1 && !cli->force)
      r = cfn_fail(CFN_AGENT_BUSY, info.attached - 1, 0,
                   "bus '%s' is in use by %u living attachments; end them, or destroy with --force",
                   cli->bus, info.attached - 1);
    if (r == CFN_OK) r = cfn_bus_destroy(bus);
    cfn_bus_free(bus);
  } else if (cli->force && r != CFN_NO_BUS) {
    r = cfn_region_destroy_path(cli->dir, cli->bus); /* cannot be attached: corrupt, other version */
  }
  if (r >= 0 && cli->json) printf("{\"destroyed\":true}\n");
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
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
    "  inbox [NAME]         show what waits, without taking it\n"
    "  list                 the agents\n"
    "  status TEXT          set my status line\n"
    "  whoami               my name and the bus\n"
    "  destroy [BUS]        end the bus\n"
    "  demo doctor version  (and more, in Python: cfnshm VERB --help)\n"
    "\n"
    "options of all: --bus NAME (CFNSHM_BUS, 'default')  --as AGENT (CFNSHM_AGENT)  --dir DIR\n"
    "  (CFNSHM_DIR, /dev/shm)  --json  --timeout SECONDS|forever  --help\n"
    "exit codes: 0 ok, 1 error, 2 usage, 3 timed out or empty, 4 full, 5 unknown agent, 6 agent dead,\n"
    "  7 permission, 8 corrupt or other version, 9 lease lost, 10 busy, 11 no space or too large\n";

typedef struct verb {
  const char *name;
  int (*run)(cfn_cli_t *cli);
  int arguments; /* at most; more would be dropped in silence */
  const char *help;
} verb_t;

static const verb_t verbs[] = {
    {"register", verb_register, 1,
     "usage: cfnshm register NAME [--type T] [--team T] [--capabilities 'a b'] [--tags 'x y']\n"
     "                       [--status TEXT] [--agents N] [--size 64M]\n"
     "--agents and --size (CFNSHM_AGENTS, CFNSHM_SIZE) count when the bus is created.\n"},
    {"unregister", verb_unregister, 1,
     "usage: cfnshm unregister NAME [--force]\n--force: also while its process is alive.\n"},
    {"send", verb_send, 2,
     "usage: cfnshm send TO [BODY | -] [--priority control|high|normal|low] [--type T]\n"
     "                   [--body-json | --raw] [--wait] [--timeout SECONDS]\n"
     "Waits while the inbox is full (--timeout 0: exit 4 at once). --wait: until it is acked.\n"},
    {"recv", verb_recv, 0,
     "usage: cfnshm recv --as NAME [--timeout SECONDS] [--count N | --all | --follow]\n"
     "                   [--json | --shell | --raw] [--hold] [--priority LANE] [--steal]\n"
     "A message is acked when it has been written. --hold leaves that to `cfnshm ack MSG_ID`.\n"
     "--shell prints CFN_ID CFN_FROM CFN_TYPE CFN_REQUEST (1: the sender waits) CFN_REPLY CFN_PRIORITY\n"
     "CFN_REDELIVERED CFN_ENCODING (base64 where the body holds NUL) CFN_BODY for eval; on failure they are emptied and the exit code is kept.\n"},
    {"ack", verb_ack, 1048576, "usage: cfnshm ack MSG_ID... --as NAME\n"},
    {"request", verb_request, 2,
     "usage: cfnshm request TO [BODY | -] [--type T] [--timeout SECONDS (60)] [--json | --shell]\n"},
    {"reply", verb_reply, 2,
     "usage: cfnshm reply REPLY_TO [BODY | -]\nREPLY_TO: \"reply_to\" of recv --json, CFN_REPLY of recv --shell.\n"},
    {"broadcast", verb_broadcast, 1,
     "usage: cfnshm broadcast [BODY | -] [--team T] [--priority LANE] [--type T] [--timeout SECONDS]\n"
     "Prints how many agents got it.\n"},
    {"inbox", verb_inbox, 1, "usage: cfnshm inbox [NAME] [--total] [--json] [--priority LANE]\n"},
    {"list", verb_list, 0, "usage: cfnshm list [--team T] [--type T] [--json]\n"},
    {"whoami", verb_whoami, 0, "usage: cfnshm whoami [--json]\n"},
    {"status", verb_status, 1, "usage: cfnshm status TEXT --as NAME\n"},
    {"destroy", verb_destroy, 1,
     "usage: cfnshm destroy [BUS] [--force]\n--force: also while processes are attached, or if it is corrupt.\n"},
};

const char *cfn_cli_help(const char *verb) {
  for (size_t i = 0; verb && i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp(verbs[i].name, verb) == 0) return verbs[i].help;
  return general_help;
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
