/* Agents, and the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

static const char *const life_names[] = {"none", "alive", "dead"};

int cfn_verb_register(cfn_cli_t *cli) {
  const char *name = cli->argc > 0 ? cli->argv[0] : cli->agent;
  if (!name) return cfn_cli_usage(cli, "which agent? give a NAME");
  cfn_bus_t *bus;
  int r = cfn_cli_open_as_nobody(cli, CFN_CREATE_BUS, &bus);
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

int cfn_verb_unregister(cfn_cli_t *cli) {
  const char *name = cli->argc > 0 ? cli->argv[0] : cli->agent;
  if (!name) return cfn_cli_usage(cli, "which agent? give a NAME");
  cfn_bus_t *bus;
  int r = cfn_cli_open_as_nobody(cli, 0, &bus);
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

int cfn_verb_inbox(cfn_cli_t *cli) {
  const char *name = cli->argc > 0 ? cli->argv[0] : cli->agent;
  if (!name) return cfn_cli_usage(cli, "whose? give a NAME or --as");
  cfn_bus_t *bus;
  int r = cfn_cli_open_as_nobody(cli, 0, &bus);
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
    uint8_t *out = NULL;
    uint32_t *offsets = calloc(most, sizeof *offsets);
    unsigned lanes = cli->lane_set ? 1u << cli->lane : CFN_ALL_LANES;
    int64_t n = CFN_NO_MEMORY;
    int more = 1;
    for (; more && room <= UINT32_MAX; room *= 8) { /* as large as the messages want it; what is not used is not there */
      free(out);
      out = malloc(room);
      n = out && offsets ? cfn_bus_peek(bus, &at, lanes, out, room, offsets, most, &used, &more) : CFN_NO_MEMORY;
      if (n < 0 || n == most) break;
    }
    if (more) fprintf(stderr, "cfnshm inbox: there is more than can be shown\n");
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

int cfn_verb_wait(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "for whom? cfnshm wait NAME...");
  cfn_bus_t *bus;
  uint64_t deadline = cfn_cli_deadline(cli, -1);
  int r = cfn_cli_open_as_nobody(cli, CFN_CREATE_BUS, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  cfn_address_t at;
  for (int i = 0; i < cli->argc && r == CFN_OK; i++) {
    do {
      r = cfn_bus_wait_agent(bus, cli->argv[i], deadline, &at);
    } while (r == CFN_INTERRUPTED && !cfn_cli_reader_gone());
  }
  if (r == CFN_UNKNOWN_AGENT) {
    char missing[300] = "";
    for (int i = 0; i < cli->argc; i++) {
      size_t used = strlen(missing);
      if (cfn_bus_find(bus, cli->argv[i], &at) < 0)
        snprintf(missing + used, sizeof missing - used, "%s%s", used ? ", " : "", cli->argv[i]);
    }
    r = cfn_fail(CFN_TIMEOUT, 0, 0, "not registered on bus '%s' yet: %s", cli->bus, missing);
  }
  cfn_bus_free(bus);
  if (r >= 0 && cli->json) printf("{\"registered\":%d}\n", cli->argc);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

static const char *wait_name(unsigned kind) {
  static const char *const names[] = {"", "inbox", "space", "chunks", "receipt", "reply", "agent", "value",
                                      "lock", "holder", "permit", "barrier"};
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

int cfn_verb_list(cfn_cli_t *cli) {
  cfn_bus_t *bus;
  int r = cfn_cli_open_as_nobody(cli, 0, &bus);
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

int cfn_verb_whoami(cfn_cli_t *cli) {
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

int cfn_verb_status(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "what? cfnshm status TEXT (to ask: cfnshm list)");
  cfn_bus_t *bus;
  int r = cfn_cli_open(cli, CFN_NEED_AGENT, &bus);
  if (r == CFN_OK) {
    cfn_profile_t profile = {{NULL, NULL, NULL, NULL, cli->argv[0]}};
    r = cfn_bus_set_profile(bus, cli->agent, &profile);
    cfn_bus_free(bus);
  }
  if (r >= 0 && cli->json) printf("{\"ok\":true}\n");
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

int cfn_verb_destroy(cfn_cli_t *cli) {
  cfn_bus_t *bus;
  if (cli->argc > 0) cli->bus = cli->argv[0];
  int r = cfn_cli_open_as_nobody(cli, 0, &bus);
  if (r == CFN_OK) {
    r = cli->force ? cfn_bus_destroy(bus) : cfn_bus_destroy_idle(bus);
    cfn_bus_free(bus);
  } else if (cli->force) { /* also a directory without a bus in it */
    r = cfn_region_destroy_path(cli->dir, cli->bus); /* cannot be attached: corrupt, other version */
  }
  if (r >= 0 && cli->json) printf("{\"destroyed\":true}\n");
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

