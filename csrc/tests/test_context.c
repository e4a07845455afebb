/* Objects and named values: what is put is there, once; what nobody holds goes; what is held stays; versions decide who
 * changed first; nothing that a death leaves is lost for good. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/bus.h"
#include "agent/liveness.h"
#include "base/os.h"
#include "mem/heap.h"
#include "mem/index.h"
#include "sync/refs.h"
#include "tests/harness.h"

static cfn_bus_t *a, *b;
static cfn_region_t *r;
static uint8_t big[64 * CFN_PAGE + 1], out[64 * CFN_PAGE + 1];

static void start_with(uint32_t objects, uint32_t pages, uint32_t refs) {
  cfn_wish_t wish = t_small_wish();
  wish.objects = objects;
  wish.object_pages = pages;
  wish.refs = refs;
  a = t_open("a", &wish);
  b = t_attach("b");
  r = cfn_bus_region(a);
}
static void start(void) { start_with(16, 64, 8); }
static void end(void) {
  t_check_region(a, true);
  t_close(b);
  t_close(a);
  t_destroy();
}

/* A digest as good as any: the core does not compute it. */
static const uint8_t *digest_of(uint64_t id) {
  static uint8_t d[4][32];
  static unsigned turn;
  uint8_t *one = d[turn++ % 4];
  for (unsigned i = 0; i < 32; i++) one[i] = (uint8_t)((id * 2654435761u + i * 40503u) >> (i % 3 * 8));
  memcpy(one + 8, &id, 8);
  return one;
}
static int put(cfn_bus_t *bus, uint64_t id, uint64_t bytes) {
  int known = -1;
  memset(big, (int)id, bytes);
  int e = cfn_bus_object_put(bus, digest_of(id), big, bytes, &known);
  return e < 0 ? e : known;
}
static int64_t get(cfn_bus_t *bus, uint64_t id) {
  memset(out, 0xee, sizeof out);
  int64_t n = cfn_bus_object_get(bus, digest_of(id), out, sizeof out);
  for (int64_t i = 0; i < n; i++)
    if (out[i] != (uint8_t)id) return -1000;
  return n;
}
static uint32_t blobs(void) {
  cfn_heap_info_t info;
  CHECK_INT(cfn_bus_heap_info(a, &info), 0);
  return info.objects;
}
static uint64_t version;
static int set(cfn_bus_t *bus, const char *key, uint64_t expect, const char *text) {
  return cfn_bus_ref_set(bus, key, (uint32_t)strlen(key), expect, CFN_CODEC_TEXT, text, strlen(text), &version);
}
static char *value(cfn_bus_t *bus, const char *key) {
  static char text[4096];
  cfn_ref_info_t info;
  int64_t n = cfn_bus_ref_get(bus, key, (uint32_t)strlen(key), text, sizeof text - 1, &info);
  if (n < 0) return NULL;
  CHECK(n < (int64_t)sizeof text);
  CHECK_INT(info.bytes, n);
  text[n] = 0;
  version = info.version;
  return text;
}
#define VALUE(bus, key, want) CHECK(value(bus, key) && strcmp(value(bus, key), want) == 0)

/* ---- objects ---- */

