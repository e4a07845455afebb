/* base/os.h for cfnsim, and the one place where a virtual process gets its own cfn_region_t: the files are
 * real and in /dev/shm, what the kernel would remember of a process is here. */
#include "sim/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/liveness.h"
#include "base/error.h"
#include "base/os.h"
#include "sim/sim.h"

#define LOCKS 256
#define STAMP 0x51u

/* The real region.c, under other names (see the Makefile). */
int real_region_open(const char *dir, const char *name, const cfn_wish_t *wish, int flags, cfn_region_t **out,
                     bool *created);
void real_region_close(cfn_region_t *region);

static struct {
  struct { uint64_t ino, byte; int holder; bool used; } lock[LOCKS];
  cfn_region_t *side[SIM_PROCESSES]; /* each process's own */
  cfn_region_t *real;
  char spill[CFN_SPILL_BYTES]; /* as the bus was made with */
} K;

const char *kernel_bus_name(void) {
  static char name[40];
  if (!name[0]) snprintf(name, sizeof name, "sim-%d", (int)getpid());
  return name;
}

/* ---- regions ---- */

int cfn_region_open(const char *dir, const char *name, const cfn_wish_t *wish, int flags, cfn_region_t **out,
                    bool *created) {
  int p = sim_me();
  if (K.side[p]) {
    K.side[p]->references++;
    *out = K.side[p];
    if (created) *created = false;
    return CFN_OK;
  }
  if (!K.real) {
    int r = real_region_open(dir, name, wish, flags, &K.real, created);
    if (r < 0) return r;
  }
  const cfn_region_t *real = K.real;
  cfn_region_t *mine = calloc(1, sizeof *mine);
  if (!mine) return cfn_fail(CFN_NO_MEMORY, 0, 0, "no memory");
  *mine = *real;
  pthread_mutex_init(&mine->live_lock, NULL);
  for (unsigned i = 0; i < CFN_LIVE_FILES; i++) mine->live_fd[i] = -1;
  mine->references = 1;
  K.side[p] = mine;
  *out = mine;
  return CFN_OK;
}

void cfn_region_close(cfn_region_t *region) { region->references--; }

void kernel_spills(bool spills) {
  if (!K.real) return;
  if (K.real->super.spill[0]) memcpy(K.spill, K.real->super.spill, sizeof K.spill);
  if (spills) memcpy(K.real->super.spill, K.spill, sizeof K.spill);
  else memset(K.real->super.spill, 0, sizeof K.spill);
  /* The checker compares the two; the checksum is of the file as it was made, and destroys what is there. */
  memcpy(((cfn_super_shm_t *)(void *)K.real->base)->spill, K.real->super.spill, sizeof K.spill);
}

/* ---- time, waiting ---- */

uint64_t cfn_os_monotonic_ns(void) { return sim_now(); }
uint64_t cfn_os_coarse_ns(void) { return sim_now(); }
uint64_t cfn_os_wall_ns(void) { return sim_now(); }
int cfn_os_futex_wait(cfn_a32 *word, uint32_t expected, uint64_t timeout_ns) {
  return sim_wait(word, expected, timeout_ns);
}
int cfn_os_futex_wake(cfn_a32 *word, int most) { return sim_wake(word, most); }
void cfn_os_yield(void) { sim_yield(); }
uint64_t cfn_os_random(void) { return sim_random(); }

/* ---- processes ---- */

void cfn_os_identity(cfn_identity_t *out) {
  *out = (cfn_identity_t){(uint64_t)sim_me() + 1, 1, 1, 1, (uint64_t)sim_me() + 100};
}
int cfn_os_process_maps(const cfn_identity_t *who, uint64_t dev, uint64_t ino) {
  (void)dev;
  (void)ino;
  sim_point();
  sim_learn_from_kernel();
  return who->pid >= 1 && who->pid <= SIM_PROCESSES && sim_lives((int)who->pid - 1);
}
char cfn_os_process_state(const cfn_identity_t *who) { return (void)who, 0; }
/* The real one: what is on disk of another boot is removed by who makes a bus. */
void cfn_os_boot_id(char out[40]) {
  static char id[40];
  int fd = id[0] ? -1 : open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd >= 0 && read(fd, id, 36) != 36) id[0] = 0;
  if (fd >= 0) close(fd);
  memcpy(out, id, 40);
}
uint64_t cfn_os_fork_stamp(void) { return STAMP; }

/* ---- byte locks ---- */

static int lock_of(int fd, uint64_t byte, bool make) {
  struct stat st;
  if (fstat(fd, &st) != 0) return -1;
  int vacant = -1;
  for (int i = 0; i < LOCKS; i++) {
    if (K.lock[i].used && K.lock[i].ino == st.st_ino && K.lock[i].byte == byte) return i;
    if (!K.lock[i].used && vacant < 0) vacant = i;
  }
  if (!make || vacant < 0) return -1;
  K.lock[vacant].used = true;
  K.lock[vacant].ino = st.st_ino;
  K.lock[vacant].byte = byte;
  K.lock[vacant].holder = -1;
  return vacant;
}

int cfn_os_lock_try(int fd, uint64_t byte) {
  sim_point();
  int i = lock_of(fd, byte, true);
  if (i < 0) return -ENOLCK;
  if (K.lock[i].holder >= 0 && K.lock[i].holder != sim_me()) return -EAGAIN;
  sim_learn_from_kernel();
  K.lock[i].holder = sim_me();
  return 0;
}
int cfn_os_lock_release(int fd, uint64_t byte) {
  sim_point();
  int i = lock_of(fd, byte, false);
  sim_tell_kernel(sim_me());
  if (i >= 0 && K.lock[i].holder == sim_me()) K.lock[i].holder = -1;
  return 0;
}
int cfn_os_lock_held(int fd, uint64_t byte) {
  sim_point();
  int i = lock_of(fd, byte, false);
  sim_learn_from_kernel();
  return i >= 0 && K.lock[i].holder >= 0 && K.lock[i].holder != sim_me();
}

/* For buses that cannot be attached, of which there are none here. */
int cfn_os_lock_any(int fd, uint64_t *pid) {
  (void)fd;
  *pid = 0;
  return 0;
}
int cfn_os_mapped_by(uint64_t dev, uint64_t ino, uint64_t *pid) {
  (void)dev;
  (void)ino;
  *pid = 0;
  return 0;
}

void kernel_died(int p) {
  sim_tell_kernel(p);
  for (int i = 0; i < LOCKS; i++)
    if (K.lock[i].holder == p) K.lock[i].holder = -1;
}

void kernel_reset(void) {
  memset(K.lock, 0, sizeof K.lock);
  for (int i = 0; i < LOCKS; i++) K.lock[i].holder = -1;
  for (int p = 0; p < SIM_PROCESSES; p++) {
    cfn_region_t *r = K.side[p];
    if (!r) continue;
    for (unsigned f = 0; f < CFN_LIVE_FILES; f++)
      if (r->live_fd[f] >= 0) close(r->live_fd[f]);
    free(r);
    K.side[p] = NULL;
  }
}

/* ---- doorbells: nobody polls here ---- */

int cfn_os_fifo_open(int dir_fd, const char *name) {
  (void)dir_fd;
  (void)name;
  return -ENOENT;
}
void cfn_os_fifo_ring(int fd) { (void)fd; }
void cfn_os_fifo_drain(int fd) { (void)fd; }
