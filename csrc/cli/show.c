#include "cli/show.h"

#include <stdio.h>
#include <string.h>

#include "cli/json.h"

const char *const cfn_lane_names[CFN_LANES] = {"control", "high", "normal", "low"};

static const uint8_t *wire_body(const cfn_wire_t *w) {
  if (w->wire_flags & CFN_WIRE_EXTERNAL) return (const uint8_t *)(uintptr_t)w->external;
  return (const uint8_t *)(w + 1) + w->sender_bytes + w->type_bytes;
}

void cfn_show_id(FILE *out, const cfn_wire_t *w) {
  fprintf(out, "%u.%llu.%llu", w->source_att, (unsigned long long)w->source_inc,
          (unsigned long long)w->sequence);
}

/* What `reply` takes: enough to answer without the message. */
static void show_reply_token(FILE *out, const cfn_wire_t *w, const char *sender) {
  if (w->flags & CFN_MESSAGE_REQUEST)
    fprintf(out, "request:%u:%llu:%llu", w->source_att, (unsigned long long)w->source_inc,
            (unsigned long long)w->correlation);
  else if (w->sender_bytes)
    fprintf(out, "message:%llu:%.*s", (unsigned long long)w->sequence, w->sender_bytes, sender);
}

void cfn_show_payload(const char *name, unsigned codec, const uint8_t *body, size_t bytes) {
  printf("\"%s\":", name);
  if (codec == CFN_CODEC_JSON && cfn_json_valid(body, bytes)) {
    for (size_t i = 0; i < bytes; i++) /* one line each: breaks are only white space here */
      putchar(body[i] == '\n' || body[i] == '\r' ? ' ' : body[i]);
  } else if (codec != CFN_CODEC_RAW && codec != CFN_CODEC_ARRAY && cfn_json_is_text(body, bytes)) {
    cfn_json_string(stdout, (const char *)body, bytes);
  } else {
    printf("\"");
    cfn_base64(stdout, body, bytes);
    printf("\",\"encoding\":\"base64\"");
  }
}

void cfn_show_json(const cfn_wire_t *w, const char *to) {
  const char *sender = (const char *)(w + 1), *type = sender + w->sender_bytes;
  const uint8_t *body = wire_body(w);
  printf("{\"msg_id\":\"");
  cfn_show_id(stdout, w);
  printf("\",\"from\":");
  cfn_json_string(stdout, sender, w->sender_bytes);
  printf(",\"to\":");
  cfn_json_string(stdout, to, strlen(to));
  printf(",\"type\":");
  cfn_json_string(stdout, type, w->type_bytes);
  printf(",\"sequence\":%llu,\"timestamp\":", (unsigned long long)w->sequence);
  cfn_json_time(stdout, w->wall_ns);
  printf(",\"priority\":\"%s\",\"position\":%llu,\"redelivered\":%s,\"deliveries\":%u",
         cfn_lane_names[w->lane & 3], (unsigned long long)w->position,
         w->wire_flags & CFN_WIRE_REDELIVERED ? "true" : "false", w->deliveries);
  if (w->correlation && !(w->flags & CFN_MESSAGE_REQUEST))
    printf(",\"correlation_id\":\"%llu\"", (unsigned long long)w->correlation);
  if (w->flags & CFN_MESSAGE_FAILURE) printf(",\"failure\":true");
  printf(",\"is_request\":%s,\"reply_to\":\"", w->flags & CFN_MESSAGE_REQUEST ? "true" : "false");
  show_reply_token(stdout, w, sender);
  printf("\",");
  cfn_show_payload("payload", w->codec, body, w->body_bytes);
  printf("}\n");
}

static void shell_quote(const char *name, const uint8_t *text, size_t n) {
  printf("%s='", name);
  for (size_t i = 0; i < n; i++) {
    if (text[i] == '\'') fputs("'\\''", stdout);
    else if (text[i]) putchar(text[i]);
  }
  printf("'\n");
}

static void show_shell(const cfn_wire_t *w) {
  const char *sender = (const char *)(w + 1), *type = sender + w->sender_bytes;
  printf("CFN_ID='");
  cfn_show_id(stdout, w);
  printf("'\n");
  shell_quote("CFN_FROM", (const uint8_t *)sender, w->sender_bytes);
  shell_quote("CFN_TYPE", (const uint8_t *)type, w->type_bytes);
  printf("CFN_REQUEST='%s'\nCFN_REPLY='", w->flags & CFN_MESSAGE_REQUEST ? "1" : "");
  show_reply_token(stdout, w, sender);
  printf("'\nCFN_PRIORITY='%s'\nCFN_REDELIVERED='%d'\n", cfn_lane_names[w->lane & 3],
         w->wire_flags & CFN_WIRE_REDELIVERED ? 1 : 0);
  const uint8_t *body = wire_body(w);
  bool plain = memchr(body, 0, w->body_bytes) == NULL; /* a shell variable cannot hold NUL */
  printf("CFN_ENCODING='%s'\n", plain ? "" : "base64");
  if (plain) {
    shell_quote("CFN_BODY", body, w->body_bytes);
  } else {
    printf("CFN_BODY='");
    cfn_base64(stdout, body, w->body_bytes);
    printf("'\n");
  }
}

void cfn_show(const cfn_cli_t *cli, const cfn_wire_t *w, const char *to) {
  if (cli->json) {
    cfn_show_json(w, to);
  } else if (cli->shell) {
    show_shell(w);
  } else {
    const uint8_t *body = wire_body(w);
    fwrite(body, 1, w->body_bytes, stdout);
    if (!cli->as_raw && (w->body_bytes == 0 || body[w->body_bytes - 1] != '\n')) putchar('\n');
  }
}