static void objects(void) {
  static const uint64_t sizes[] = {0, 1, 175, 176, 177, 4095, 4096, 4097, 8192, 20000};
  start();
  for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    t_case("an object of %llu bytes", (unsigned long long)sizes[i]);
    CHECK_INT(get(b, i), CFN_UNKNOWN_OBJECT);
    CHECK_INT(put(a, i, sizes[i]), 0);
    CHECK_INT(get(b, i), (int64_t)sizes[i]);
    CHECK_INT(cfn_bus_object_bytes(b, digest_of(i)), (int64_t)sizes[i]);
    CHECK_INT(put(b, i, sizes[i]), 1); /* known: nothing is stored again */
    cfn_pin_t pin;
    CHECK_INT(cfn_bus_object_pin(b, digest_of(i), &pin), 0);
    CHECK_INT(pin.bytes, sizes[i]);
    for (uint64_t k = 0; k < pin.bytes; k++) CHECK(((const uint8_t *)pin.data)[k] == (uint8_t)i);
    CHECK_INT(cfn_bus_object_delete(a, digest_of(i)), 0);
    CHECK_INT(cfn_bus_object_delete(a, digest_of(i)), CFN_UNKNOWN_OBJECT);
    CHECK_INT(get(a, i), CFN_UNKNOWN_OBJECT);
    CHECK_INT(cfn_bus_collect(a), 0); /* the pin holds it */
    for (uint64_t k = 0; k < pin.bytes; k++) CHECK(((const uint8_t *)pin.data)[k] == (uint8_t)i);
    cfn_bus_object_unpin(b, pin.pin, pin.word);
    CHECK_INT(cfn_bus_collect(a), 1);
    CHECK_INT(blobs(), 0);
  }
  t_case("room that is too small: its size is told, nothing is written");
  CHECK_INT(put(a, 7, 5000), 0);
  out[0] = 0x55;
  CHECK_INT(cfn_bus_object_get(b, digest_of(7), out, 4999), 5000);
  CHECK_INT(out[0], 0x55);
  t_case("a list");
  uint64_t before = cfn_os_wall_ns();
  CHECK_INT(put(b, 8, 10), 0);
  cfn_object_info_t list[4];
  CHECK_INT(cfn_bus_object_list(a, list, 4), 2);
  for (int i = 0; i < 2; i++)
    if (list[i].bytes == 10) CHECK(list[i].made_wall_ns >= before && list[i].made_wall_ns <= cfn_os_wall_ns());
  CHECK_INT(list[0].bytes + list[1].bytes, 5010);
  CHECK_INT(cfn_bus_object_list(a, list, 1), 2);
  t_case("figures");
  cfn_heap_info_t info;
  CHECK_INT(cfn_bus_heap_info(b, &info), 0);
  CHECK_INT(info.objects, 2);
  CHECK_INT(info.bytes, 5010);
  CHECK_INT(info.used_bytes, 2 * CFN_PAGE);
  CHECK_INT(info.heap_bytes, 64 * CFN_PAGE);
  CHECK_INT(info.put_bytes - info.stored_bytes, 175 + 1 + 176 + 177 + 4095 + 4096 + 4097 + 8192 + 20000);
  end();
}

