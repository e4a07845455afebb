/* Objects and named values: put, get, delete, state. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

#define NAME_BYTES 72 /* sha256: and 64 digits, and the NUL */

/* ---- names of objects ---- */

static void write_name(const uint8_t digest[32], char out[NAME_BYTES]) {
  memcpy(out, "sha256:", 7);
  for (unsigned i = 0; i < 32; i++) snprintf(out + 7 + 2 * i, 3, "%02x", digest[i]);
}

static int read_name(const char *name, uint8_t digest[32]) {
  size_t bytes = strlen(name);
  bool good = bytes == NAME_BYTES - 1 && strncmp(name, "sha256:", 7) == 0 &&
              strspn(name + 7, "0123456789abcdef") == 64;
  if (!good)
    return cfn_fail(CFN_INVALID, 0, 0, "the name of an object is 'sha256:' and 64 hexadecimal digits, not '%.90s'", name);
  for (unsigned i = 0; i < 32; i++) {
    char two[3] = {name[7 + 2 * i], name[8 + 2 * i], 0};
    digest[i] = (uint8_t)strtoul(two, NULL, 16);
  }
  return CFN_OK;
}

/* ---- objects ---- */

static int put(const cfn_cli_t *cli, cfn_bus_t *bus, const void *data, uint64_t bytes) {
  uint8_t digest[32];
  char name[NAME_BYTES];
  int known = 0, r;
  cfn_sha256(data, bytes, digest);
  write_name(digest, name);
  r = cfn_bus_object_put(bus, digest, data, bytes, &known);
  if (r < 0) return r;
  if (cli->json)
    printf("{\"ref\":\"%s\",\"bytes\":%" PRIu64 ",\"known\":%s}\n", name, bytes, known ? "true" : "false");
  else
    puts(name);
  return r;
}

static int fail_too_large(const char *what, uint64_t bytes, uint64_t most) {
  return cfn_fail(CFN_TOO_LARGE, (int64_t)most, (int64_t)bytes,
                  "%s is larger than the whole heap of the bus (%.1f MiB); make the bus larger (--size, CFNSHM_SIZE)", what,
                  (double)most / (1 << 20));
}

/* Read, not mapped: its bytes must not change between their digest and the copy. No more than `most`: the heap has no room
 * for it, and that need not be found out by reading all. */
static int read_all(int fd, const char *what, uint64_t most, uint8_t **data, uint64_t *bytes) {
  uint64_t room = 1u << 16;
  struct stat st;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) room = (uint64_t)st.st_size + 1;
  if (room - 1 > most && room > 1u << 16) return fail_too_large(what, room - 1, most);
  *bytes = 0;
  *data = malloc(room);
  while (*data) {
    ssize_t n = read(fd, *data + *bytes, room - *bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cfn_fail_os("cannot read %s", what);
    if (n == 0) return CFN_OK;
    *bytes += (uint64_t)n;
    if (*bytes > most) return fail_too_large(what, *bytes, most);
    if (*bytes < room) continue;
    uint8_t *more = realloc(*data, room *= 2);
    if (!more) free(*data);
    *data = more;
  }
  return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for what is read from %s", what);
}

