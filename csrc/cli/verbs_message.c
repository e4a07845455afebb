/* Messages: send, receive, ack, ask, answer. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

#define OUT_BYTES (sizeof(cfn_wire_t) + 1024u + (1u << 16))

static cfn_outgoing_t outgoing(const cfn_cli_t *cli, const uint8_t *body, uint32_t bytes) {
  uint8_t codec = cfn_cli_codec(cli, body, bytes);
  return (cfn_outgoing_t){.body = body,
                          .body_bytes = bytes,
                          .type = cli->type,
                          .type_bytes = cli->type ? (uint8_t)strlen(cli->type) : 0,
                          .codec = codec};
}

static int check_type(const cfn_cli_t *cli) {
  if (cli->type && strlen(cli->type) > CFN_TYPE_BYTES_MAX)
    return cfn_fail(CFN_INVALID, CFN_TYPE_BYTES_MAX, (int64_t)strlen(cli->type),
                    "--type has at most %u bytes", CFN_TYPE_BYTES_MAX);
  return CFN_OK;
}

/* Everything that a verb needs before it sends: what is wrong is told before the bus is touched. The body
 * (`argument` says where it stands) is the caller's to free, also after a failure. */
static int prepare(const cfn_cli_t *cli, int argument, uint8_t **body, uint32_t *bytes, cfn_bus_t **bus) {
  *body = NULL;
  *bytes = 0;
  *bus = NULL;
  int r = check_type(cli);
  if (r == CFN_OK) r = cfn_cli_read_body(cli, argument, body, bytes);
  if (r == CFN_OK) r = cfn_cli_check_json(cli, *body, *bytes);
  return r == CFN_OK ? cfn_cli_open(cli, CFN_CREATE_AGENT, bus) : r;
}

void cfn_cli_empty_variables(const cfn_cli_t *cli, int status) {
  if (cli->shell)
    printf("CFN_ID='' CFN_FROM='' CFN_TYPE='' CFN_REQUEST='' CFN_REPLY='' CFN_PRIORITY='' CFN_REDELIVERED='' "
           "CFN_BODY='' CFN_ENCODING=''\n(exit %d)\n", status);
}

static int fail_shell(const cfn_cli_t *cli, int r) {
  int status = cfn_cli_fail(cli, r);
  cfn_cli_empty_variables(cli, status);
  return status;
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

/* Waits for the ack. A failure names the message: it is stored, and must not be sent again. */
static int wait_receipt(cfn_bus_t *bus, const cfn_receipt_t *t, uint64_t deadline) {
  int r;
  do {
    r = cfn_bus_receipt_wait(bus, t, CFN_RECEIPT_ACKED, deadline);
  } while (r == CFN_INTERRUPTED);
  if (r == CFN_RECEIPT_DROPPED)
    r = cfn_fail(CFN_STALE, 0, 0, "the agent was unregistered before it acked");
  if (r >= 0) return r;
  const cfn_failure_t why = *cfn_last_failure();
  return cfn_fail(r, 0, 0, "message %u.%llu.%llu was sent, but: %s", cfn_bus_attachment(bus),
                  (unsigned long long)cfn_bus_attachment_inc(bus),
                  (unsigned long long)t->first_sequence, why.text);
}

/* The same id that the receiver is shown. */
static void show_sent_id(const cfn_bus_t *bus, const cfn_receipt_t *receipt) {
  printf("\"msg_id\":\"%u.%llu.%llu\"", cfn_bus_attachment(bus),
         (unsigned long long)cfn_bus_attachment_inc(bus), (unsigned long long)receipt->first_sequence);
}

int cfn_verb_send(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "to whom? cfnshm send TO [BODY | -]");
  uint8_t *body;
  uint32_t bytes;
  cfn_bus_t *bus;
  int r = prepare(cli, 1, &body, &bytes, &bus);
  cfn_receipt_t receipt = {0};
  if (r == CFN_OK) {
    cfn_outgoing_t m = outgoing(cli, body, bytes);
    r = send_waiting(bus, cli->argv[0], cli->lane, &m, cfn_cli_deadline(cli, -1), &receipt);
    if (r == CFN_OK && cli->wait_ack) r = wait_receipt(bus, &receipt, cfn_cli_deadline(cli, -1));
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

bool cfn_cli_reader_gone(void) {
  struct pollfd p = {1, 0, 0};
  return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLNVAL));
}