static void scarce(void) {
  t_case("more than the heap ever has");
  start_with(16, 8, 8);
  CHECK_INT(put(a, 1, 8 * CFN_PAGE + 1), CFN_TOO_LARGE);
  CHECK_INT(cfn_last_failure()->have, 8 * CFN_PAGE);
  t_case("all pages of one, then none for another, then again");
  CHECK_INT(put(a, 1, 8 * CFN_PAGE), 0);
  CHECK_INT(put(a, 2, 1000), CFN_NO_SPACE);
  CHECK(strstr(cfn_last_failure()->text, "MiB"));
  CHECK_INT(get(b, 1), 8 * CFN_PAGE);
  CHECK_INT(cfn_bus_object_delete(b, digest_of(1)), 0);
  CHECK_INT(put(b, 2, 8 * CFN_PAGE), 0); /* collects by itself */
  CHECK_INT(get(a, 2), 8 * CFN_PAGE);
  CHECK_INT(cfn_bus_object_delete(b, digest_of(2)), 0);
  t_case("gaps between what is held");
  for (uint64_t i = 10; i < 18; i++) CHECK_INT(put(a, i, CFN_PAGE), 0);
  for (uint64_t i = 10; i < 18; i += 2) CHECK_INT(cfn_bus_object_delete(a, digest_of(i)), 0);
  CHECK_INT(put(a, 20, 2 * CFN_PAGE), CFN_NO_SPACE);
  CHECK_INT(cfn_last_failure()->have, CFN_PAGE); /* the longest run */
  for (uint64_t i = 30; i < 34; i++) CHECK_INT(put(b, i, CFN_PAGE), 0);
  for (uint64_t i = 11; i < 18; i += 2) CHECK_INT(get(b, i), CFN_PAGE);
  for (uint64_t i = 30; i < 34; i++) CHECK_INT(get(a, i), CFN_PAGE);
  end();
  t_case("all records in use");
  start_with(4, 8, 8);
  for (uint64_t i = 0; i < 4; i++) CHECK_INT(put(a, i, 10), 0);
  CHECK_INT(put(a, 5, 10), CFN_NO_SPACE);
  CHECK_INT(set(a, "k", CFN_ANY_VERSION, "v"), CFN_NO_SPACE);
  CHECK_INT(cfn_bus_object_delete(b, digest_of(0)), 0);
  CHECK_INT(put(a, 5, 10), 0);
  end();
  t_case("a record that was used for more pages before: the others are free");
  start_with(2, 8, 8);
  CHECK_INT(put(a, 1, 8 * CFN_PAGE), 0);
  CHECK_INT(cfn_bus_object_delete(b, digest_of(1)), 0);
  CHECK_INT(put(a, 2, CFN_PAGE), 0); /* in one of the two records ... */
  CHECK_INT(put(a, 3, CFN_PAGE), 0); /* ... and in the other */
  CHECK_INT(cfn_bus_object_delete(b, digest_of(2)), 0);
  CHECK_INT(put(a, 4, 6 * CFN_PAGE), 0);
  CHECK_INT(get(b, 3), CFN_PAGE);
  CHECK_INT(get(b, 4), 6 * CFN_PAGE);
  end();
  start_with(4, 8, 8);
  for (uint64_t i = 1; i < 4; i++) CHECK_INT(put(a, i, 10), 0);
  CHECK_INT(put(a, 5, 10), 0);
  t_case("more pins than a handle has cells");
  cfn_pin_t pin[CFN_LEDGER];
  for (unsigned i = 0; i < CFN_LEDGER - 2; i++) CHECK_INT(cfn_bus_object_pin(b, digest_of(5), &pin[i]), 0);
  CHECK_INT(cfn_bus_object_pin(b, digest_of(5), &pin[CFN_LEDGER - 2]), CFN_OVER_CAPACITY);
  CHECK_INT(get(b, 5), 10); /* calls in passing go on */
  cfn_bus_object_unpin(b, pin[3].pin, pin[3].word);
  CHECK_INT(cfn_bus_object_pin(b, digest_of(5), &pin[3]), 0);
  CHECK_INT(cfn_bus_object_delete(a, digest_of(5)), 0);
  CHECK_INT(cfn_bus_collect(a), 0);
  t_case("pins of a handle that is closed are given back");
  t_close(b);
  CHECK_INT(cfn_bus_collect(a), 1);
  b = t_attach("b");
  end();
}

/* ---- values ---- */

