/* Making a bus and attaching to it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/liveness.h"
#include "base/hash.h"
#include "base/os.h"
#include "tests/harness.h"

static char path[CFN_PATH_BYTES], file[CFN_PATH_BYTES + 16];
static int opens(cfn_wish_t *wish, int flags) {
  cfn_bus_t *bus;
  int created, e = cfn_bus_open(NULL, t_bus_name(), wish, flags, &bus, &created);
  if (e == 0) t_close(bus);
  return e;
}
static void make(void) {
  cfn_wish_t small = t_small_wish();
  CHECK_INT(opens(&small, CFN_OPEN_CREATE), 0);
}

/* ---- creation ---- */

static void two_creators(void) {
  for (int round = 0; round < 20; round++) {
    t_case("several create at once, round %d", round);
    int go[2], out[2];
    CHECK_INT(pipe(go), 0);
    CHECK_INT(pipe(out), 0);
    pid_t p[4];
    for (int i = 0; i < 4; i++) {
      p[i] = t_fork();
      if (p[i]) continue;
      char c;
      close(go[1]);
      CHECK_INT(read(go[0], &c, 1), 0); /* all at the same moment: when the parent closes */
      cfn_wish_t small = t_small_wish();
      cfn_bus_t *bus;
      int created;
      CHECK_INT(cfn_bus_open(NULL, t_bus_name(), &small, CFN_OPEN_CREATE, &bus, &created), 0);
      uint64_t say[2] = {cfn_bus_region(bus)->super.nonce, (uint64_t)created};
      CHECK_INT(write(out[1], say, sizeof say), sizeof say);
      t_close(bus);
      _exit(0);
    }
    close(go[0]);
    close(go[1]);
    uint64_t said[4][2], creators = 0;
    for (int i = 0; i < 4; i++) {
      CHECK_INT(read(out[0], said[i], sizeof said[i]), sizeof said[i]);
      CHECK(said[i][0] == said[0][0]);
      creators += said[i][1];
    }
    for (int i = 0; i < 4; i++) t_join(p[i]);
    close(out[0]);
    close(out[1]);
    CHECK_INT(creators, 1);
    t_destroy();
  }
}

static void damaged_header(void) {
  t_case("a flipped byte in the header");
  make();
  int fd = open(file, O_RDWR);
  CHECK(fd >= 0);
  cfn_super_shm_t good, bad;
  CHECK_INT(pread(fd, &good, sizeof good, 0), sizeof good);
  for (size_t at = 0; at < sizeof good; at += at < 512 ? 1 : 61)
    for (unsigned flip = 1; flip < 256; flip *= 16) {
      t_case("byte %zu flipped by %#x", at, flip);
      bad = good;
      ((uint8_t *)&bad)[at] ^= (uint8_t)flip;
      CHECK_INT(pwrite(fd, &bad, sizeof bad, 0), sizeof bad);
      int e = opens(NULL, 0);
      bool version = at >= 8 && at < 16; /* abi, byte order */
      CHECK_INT(e, version ? CFN_VERSION_MISMATCH : CFN_CORRUPT);
      CHECK_INT(opens(NULL, CFN_OPEN_CREATE), e); /* nor is it created over */
    }
  t_case("other versions, with a right checksum");
  for (uint32_t abi = 0; abi < 3; abi++) {
    bad = good;
    bad.abi = abi;
    bad.crc = cfn_crc32c(&bad, offsetof(cfn_super_shm_t, crc));
    CHECK_INT(pwrite(fd, &bad, sizeof bad, 0), sizeof bad);
    CHECK_INT(opens(NULL, 0), abi == CFN_ABI ? 0 : CFN_VERSION_MISMATCH);
    if (abi == CFN_ABI) continue;
    CHECK_INT(cfn_last_failure()->have, abi);
    CHECK_INT(cfn_last_failure()->want, CFN_ABI);
  }
  t_case("impossible configurations, with a right checksum");
  for (size_t at = 0; at < sizeof good.config / 4; at++)
    for (int v = 0; v < 4; v++) {
      static const uint32_t values[] = {0, 1, 0x7fffffff, 0xffffffff};
      uint32_t word;
      bad = good;
      memcpy(&word, (uint8_t *)&bad.config + at * 4, 4);
      if (word == values[v] || at * 4 == offsetof(cfn_config_shm_t, wished_kib)) continue; /* all are possible */
      memcpy((uint8_t *)&bad.config + at * 4, &values[v], 4);
      bad.crc = cfn_crc32c(&bad, offsetof(cfn_super_shm_t, crc));
      CHECK_INT(pwrite(fd, &bad, sizeof bad, 0), sizeof bad);
      int e = opens(NULL, 0);
      CHECK(e == CFN_CORRUPT || e == CFN_VERSION_MISMATCH);
    }
  CHECK_INT(pwrite(fd, &good, sizeof good, 0), sizeof good);
  CHECK_INT(opens(NULL, 0), 0);
  t_case("a file cut short, or too long");
  static const off_t sizes[] = {0, 1, 4095, 4096, 65536};
  off_t whole = (off_t)good.region_bytes;
  for (unsigned i = 0; i < 5; i++) {
    CHECK_INT(ftruncate(fd, sizes[i]), 0);
    CHECK_INT(opens(NULL, 0), CFN_CORRUPT);
  }
  CHECK_INT(ftruncate(fd, whole + 4096), 0);
  CHECK_INT(pwrite(fd, &good, sizeof good, 0), sizeof good);
  CHECK_INT(opens(NULL, 0), CFN_CORRUPT);
  close(fd);
  t_destroy();
  make(); /* destroyed unread, and made anew */
  t_destroy();
}