/* One message: 0, or an error. */
static int receive_one(cfn_bus_t *bus, unsigned lanes, uint64_t deadline, uint8_t *out) {
  int64_t n;
  do {
    n = cfn_bus_recv(bus, NULL, 0, lanes, 0, deadline, out, OUT_BYTES);
  } while (n == CFN_INTERRUPTED && !cfn_cli_reader_gone());
  if (n == CFN_INTERRUPTED) return cfn_fail(CFN_CLOSED, 0, 0, "nobody reads the output any more");
  return n < 0 ? (int)n : CFN_OK;
}

int cfn_verb_recv(cfn_cli_t *cli) {
  if (cli->shell && (cli->all || cli->follow || cli->count > 1))
    return cfn_cli_usage(cli, "--shell gives the variables of one message; leave --all, --follow, --count away");
  cfn_bus_t *bus;
  int r = cfn_cli_open(cli, CFN_NEED_AGENT, &bus);
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
  if (r == CFN_EMPTY && got > 0) r = CFN_OK; /* what came was printed and acked: a failure would disown it */
  return r < 0 ? fail_shell(cli, r) : 0;
}

/* Is it there? Looked up before anything is taken: taking marks what is passed as seen. */
static int find_id(cfn_bus_t *bus, const char *agent, unsigned att, uint64_t inc, uint64_t sequence) {
  size_t room = 1u << 26, used;
  uint32_t most = 1u << 17;
  uint8_t *all = malloc(room);
  uint32_t *offsets = calloc(most, sizeof *offsets);
  cfn_address_t at;
  int more = 0, r = cfn_bus_find(bus, agent, &at);
  int64_t n = CFN_NO_MEMORY;
  if (r == CFN_OK && all && offsets) n = cfn_bus_peek(bus, &at, CFN_ALL_LANES, all, room, offsets, most, &used, &more);
  if (r == CFN_OK) r = n < 0 ? (int)n : more ? CFN_OK : CFN_EMPTY;
  for (int64_t i = 0; i < n; i++) {
    const cfn_wire_t *w = (const void *)(all + offsets[i]);
    if (w->source_att == att && w->source_inc == inc && w->sequence == sequence) r = CFN_OK;
  }
  free(all);
  free(offsets);
  return r;
}