static void values(void) {
  start();
  t_case("set, get, change, delete");
  CHECK(!value(a, "k"));
  CHECK_INT(cfn_last_failure()->code, CFN_UNKNOWN_KEY);
  CHECK_INT(set(a, "k", CFN_ANY_VERSION, "one"), 0);
  uint64_t first = version;
  VALUE(b, "k", "one");
  CHECK(version == first);
  CHECK_INT(set(b, "k", CFN_ANY_VERSION, "two"), 0);
  CHECK(version > first);
  VALUE(a, "k", "two");
  t_case("under a condition");
  uint64_t second = version;
  CHECK_INT(set(a, "k", first, "x"), CFN_CONFLICT);
  CHECK(cfn_last_failure()->have == (int64_t)second);
  CHECK_INT(set(a, "k", 0, "x"), CFN_CONFLICT);
  VALUE(a, "k", "two");
  CHECK_INT(set(a, "k", second, "three"), 0);
  VALUE(b, "k", "three");
  CHECK_INT(cfn_bus_ref_delete(b, "k", 1, second), CFN_CONFLICT);
  CHECK_INT(cfn_bus_ref_delete(b, "k", 1, version), 0);
  CHECK(!value(a, "k"));
  CHECK_INT(cfn_bus_ref_delete(b, "k", 1, CFN_ANY_VERSION), CFN_UNKNOWN_KEY);
  CHECK_INT(set(a, "k", second, "x"), CFN_UNKNOWN_KEY); /* a change of what was deleted */
  CHECK_INT(set(a, "k", 0, "again"), 0);
  CHECK(version > second);
  t_case("large values, and none");
  static char text[3000];
  memset(text, 'x', sizeof text - 1);
  CHECK_INT(set(a, "large", CFN_ANY_VERSION, text), 0);
  VALUE(b, "large", text);
  CHECK_INT(set(a, "empty", CFN_ANY_VERSION, ""), 0);
  VALUE(b, "empty", "");
  CHECK_INT(cfn_bus_ref_get(b, "large", 5, out, 10, NULL), 2999); /* its size */
  t_case("keys");
  char key[CFN_KEY_BYTES + 1];
  memset(key, 'k', sizeof key);
  key[CFN_KEY_BYTES - 1] = 0;
  CHECK_INT(set(a, key, CFN_ANY_VERSION, "long"), 0);
  VALUE(b, key, "long");
  key[CFN_KEY_BYTES - 1] = 'k';
  key[CFN_KEY_BYTES] = 0;
  CHECK_INT(set(a, key, CFN_ANY_VERSION, "x"), CFN_BAD_NAME);
  CHECK_INT(set(a, "", CFN_ANY_VERSION, "x"), CFN_BAD_NAME);
  CHECK_INT(set(a, "a\nb", CFN_ANY_VERSION, "x"), CFN_BAD_NAME);
  static const char *const no_utf8[] = {"\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80", "\xff"};
  for (unsigned i = 0; i < sizeof no_utf8 / sizeof no_utf8[0]; i++)
    CHECK_INT(set(a, no_utf8[i], CFN_ANY_VERSION, "x"), CFN_BAD_NAME);
  CHECK_INT(set(a, "tasks/7 \xc3\xa9", CFN_ANY_VERSION, "any other"), 0);
  VALUE(b, "tasks/7 \xc3\xa9", "any other");
  t_case("an agent and a value of one name are two things");
  cfn_address_t at;
  CHECK_INT(set(a, "a", CFN_ANY_VERSION, "value"), 0);
  CHECK_INT(cfn_bus_find(b, "a", &at), 0);
  CHECK_INT(cfn_bus_find(b, "k", &at), CFN_UNKNOWN_AGENT);
  VALUE(b, "a", "value");
  t_case("a list by prefix");
  cfn_ref_info_t list[8];
  CHECK_INT(cfn_bus_ref_list(b, "", 0, list, 8), 6);
  CHECK_INT(cfn_bus_ref_list(b, "tasks/", 6, list, 8), 1);
  CHECK_INT(list[0].bytes, 9);
  CHECK(strcmp(list[0].key, "tasks/7 \xc3\xa9") == 0);
  CHECK_INT(list[0].codec, CFN_CODEC_TEXT);
  CHECK_INT(list[0].changed_by, at.index + 1);
  t_case("records run out, and those without a value are used again");
  CHECK_INT(set(a, "7", CFN_ANY_VERSION, "x"), 0);
  CHECK_INT(set(a, "8", CFN_ANY_VERSION, "x"), 0);
  CHECK_INT(set(a, "9", CFN_ANY_VERSION, "x"), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_bus_ref_delete(b, "7", 1, CFN_ANY_VERSION), 0);
  uint64_t last = version;
  CHECK_INT(set(a, "9", CFN_ANY_VERSION, "nine"), 0);
  CHECK(version > last);
  VALUE(b, "9", "nine");
  CHECK(!value(b, "7"));
  t_case("what was overwritten goes");
  for (int i = 0; i < 1000; i++) CHECK_INT(set(a, "9", CFN_ANY_VERSION, text), 0);
  CHECK_INT(cfn_bus_ref_delete(b, "large", 5, CFN_ANY_VERSION), 0);
  cfn_bus_collect(a);
  CHECK_INT(blobs(), 7);
  end();
}

