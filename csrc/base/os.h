/* The seam to the operating system: everything the core asks of the kernel is declared here, so
 * that another system (or a simulator) is one other .c file.
 *
 * Functions return 0 or more on success and -errno on failure, unless said otherwise.
 */
#ifndef CFN_BASE_OS_H
#define CFN_BASE_OS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/atomics.h"

/* ---- time ---- */
uint64_t cfn_os_monotonic_ns(void);
uint64_t cfn_os_coarse_ns(void); /* monotonic, cheap, good to a few milliseconds */
uint64_t cfn_os_wall_ns(void);   /* since 1970 */

/* ---- waiting ---- */
/* Sleeps while *word == expected. 0 woken, -EAGAIN the word differs, -EINTR, -ETIMEDOUT. */
int cfn_os_futex_wait(cfn_a32 *word, uint32_t expected, uint64_t timeout_ns);
/* Wakes at most `most` sleepers of every process; returns how many. */
int cfn_os_futex_wake(cfn_a32 *word, int most);

/* Lets others run who are ready to. */
void cfn_os_yield(void);

/* ---- random ---- */
uint64_t cfn_os_random(void);

/* ---- process identity ---- */
typedef struct cfn_identity {
  uint64_t pid;        /* in its own pid namespace */
  uint64_t pid_ns;     /* inode of the pid namespace */
  uint64_t time_ns;    /* inode of the time namespace: start times are comparable only inside one */
  uint64_t start_time; /* field 22 of /proc/PID/stat, in clock ticks */
  uint64_t pidfs_ino;  /* inode of its pidfd where the kernel makes them unique (6.9+), else 0 */
} cfn_identity_t;

void cfn_os_identity(cfn_identity_t *out);
/* Is the very process that `who` names (not a later one with its pid) still running, with the file
 * (dev, ino) mapped? 1 yes, 0 no, gone, or of another pid namespace, where only its life byte speaks for it; -1 it
 * cannot be told: a call failed. */
int cfn_os_process_maps(const cfn_identity_t *who, uint64_t dev, uint64_t ino);
/* What /proc says the process does, as a letter (T, t: stopped), or 0: it cannot be told, or is another process. */
char cfn_os_process_state(const cfn_identity_t *who);
/* Which process of this user, other than this one, has the file mapped? 1 (`*pid` is one), 0, -errno. */
int cfn_os_mapped_by(uint64_t dev, uint64_t ino, uint64_t *pid);
void cfn_os_boot_id(char out[40]);

/* ---- life tokens: POSIX byte locks ----
 * They are the kernel's own proof of life: held through SIGSTOP, dropped at death (also by a
 * zombie), not inherited by fork, and visible across pid namespaces. */
int cfn_os_lock_try(int fd, uint64_t byte);     /* 0 got it (or had it), -EAGAIN held by another */
int cfn_os_lock_release(int fd, uint64_t byte);
int cfn_os_lock_held(int fd, uint64_t byte);    /* 1 held by another process, 0 not, -errno */
int cfn_os_lock_any(int fd, uint64_t *pid);     /* the same for any byte; *pid: who (0 = of another namespace) */

/* ---- fork canary ----
 * A page that the kernel wipes in a forked child: a handle whose stamp is not on the page any more
 * was inherited. Survives raw clone() and vfork, which pthread_atfork does not see. */
uint64_t cfn_os_fork_stamp(void);

/* ---- doorbell FIFOs ---- */
int cfn_os_fifo_open(int dir_fd, const char *name); /* made if missing; fd >= 0, nonblocking */
void cfn_os_fifo_ring(int fd);                      /* one byte; a full pipe is already rung */
void cfn_os_fifo_drain(int fd);

#endif