int cfn_verb_put(cfn_cli_t *cli) {
  const char *path = cli->argc > 0 && strcmp(cli->argv[0], "-") != 0 ? cli->argv[0] : NULL;
  uint8_t *data = NULL;
  uint64_t bytes = 0;
  cfn_bus_t *bus;
  cfn_heap_info_t heap;
  int r = cfn_cli_open_as_nobody(cli, 0, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  r = cfn_bus_heap_info(bus, &heap);
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : 0;
  if (r == CFN_OK)
    r = fd < 0 ? cfn_fail_os("cannot read %s", path)
               : read_all(fd, path ? path : "standard input", heap.heap_bytes, &data, &bytes);
  if (path && fd >= 0) close(fd);
  if (r == CFN_OK) r = put(cli, bus, data, bytes);
  free(data);
  const cfn_failure_t why = *cfn_last_failure();
  cfn_bus_free(bus);
  if (r < 0) cfn_fail(r, why.have, why.want, "%s", why.text);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

int cfn_verb_get(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "which? cfnshm get sha256:...");
  uint8_t digest[32], is[32];
  cfn_bus_t *bus = NULL;
  cfn_pin_t pin;
  int r = read_name(cli->argv[0], digest);
  if (r == CFN_OK) r = cfn_cli_open_as_nobody(cli, 0, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  r = cfn_bus_object_pin(bus, digest, &pin);
  if (r == CFN_OK) {
    cfn_sha256(pin.data, pin.bytes, is);
    if (memcmp(is, digest, 32) != 0)
      r = cfn_fail(CFN_CORRUPT, 0, 0, "the bytes of %s were changed in the bus: its digest is another now; delete it "
                   "(cfnshm delete) and put it again", cli->argv[0]);
  }
  if (r == CFN_OK && cli->json) {
    printf("{\"ref\":\"%s\",\"bytes\":%" PRIu64 ",", cli->argv[0], pin.bytes);
    cfn_show_payload("payload", cfn_json_is_text(pin.data, pin.bytes) ? CFN_CODEC_TEXT : CFN_CODEC_RAW, pin.data, pin.bytes);
    printf("}\n");
  } else if (r == CFN_OK) {
    fwrite(pin.data, 1, pin.bytes, stdout);
  }
  fflush(stdout); /* while it is held */
  cfn_bus_free(bus);
  return r < 0 ? cfn_cli_fail(cli, r) : 0;
}

int cfn_verb_delete(cfn_cli_t *cli) {
  if (cli->argc < 1) return cfn_cli_usage(cli, "which? cfnshm delete sha256:...");
  uint8_t digest[32];
  int r = CFN_OK;
  for (int i = 0; i < cli->argc && r == CFN_OK; i++) r = read_name(cli->argv[i], digest); /* all, before any goes */
  cfn_bus_t *bus = NULL;
  if (r == CFN_OK) r = cfn_cli_open_as_nobody(cli, 0, &bus);
  if (r < 0) return cfn_cli_fail(cli, r);
  int deleted = 0, first = CFN_OK;
  cfn_failure_t why = {0};
  for (int i = 0; i < cli->argc; i++) {
    read_name(cli->argv[i], digest);
    r = cfn_bus_object_delete(bus, digest);
    deleted += r == CFN_OK;
    if (r < 0 && first == CFN_OK) {
      first = r;
      why = *cfn_last_failure();
    }
  }
  cfn_bus_free(bus);
  if (first < 0) return cfn_cli_fail(cli, cfn_fail(first, 0, 0, "%s", why.text));
  if (cli->json) printf("{\"deleted\":%d}\n", deleted);
  return 0;
}

/* ---- values ---- */

static void show_value(const cfn_cli_t *cli, const cfn_ref_info_t *info, const uint8_t *value, size_t bytes) {
  if (cli->json) {
    printf("{\"key\":");
    cfn_json_string(stdout, info->key, strlen(info->key));
    printf(",\"version\":%" PRIu64 ",\"changed\":", info->version);
    cfn_json_time(stdout, info->changed_wall_ns);
    putchar(',');
    cfn_show_payload("value", info->codec, value, bytes);
    printf("}\n");
  } else {
    fwrite(value, 1, bytes, stdout);
    if (!cli->as_raw && (bytes == 0 || value[bytes - 1] != '\n')) putchar('\n');
  }
}

static int show(const cfn_cli_t *cli, cfn_bus_t *bus, const char *key) {
  uint8_t *value = NULL;
  cfn_ref_info_t info;
  uint64_t room = 0;
  int64_t n;
  for (;;) {
    n = cfn_bus_ref_get(bus, key, (uint32_t)strlen(key), value, room, &info);
    if (n < 0 || (uint64_t)n <= room) break;
    free(value);
    room = (uint64_t)n + 64;
    value = malloc(room);
    if (!value) return cfn_fail(CFN_NO_MEMORY, 0, n, "no memory for a value of %" PRId64 " bytes", n);
  }
  if (n >= 0) show_value(cli, &info, value, (size_t)n);
  free(value);
  return n < 0 ? (int)n : CFN_OK;
}

static int state_get(const cfn_cli_t *cli, cfn_bus_t *bus, const char *key) { return show(cli, bus, key); }

static void show_version(const cfn_cli_t *cli, const char *key, uint64_t version) {
  if (!cli->json) return;
  printf("{\"key\":");
  cfn_json_string(stdout, key, strlen(key));
  printf(",\"version\":%" PRIu64 "}\n", version);
}

static int state_set(const cfn_cli_t *cli, cfn_bus_t *bus, const char *key) {
  uint8_t *body;
  uint32_t bytes;
  uint64_t version;
  int r = cfn_cli_read_body(cli, 2, &body, &bytes);
  if (r == CFN_OK) r = cfn_cli_check_json(cli, body, bytes);
  if (r == CFN_OK)
    r = cfn_bus_ref_set(bus, key, (uint32_t)strlen(key), cli->version, cfn_cli_codec(cli, body, bytes), body, bytes,
                        &version);
  free(body);
  if (r == CFN_OK) show_version(cli, key, version);
  return r;
}

static int state_delete(const cfn_cli_t *cli, cfn_bus_t *bus, const char *key) {
  int r = cfn_bus_ref_delete(bus, key, (uint32_t)strlen(key), cli->version);
  if (r == CFN_OK) show_version(cli, key, 0);
  return r;
}

static int state_incr(const cfn_cli_t *cli, cfn_bus_t *bus, const char *key) {
  int64_t by = 1, sum;
  uint64_t version;
  if (cli->argc > 2) {
    char *end;
    errno = 0;
    by = strtoll(cli->argv[2], &end, 10);
    if (!*cli->argv[2] || *end || errno)
      return cfn_fail(CFN_INVALID, 0, 0, "'%.60s' is no whole number of 64 bits", cli->argv[2]);
  }
  int r = cfn_bus_ref_add(bus, key, (uint32_t)strlen(key), by, &sum, &version);
  if (r < 0) return r;
  if (cli->json) {
    printf("{\"key\":");
    cfn_json_string(stdout, key, strlen(key));
    printf(",\"version\":%" PRIu64 ",\"value\":%" PRId64 "}\n", version, sum);
  } else {
    printf("%" PRId64 "\n", sum);
  }
  return CFN_OK;
}

static int state_wait(const cfn_cli_t *cli, cfn_bus_t *bus, const char *key) {
  uint32_t bytes = (uint32_t)strlen(key);
  uint64_t seen = cli->version, now, deadline = cfn_cli_deadline(cli, -1);
  int r = CFN_OK;
  if (seen == CFN_ANY_VERSION) {
    cfn_ref_info_t info;
    int64_t n = cfn_bus_ref_get(bus, key, bytes, NULL, 0, &info);
    seen = n >= 0 ? info.version : 0;
    if (n < 0 && n != CFN_UNKNOWN_KEY) r = (int)n;
  }
  while (r == CFN_OK) {
    r = cfn_bus_ref_wait(bus, key, bytes, seen, deadline, &now);
    if (r != CFN_INTERRUPTED) break;
    r = CFN_OK;
  }
  if (r < 0) return r;
  if (now) r = show(cli, bus, key);
  if (!now || r == CFN_UNKNOWN_KEY) { /* what came was a deletion */
    if (!cli->json) return cfn_fail(CFN_UNKNOWN_KEY, 0, 0, "value '%s' was deleted", key);
    show_version(cli, key, 0);
    r = CFN_OK;
  }
  return r;
}

static int by_key(const void *a, const void *b) {
  return strcmp(((const cfn_ref_info_t *)a)->key, ((const cfn_ref_info_t *)b)->key);
}

static int state_list(const cfn_cli_t *cli, cfn_bus_t *bus, const char *prefix) {
  uint64_t most = 256;
  cfn_ref_info_t *all = NULL;
  int64_t n;
  for (;;) {
    free(all);
    all = malloc(most * sizeof *all);
    n = all ? cfn_bus_ref_list(bus, prefix, (uint32_t)strlen(prefix), all, most)
            : cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory for %" PRIu64 " values", most);
    if (n < 0 || (uint64_t)n <= most) break;
    most = (uint64_t)n + 64;
  }
  if (n > 0) qsort(all, (size_t)n, sizeof *all, by_key);
  for (int64_t i = 0; i < n; i++) {
    if (cli->json) {
      printf("{\"key\":");
      cfn_json_string(stdout, all[i].key, strlen(all[i].key));
      printf(",\"version\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"changed\":", all[i].version, all[i].bytes);
      cfn_json_time(stdout, all[i].changed_wall_ns);
      printf("}\n");
    } else {
      puts(all[i].key);
    }
  }
  free(all);
  return n < 0 ? (int)n : CFN_OK;
}

int cfn_verb_state(cfn_cli_t *cli) {
  static const struct {
    const char *name;
    int (*run)(const cfn_cli_t *, cfn_bus_t *, const char *);
    int least, most; /* words behind "state" */
  } verbs[] = {
      {"list", state_list, 1, 2},     {"get", state_get, 2, 2},   {"set", state_set, 2, 3},
      {"delete", state_delete, 2, 2}, {"incr", state_incr, 2, 3}, {"wait", state_wait, 2, 2},
  };
  const char *what = cli->argc ? cli->argv[0] : "list";
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    if (strcmp(verbs[i].name, what) != 0) continue;
    if (cli->argc && cli->argc < verbs[i].least) return cfn_cli_usage(cli, "which key?");
    if (cli->argc > verbs[i].most) return cfn_cli_usage(cli, "too many words; quote a text of several");
    cfn_bus_t *bus;
    int r = cfn_cli_open(cli, 0, &bus);
    if (r < 0) return cfn_cli_fail(cli, r);
    r = verbs[i].run(cli, bus, cli->argc > 1 ? cli->argv[1] : "");
    const cfn_failure_t why = *cfn_last_failure();
    cfn_bus_free(bus);
    if (r < 0) cfn_fail(r, why.have, why.want, "%s", why.text);
    return r < 0 ? cfn_cli_fail(cli, r) : 0;
  }
  return cfn_cli_usage(cli, "list, get, set, delete, incr or wait?");
}