/* What a name may be made of: every language must be able to say it. */
static void keys(void) {
  t_case("keys that are UTF-8, and not");
  start();
  static const char *const good[] = {"k", "\xc3\xbc", "\xe0\xa0\x80", "\xe2\x82\xac", "\xed\x9f\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
  for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
    CHECK_INT(set(a, good[i], CFN_ANY_VERSION, "x"), 0);
    VALUE(b, good[i], "x");
  }
  static const char *const bad[] = {
      "\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x82", "\xe2(\xa1", "\xe2\x82(",
      "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf0\x90\x80(", "\xf4\x90\x80\x80",
      "\xf5\x80\x80\x80", "\xff", "a\tb", "\x7f", ""};
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) CHECK_INT(set(a, bad[i], CFN_ANY_VERSION, "x"), CFN_BAD_NAME);
  cfn_ref_info_t one;
  CHECK_INT(cfn_bus_ref_list(a, "", 0, &one, 1), 7); /* how many there are, also beyond the room */
  CHECK_INT(cfn_bus_ref_list(a, "", 0, NULL, 0), 7);
  cfn_object_info_t first;
  CHECK_INT(put(a, 1, 100), 0);
  CHECK_INT(put(a, 2, 100), 0);
  CHECK_INT(cfn_bus_object_list(a, &first, 1), 2);
  cfn_named_t named;
  cfn_address_t at;
  CHECK_INT(cfn_bus_agents_named(a, &named, 1), 2);
  CHECK_INT(cfn_bus_agents(a, &at, 1), 2);
  uint64_t names = cfn_bus_names_version(a);
  CHECK(names != 0 && names == cfn_bus_names_version(b));
  CHECK_INT(cfn_bus_register(a, "c", NULL, &at, NULL), 0);
  CHECK(names != cfn_bus_names_version(b));
  cfn_store_seq(&cfn_state(r)->intent, cfn_intent_word(1000, 0, 1)); /* in the middle of a change */
  CHECK_INT(cfn_bus_names_version(b), 0);
  CHECK_INT(cfn_bus_reap(a), 0);
  CHECK(cfn_bus_names_version(b) != 0);
  end();
}

static void numbers(void) {
  start();
  int64_t sum;
  t_case("a counter");
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 5, &sum, &version), 0);
  CHECK_INT(sum, 5);
  CHECK_INT(cfn_bus_ref_add(b, "n", 1, -7, &sum, &version), 0);
  CHECK_INT(sum, -2);
  VALUE(a, "n", "-2");
  t_case("no counter");
  static const char *const wrong[] = {"", "x", "1.5", "1x", " 1", "-", "99999999999999999999", "[1]"};
  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    CHECK_INT(cfn_bus_ref_set(a, "w", 1, CFN_ANY_VERSION, CFN_CODEC_JSON, wrong[i], strlen(wrong[i]), &version), 0);
    CHECK_INT(cfn_bus_ref_add(b, "w", 1, 1, &sum, &version), CFN_INVALID);
  }
  CHECK_INT(set(a, "w", CFN_ANY_VERSION, "1"), 0); /* a text, not a number */
  CHECK_INT(cfn_bus_ref_add(b, "w", 1, 1, &sum, &version), CFN_INVALID);
  t_case("a sum that does not fit");
  CHECK_INT(cfn_bus_ref_delete(a, "n", 1, CFN_ANY_VERSION), 0);
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, INT64_MAX, &sum, &version), 0);
  CHECK_INT(cfn_bus_ref_add(a, "n", 1, 1, &sum, &version), CFN_INVALID);
  VALUE(a, "n", "9223372036854775807");
  end();
}