static void wrong_places(void) {
  t_case("a symbolic link in place of the directory");
  char target[CFN_PATH_BYTES + 16];
  snprintf(target, sizeof target, "%s.target", path);
  CHECK_INT(mkdir(target, 0700), 0);
  CHECK_INT(symlink(target, path), 0);
  CHECK_INT(opens(NULL, CFN_OPEN_CREATE), CFN_PERMISSION);
  CHECK_INT(opens(NULL, 0), CFN_PERMISSION);
  unlink(path);
  rmdir(target);
  t_case("a file in its place");
  close(open(path, O_CREAT | O_RDWR, 0600));
  CHECK_INT(opens(NULL, CFN_OPEN_CREATE), CFN_PERMISSION);
  unlink(path);
  t_case("a directory for others to write into");
  CHECK_INT(mkdir(path, 0700), 0);
  CHECK_INT(chmod(path, 0755), 0);
  CHECK_INT(opens(NULL, CFN_OPEN_CREATE), CFN_PERMISSION);
  rmdir(path);
  t_case("the region is a symbolic link, a directory, or open to others");
  CHECK_INT(mkdir(path, 0700), 0);
  CHECK_INT(symlink("/etc/passwd", file), 0);
  CHECK(opens(NULL, CFN_OPEN_CREATE) < 0);
  unlink(file);
  CHECK_INT(mkdir(file, 0700), 0);
  CHECK(opens(NULL, CFN_OPEN_CREATE) < 0);
  rmdir(file);
  rmdir(path);
  make();
  CHECK_INT(chmod(file, 0666), 0);
  CHECK_INT(opens(NULL, 0), CFN_PERMISSION);
  t_destroy();
  CHECK_INT(opens(NULL, 0), CFN_NO_BUS);
}

static void full_file_system(void) {
  t_case("a full tmpfs");
  char dir[] = "/tmp/cfnshm-full-XXXXXX";
  CHECK(mkdtemp(dir));
  pid_t p = t_fork(); /* in a mount namespace of its own: gone with the process */
  if (p == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=1m") != 0)
      _exit(77);
    cfn_wish_t wish = t_small_wish();
    cfn_bus_t *bus;
    int created;
    CHECK_INT(cfn_bus_open(dir, "x", &wish, CFN_OPEN_CREATE, &bus, &created), CFN_NO_SPACE);
    const cfn_failure_t *f = cfn_last_failure();
    CHECK(f->have > 0 && f->have <= 1 << 20 && f->want > f->have);
    /* it looks roomy and then is not: the space goes between the question and the reservation */
    char blank[CFN_PATH_BYTES];
    CHECK_INT(cfn_region_path(dir, "x", blank), 0);
    CHECK(access(blank, F_OK) != 0); /* nothing is left behind */
    _exit(0);
  }
  int status;
  CHECK_INT(waitpid(p, &status, 0), p);
  rmdir(dir);
  CHECK(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) printf("  (no tmpfs of our own here: full tmpfs not tried)\n");
  else CHECK_INT(WEXITSTATUS(status), 0);
}