/* Finds the message `id` in the inbox and acks it. Everything before it keeps its place. */
static int ack_id(cfn_bus_t *bus, const char *agent, const char *id, uint8_t *out) {
  unsigned att;
  unsigned long long inc, sequence;
  if (sscanf(id, "%u.%llu.%llu", &att, &inc, &sequence) != 3)
    return cfn_fail(CFN_INVALID, 0, 0, "'%s' is not a message id (as in 7.1.42)", id);
  int there = cfn_bus_claim_inbox(bus, 0);
  if (there == CFN_OK) there = find_id(bus, agent, att, inc, sequence);
  if (there == CFN_EMPTY) return cfn_fail(CFN_EMPTY, 0, 0, "no message %s in the inbox: acked already?", id);
  if (there < 0) return there;
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

int cfn_verb_ack(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "which message? cfnshm ack MSG_ID...");
  cfn_bus_t *bus;
  int r = cfn_cli_open(cli, CFN_NEED_AGENT, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  uint8_t *out = malloc(OUT_BYTES);
  if (!out) r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for a message");
  int acked = 0, first = r;
  for (int i = 0; i < cli->argc && r >= 0; i++) { /* all of them; what is missing is told at the end */
    int one = ack_id(bus, cli->agent, cli->argv[i], out);
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

int cfn_verb_request(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "whom? cfnshm request TO [BODY | -]");
  uint8_t *body;
  uint32_t bytes;
  cfn_bus_t *bus;
  int r = prepare(cli, 1, &body, &bytes, &bus);
  uint8_t *out = malloc(OUT_BYTES);
  bool failure = false;
  if (r == CFN_OK && !out) r = cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for an answer");
  if (r == CFN_OK) {
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

int cfn_verb_reply(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "to what? cfnshm reply REPLY_TO [BODY | -]");
  const char *token = cli->argv[0];
  unsigned att;
  unsigned long long inc, correlation;
  int name_at = 0;
  bool request = sscanf(token, "request:%u:%llu:%llu", &att, &inc, &correlation) == 3;
  if (!request && sscanf(token, "message:%llu:%n", &correlation, &name_at) != 1)
    return cfn_cli_usage(cli, "REPLY_TO is what recv gave: \"reply_to\" of --json, CFN_REPLY of --shell");
  uint8_t *body;
  uint32_t bytes;
  cfn_bus_t *bus;
  int r = prepare(cli, 1, &body, &bytes, &bus);
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

/* Who got it and who did not; where somebody did not, it is an error object too. */
static void show_broadcast(cfn_bus_t *bus, const cfn_address_t *to, const int *result, int n, int got,
                           int worst) {
  printf("{\"agents\":%d,\"delivered\":%d", n, got);
  if (worst < 0) {
    printf(",\"error\":\"%d of %d agents did not get it: %s\",\"code\":\"%s\",\"missing\":{", n - got, n,
           cfn_error_text(worst), cfn_error_name(worst));
    const char *comma = "";
    for (int i = 0; i < n; i++) {
      cfn_agent_info_t info;
      if (result[i] >= 0 || cfn_bus_agent_info(bus, &to[i], &info) < 0) continue;
      printf("%s\"%s\":\"%s\"", comma, info.name, cfn_error_name(result[i]));
      comma = ",";
    }
    printf("}");
  }
  printf("}\n");
}

int cfn_verb_broadcast(cfn_cli_t *cli) {
  uint8_t *body;
  uint32_t bytes;
  cfn_bus_t *bus;
  int r = prepare(cli, 0, &body, &bytes, &bus);
  if (r < 0) {
    free(body);
    return cfn_cli_fail(cli, r);
  }
  uint32_t most = cfn_bus_region(bus)->geo.config.agents;
  cfn_address_t *to = calloc(most, sizeof *to);
  int *result = calloc(most, sizeof *result);
  cfn_receipt_t *receipt = calloc(most, sizeof *receipt);
  if (!to || !result || !receipt) {
    cfn_bus_free(bus); /* the rest goes with the process */
    return cfn_cli_fail(cli, cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for %u agents", most));
  }
  cfn_outgoing_t m = outgoing(cli, body, bytes);
  int all = cfn_bus_agents(bus, to, most), n = 0, got = 0, worst = CFN_OK;
  cfn_agent_info_t info;
  for (int i = 0; i < all; i++) {
    if (cfn_bus_agent_info(bus, &to[i], &info) < 0) continue;
    if (cli->agent && strcmp(info.name, cli->agent) == 0) continue;
    if (cli->team && strcmp(info.text[CFN_TEXT_TEAM], cli->team) != 0) continue;
    to[n++] = to[i];
  }
  r = cfn_bus_broadcast(bus, to, (uint32_t)n, cli->lane, &m, 0, result, receipt); /* everybody first */
  uint64_t deadline = cfn_cli_deadline(cli, -1);
  for (int i = 0; i < n && r >= 0; i++) {
    while (result[i] == CFN_FULL || result[i] == CFN_NO_SPACE || result[i] == CFN_INTERRUPTED) {
      result[i] = cfn_bus_send(bus, &to[i], cli->lane, &m, 1, deadline, NULL); /* then wait for the full */
      if (result[i] != CFN_INTERRUPTED) break;
    }
    if (result[i] == CFN_OK) got++;
    else if (result[i] != CFN_STALE) worst = result[i];
  }
  if (r >= 0 && cli->json) show_broadcast(bus, to, result, n, got, worst);
  else if (r >= 0) printf("%d\n", got);
  if (r >= 0 && worst < 0 && !cli->json)
    fprintf(stderr, "cfnshm broadcast: %d of %d agents did not get it: %s\n", n - got, n,
            cfn_error_text(worst));
  cfn_bus_free(bus);
  free(to);
  free(result);
  free(receipt);
  free(body);
  return r < 0 ? cfn_cli_fail(cli, r) : cfn_error_exit_status(worst);
}