static void waiting(void) {
  start();
  uint64_t now;
  t_case("a change that has come");
  CHECK_INT(set(a, "k", CFN_ANY_VERSION, "1"), 0);
  CHECK_INT(cfn_bus_ref_wait(b, "k", 1, 0, 0, &now), 0);
  CHECK(now == version);
  CHECK_INT(cfn_bus_ref_wait(b, "k", 1, now, 0, &now), CFN_TIMEOUT);
  uint64_t none;
  CHECK_INT(cfn_bus_ref_wait(b, "later", 5, 0, 0, &none), CFN_TIMEOUT);
  t_case("a change that ends a sleep: of a value, of a key that was not there, a deletion");
  for (int kind = 0; kind < 3; kind++) {
    const char *key = kind == 1 ? "later" : "k";
    uint64_t seen = kind == 1 ? 0 : now;
    pid_t child = t_fork();
    if (child == 0) {
      cfn_bus_t *c = t_attach("c");
      t_until_waits(c, "b", CFN_WAIT_REF);
      if (kind == 2) CHECK_INT(cfn_bus_ref_delete(c, "k", 1, CFN_ANY_VERSION), 0);
      else CHECK_INT(set(c, key, CFN_ANY_VERSION, "2"), 0);
      t_close(c);
      _exit(0);
    }
    int e;
    do e = cfn_bus_ref_wait(b, key, (uint32_t)strlen(key), seen, CFN_FOREVER, &now);
    while (e == CFN_INTERRUPTED);
    CHECK_INT(e, 0);
    CHECK(now != seen);
    if (kind == 2) CHECK_INT(now, 0);
    if (kind == 1) CHECK_INT(cfn_bus_ref_wait(b, "k", 1, 0, 0, &now), 0);
    t_join(child);
  }
  t_case("any change at all");
  uint32_t armed;
  CHECK_INT(cfn_bus_refs_arm(b, &armed), 0);
  CHECK_INT(cfn_bus_refs_sleep(b, armed, 0), CFN_TIMEOUT);
  CHECK_INT(set(a, "other", CFN_ANY_VERSION, "1"), 0);
  CHECK_INT(cfn_bus_refs_sleep(b, armed, t_in(60)), 0); /* it came before the sleep */
  end();
}

/* ---- many at once, deaths ---- */

static void many(void) {
  t_case("a sum from many processes");
  enum { PROCESSES = 6, EACH = 400 };
  start_with(32, 64, 8);
  pid_t child[PROCESSES];
  for (int p = 0; p < PROCESSES; p++)
    if ((child[p] = t_fork()) == 0) {
      cfn_bus_t *c = t_attach(NULL);
      int64_t sum;
      for (int i = 0; i < EACH; i++) CHECK_INT(cfn_bus_ref_add(c, "sum", 3, 1, &sum, &version), 0);
      t_close(c);
      _exit(0);
    }
  for (int p = 0; p < PROCESSES; p++) t_join(child[p]);
  VALUE(a, "sum", "2400");
  t_case("values are whole while they change, under collections");
  for (int p = 0; p < PROCESSES; p++)
    if ((child[p] = t_fork()) == 0) {
      cfn_bus_t *c = t_attach(NULL);
      for (int i = 0; i < EACH; i++) {
        uint64_t bytes = (uint64_t)(i * 97 + p * 1000) % 9000;
        memset(big, 'a' + p, bytes);
        CHECK_INT(cfn_bus_ref_set(c, p & 1 ? "x" : "y", 1, CFN_ANY_VERSION, 0, big, bytes, &version), 0);
        for (int k = 0; k < 2; k++) {
          int64_t n = cfn_bus_ref_get(c, k ? "x" : "y", 1, out, sizeof out, NULL);
          CHECK(n >= 0 || n == CFN_UNKNOWN_KEY);
          for (int64_t j = 1; j < n; j++) CHECK(out[j] == out[0]);
        }
      }
      t_close(c);
      _exit(0);
    }
  for (int p = 0; p < PROCESSES; p++) t_join(child[p]);
  cfn_bus_collect(a);
  CHECK_INT(blobs(), 3);
  end();
}