static void over_capacity(void) {
  t_case("more than the bus has");
  make();
  cfn_wish_t w = {.agents = 9};
  CHECK_INT(opens(&w, CFN_OPEN_CREATE), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_last_failure()->have, 8);
  CHECK_INT(cfn_last_failure()->want, 9);
  w = (cfn_wish_t){.size_bytes = UINT64_C(1) << 34};
  CHECK_INT(opens(&w, CFN_OPEN_CREATE), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_last_failure()->want, INT64_C(1) << 34);
  w = (cfn_wish_t){.lane_slots = {0, 0, 16, 0}};
  CHECK_INT(opens(&w, 0), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_last_failure()->have, 8);
  w = (cfn_wish_t){.class_wished = 2, .class_chunks = {0, 9}};
  CHECK_INT(opens(&w, 0), CFN_OVER_CAPACITY);
  w = (cfn_wish_t){.agents = 8, .lane_slots = {8, 8, 8, 8}};
  CHECK_INT(opens(&w, 0), 0);
  t_destroy();
}

static void destroyed(void) {
  t_case("destroyed while attached");
  cfn_bus_t *a = t_open("a", NULL), *b = t_attach("b");
  uint64_t nonce = cfn_bus_region(a)->super.nonce;
  CHECK_INT(cfn_bus_destroy(b), 0);
  cfn_wire_t w;
  char body[4096];
  cfn_address_t x;
  CHECK_INT(cfn_bus_find(a, "b", &x), CFN_RETIRED);
  CHECK_INT(t_recv(a, 10, &w, body), CFN_RETIRED);
  CHECK_INT(opens(NULL, 0), CFN_NO_BUS);
  cfn_bus_t *c = t_open("a", NULL); /* the same name at once, beside the old handles */
  CHECK(cfn_bus_region(c)->super.nonce != nonce);
  CHECK_INT(t_send(c, "a", CFN_LANE_NORMAL, "x", 1, 0, NULL), 0);
  CHECK_INT(cfn_bus_find(a, "b", &x), CFN_RETIRED);
  t_close(a);
  t_close(b);
  CHECK_INT(t_recv(c, 0, &w, body), 1); /* closing the old did nothing to the new */
  CHECK_INT(t_ack(c, w.token), 0);
  t_check_region(c, true);
  t_close(c);
  t_destroy();
}

/* ---- fork ---- */