static void deaths(void) {
  t_case("pins, and an object half written, of a dead process");
  start();
  CHECK_INT(put(a, 1, 5000), 0);
  pid_t child = t_fork();
  if (child == 0) {
    cfn_bus_t *c = t_attach(NULL);
    cfn_pin_t pin;
    cfn_filling_t f;
    cfn_hold_t h;
    CHECK_INT(cfn_bus_object_pin(c, digest_of(1), &pin), 0);
    CHECK(cfn_ledger_find(cfn_bus_region(c), cfn_bus_attachment(c), &h));
    CHECK_INT(cfn_heap_begin(cfn_bus_region(c), cfn_bus_attachment(c), &h, 40000, &f), 0);
    _exit(0);
  }
  t_join(child);
  CHECK_INT(cfn_bus_object_delete(a, digest_of(1)), 0);
  CHECK_INT(cfn_bus_collect(a), 0); /* held by who is not known to be dead */
  CHECK_INT(cfn_bus_reap(a), 1);
  CHECK_INT(cfn_bus_collect(a), 1);
  CHECK_INT(put(a, 2, 64 * CFN_PAGE), 0); /* all pages are free again */
  t_case("without a reap: who runs short looks for the dead");
  CHECK_INT(cfn_bus_object_delete(a, digest_of(2)), 0);
  CHECK_INT(cfn_bus_collect(a), 1);
  child = t_fork();
  if (child == 0) {
    cfn_bus_t *c = t_attach(NULL);
    cfn_filling_t f;
    cfn_hold_t h;
    CHECK(cfn_ledger_find(cfn_bus_region(c), cfn_bus_attachment(c), &h));
    CHECK_INT(cfn_heap_begin(cfn_bus_region(c), cfn_bus_attachment(c), &h, 40000, &f), 0);
    _exit(0);
  }
  t_join(child);
  CHECK_INT(put(b, 3, 64 * CFN_PAGE), 0);
  CHECK_INT(cfn_bus_reap(a), 0);
  end();
}

/* ---- windows, made by hand ---- */

static void windows(void) {
  start();
  cfn_ref_at_t at;
  uint64_t word;
  t_case("a collector that died in the middle");
  CHECK_INT(set(a, "k", CFN_ANY_VERSION, "v"), 0);
  CHECK_INT(put(a, 1, 10), 0);
  for (uint32_t i = 0; i < 16; i++) {
    cfn_a64 *st = &cfn_blob_record(r, i)->st;
    uint64_t w = cfn_load_seq(st);
    if (cfn_own_state(w) == CFN_BLOB_LIVE) CHECK(cfn_cas_seq(st, w, cfn_own_next(w, CFN_BLOB_CHECK, 0)));
  }
  VALUE(b, "k", "v");
  CHECK_INT(get(b, 1), 10); /* rescues it */
  CHECK_INT(cfn_bus_collect(b), 0);
  VALUE(b, "k", "v");
  t_case("who slept over the end of a name takes nothing away from the next of that name");
  uint32_t from = 0, b1;
  cfn_a64 *slot;
  uint64_t old;
  CHECK_INT(cfn_index_find(r, digest_of(1), &from, &slot, &old, &b1), 0);
  CHECK_INT(cfn_bus_object_delete(a, digest_of(1)), 0);
  CHECK_INT(put(a, 1, 10), 0);
  CHECK(!cfn_index_remove(slot, old));
  CHECK_INT(get(b, 1), 10);
  t_case("who was stopped before it stored its life: its old pages are free");
  CHECK_INT(put(a, 2, 60 * CFN_PAGE), 0);
  from = 0;
  CHECK_INT(cfn_index_find(r, digest_of(2), &from, &slot, &old, &b1), 0);
  CHECK_INT(cfn_bus_object_delete(a, digest_of(2)), 0);
  CHECK(cfn_bus_collect(a) >= 1);
  cfn_a64 *filler = &cfn_blob_record(r, b1)->st;
  uint64_t dead = cfn_load_seq(filler);
  cfn_hold_t h;
  CHECK(cfn_ledger_find(r, cfn_bus_attachment(b), &h) && cfn_ledger_set(&h, b1));
  CHECK(cfn_cas_seq(filler, dead, cfn_own_next(dead, CFN_BLOB_FILL, cfn_bus_attachment(b))));
  CHECK_INT(put(a, 3, 60 * CFN_PAGE), 0);
  CHECK_INT(cfn_bus_collect(a), 0);
  CHECK_INT(cfn_own_state(cfn_load_seq(filler)), CFN_BLOB_FILL); /* whose ledger names it lives */
  cfn_ledger_clear(&h);
  cfn_bus_collect(a);
  CHECK_INT(cfn_own_state(cfn_load_seq(filler)), CFN_BLOB_DEAD); /* nobody's is freed */
  CHECK_INT(cfn_bus_object_delete(a, digest_of(3)), 0);
  t_case("one who was judged dead while it wrote");
  cfn_filling_t f;
  cfn_hold_t mine, late;
  CHECK(cfn_ledger_find(r, cfn_bus_attachment(a), &mine));
  CHECK_INT(cfn_heap_begin(r, cfn_bus_attachment(a), &mine, 5000, &f), 0);
  cfn_a64 *st = &cfn_blob_record(r, f.blob)->st;
  CHECK(cfn_cas_seq(st, f.word, cfn_own_next(f.word, CFN_BLOB_DEAD, 0)));
  CHECK(!cfn_heap_publish(r, &f, NULL, 0));
  cfn_heap_abandon(r, &f);
  CHECK_INT(cfn_own_state(cfn_load_seq(st)), CFN_BLOB_DEAD);
  CHECK_INT(cfn_own_ver(cfn_load_seq(st)), cfn_own_ver(f.word) + 1);
  late = mine;
  cfn_ledger_clear(&mine);
  CHECK(cfn_ledger_set(&mine, 3)); /* the next process of the slot */
  cfn_ledger_clear(&late);
  CHECK(!cfn_ledger_set(&late, 4));
  CHECK_INT(cfn_names_blob(cfn_load_seq(mine.cell)), 4);
  CHECK_INT(cfn_heap_begin(r, cfn_bus_attachment(a), &late, 10, &f), CFN_AGENT_FENCED);
  cfn_ledger_clear(&mine);
  t_case("a record that is being taken back: whoever comes by goes on");
  CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), 0);
  CHECK_INT(cfn_refs_find(r, "k", 1, &at), 0);
  CHECK_INT(cfn_refs_load(r, &at, &word), 0);
  CHECK(cfn_cas_seq(&cfn_ref(r, at.ref)->word, word, cfn_ref_word(CFN_REF_CLOSED, 1)));
  CHECK(!value(b, "k"));
  CHECK_INT(cfn_refs_find(r, "k", 1, &at), CFN_UNKNOWN_KEY);
  CHECK_INT(set(b, "k", 0, "new"), 0);
  VALUE(a, "k", "new");
  t_case("... and out of the directory, not FREE yet");
  CHECK_INT(cfn_bus_ref_delete(a, "k", 1, CFN_ANY_VERSION), 0);
  CHECK_INT(cfn_refs_find(r, "k", 1, &at), 0);
  CHECK_INT(cfn_refs_load(r, &at, &word), 0);
  CHECK(cfn_cas_seq(&cfn_ref(r, at.ref)->word, word, cfn_ref_word(CFN_REF_CLOSED, 2)));
  CHECK_INT(cfn_directory_remove(r, cfn_record_of_ref(r, at.ref), at.mid), 0);
  for (int i = 0; i < 8; i++) {
    char key[2] = {(char)('0' + i), 0};
    CHECK_INT(set(b, key, CFN_ANY_VERSION, "x"), 0); /* all eight records are there */
  }
  t_case("a change by who slept over the end of its name");
  CHECK_INT(cfn_refs_swap(r, &at, word, 1, 0, CFN_RING_WAITERS, &version), CFN_AGAIN);
  CHECK_INT(cfn_refs_load(r, &at, &word), CFN_STALE);
  end();
}

int main(void) {
  t_guard(120);
  objects();
  scarce();
  values();
  keys();
  numbers();
  waiting();
  many();
  deaths();
  windows();
  t_passed("test_context");
  return 0;
}