static void forked(void) {
  t_case("a handle that was inherited");
  cfn_bus_t *a = t_open("a", NULL);
  CHECK_INT(cfn_bus_claim_inbox(a, 0), 0);
  CHECK_INT(t_send(a, "a", CFN_LANE_NORMAL, "1", 1, 0, NULL), 0);
  cfn_wire_t w;
  char body[4096];
  CHECK_INT(t_recv(a, 0, &w, body), 1);
  pid_t p = t_fork();
  if (p == 0) {
    cfn_address_t x = {0, 0};
    cfn_receipt_t receipt = {0};
    cfn_bus_info_t info;
    uint64_t n;
    int made;
    CHECK_INT(cfn_bus_find(a, "a", &x), CFN_FORKED);
    CHECK_INT(cfn_bus_register(a, "z", NULL, &x, &made), CFN_FORKED);
    CHECK_INT(cfn_bus_send_one(a, 0, 0, 2, 0, "x", 1, NULL, 0, 0, CFN_FOREVER, NULL), CFN_FORKED);
    CHECK_INT(t_recv(a, 10, &w, body), CFN_FORKED);
    CHECK_INT(t_ack(a, w.token), CFN_FORKED);
    CHECK_INT(cfn_bus_receipt(a, &receipt, 0), CFN_FORKED);
    CHECK_INT(cfn_bus_release_inbox(a), CFN_FORKED);
    CHECK_INT(cfn_bus_unregister(a, "a", 0, &n), CFN_FORKED);
    CHECK_INT(cfn_bus_info(a, &info), CFN_FORKED);
    CHECK_INT(cfn_bus_reap(a), CFN_FORKED);
    CHECK_INT(cfn_bus_fileno(a, 0), CFN_FORKED);
    CHECK_INT(cfn_bus_destroy(a), CFN_FORKED);
    cfn_bus_t *mine = t_attach("child");
    CHECK_INT(t_send(mine, "a", CFN_LANE_NORMAL, "2", 1, 0, NULL), 0);
    CHECK_INT(cfn_bus_claim_inbox(mine, 0), 0);
    t_close(a); /* gives back nothing that is the parent's */
    CHECK_INT(t_send(mine, "a", CFN_LANE_NORMAL, "3", 1, 0, NULL), 0);
    t_close(mine);
    _exit(0);
  }
  t_join(p);
  cfn_bus_t *other = t_attach("a");
  CHECK_INT(cfn_bus_claim_inbox(other, 0), CFN_AGENT_BUSY); /* the parent holds it as before */
  t_close(other);
  CHECK_INT(t_ack(a, w.token), 0);
  for (char c = '2'; c < '4'; c++) {
    CHECK_INT(t_recv(a, 0, &w, body), 1);
    CHECK_INT(body[0], c);
    CHECK_INT(t_ack(a, w.token), 0);
  }
  CHECK_INT(cfn_bus_reap(a), 0);
  t_check_region(a, true);
  t_close(a);
  t_destroy();
}

/* ---- many ---- */

static void many_attachments(void) {
  t_case("600 times attached");
  cfn_bus_t *a = t_open("a", NULL);
  cfn_bus_info_t info;
  for (int i = 0; i < 600; i++) t_close(t_attach(i % 3 ? NULL : "b"));
  CHECK_INT(cfn_bus_info(a, &info), 0);
  CHECK_INT(info.attached, 1);
  CHECK_INT(info.dead, 0);
  t_check_region(a, true);

  t_case("all slots in use");
  uint32_t n = info.config.attachments;
  int ready[2];
  CHECK_INT(pipe(ready), 0);
  pid_t p = t_fork();
  if (p == 0) {
    for (uint32_t i = 1; i < n; i++) t_attach(NULL);
    CHECK_INT(write(ready[1], "x", 1), 1);
    for (;;) pause();
  }
  char c;
  CHECK_INT(read(ready[0], &c, 1), 1);
  CHECK_INT(opens(NULL, 0), CFN_OVER_CAPACITY);
  CHECK_INT(cfn_last_failure()->have, n);
  CHECK_INT(cfn_last_failure()->want, n + 1);
  t_kill(p, true); /* not even waited for */
  cfn_bus_t *more[20];
  for (int i = 0; i < 20; i++) more[i] = t_attach(NULL); /* who joins recycles */
  waitpid(p, NULL, 0);
  CHECK_INT(cfn_bus_reap(a), n - 1 - 20);
  CHECK_INT(cfn_bus_info(a, &info), 0);
  CHECK_INT(info.attached, 21);
  CHECK_INT(info.dead, 0);
  for (int i = 0; i < 20; i++) t_close(more[i]);
  close(ready[0]);
  close(ready[1]);
  t_check_region(a, true);
  t_close(a);
  t_destroy();
}

int main(void) {
  t_guard(300);
  CHECK_INT(cfn_region_path(NULL, t_bus_name(), path), 0);
  snprintf(file, sizeof file, "%s/region", path);
  two_creators();
  damaged_header();
  wrong_places();
  full_file_system();
  over_capacity();
  destroyed();
  forked();
  many_attachments();
  t_passed("test_attach");
  return 0;
}
