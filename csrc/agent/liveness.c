#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "agent/liveness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/os.h"
#include "cfnshm.h"

/* Is the descriptor still the file it was opened as? (os.closerange and friends) */
static bool still_file(const cfn_region_t *r, uint32_t file) {
  struct stat st;
  return fstat(r->live_fd[file], &st) == 0 && st.st_ino == r->live_ino[file] &&
         st.st_dev == r->dev;
}

/* Enters the table of life bytes. In a forked child it starts empty: POSIX locks are not inherited,
 * and closing the inherited descriptors drops nothing of the parent's. */
static void enter(cfn_region_t *r) {
  pthread_mutex_lock(&r->live_lock);
  uint64_t stamp = cfn_os_fork_stamp();
  if (r->live_stamp == stamp) return;
  for (unsigned f = 0; f < CFN_LIVE_FILES; f++) {
    if (r->live_fd[f] >= 0 && still_file(r, f)) close(r->live_fd[f]); /* not if reused since */
    r->live_fd[f] = -1;
    r->live_held[f] = 0;
  }
  memset(r->own_nonce, 0, sizeof r->own_nonce);
  r->live_stamp = stamp;
}
static void leave(cfn_region_t *r) { pthread_mutex_unlock(&r->live_lock); }

static void file_name(uint32_t i, char out[32]) {
  snprintf(out, 32, "live.%02x", i / CFN_LIVE_LOCKS_PER_FILE);
}

static int open_file(cfn_region_t *r, uint32_t i) {
  char name[32];
  file_name(i, name);
  int dir = cfn_region_dir(r);
  return dir < 0 ? -1 : openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static int open_file_of_ours(cfn_region_t *r, uint32_t i) {
  uint32_t file = i / CFN_LIVE_LOCKS_PER_FILE;
  struct stat st;
  int fd = open_file(r, i);
  if (fd < 0) return -errno;
  if (fstat(fd, &st) != 0) {
    int e = -errno;
    close(fd);
    return e;
  }
  r->live_fd[file] = fd;
  r->live_ino[file] = st.st_ino;
  return 0;
}

/* Forgets descriptors that this process was robbed of; they are not closed: the number may belong to
 * somebody else by now. All bytes of the file are taken again. */
static int refresh_file(cfn_region_t *r, uint32_t file) {
  uint32_t first = file * CFN_LIVE_LOCKS_PER_FILE;
  int result = still_file(r, file) ? 0 : open_file_of_ours(r, first);
  if (result < 0) return result;
  for (uint32_t i = first; i < first + CFN_LIVE_LOCKS_PER_FILE && i < CFN_MAX_ATTACHMENTS; i++)
    if (r->own_nonce[i]) {
      int e = cfn_os_lock_try(r->live_fd[file], i % CFN_LIVE_LOCKS_PER_FILE);
      if (e < 0) result = e;
    }
  return result;
}

int cfn_life_take(cfn_region_t *r, uint32_t i) {
  uint32_t file = i / CFN_LIVE_LOCKS_PER_FILE;
  enter(r);
  int result = CFN_OK;
  if (r->own_nonce[i]) { /* a process locking its own byte again succeeds: ask the table first */
    leave(r);
    return CFN_AGAIN;
  }
  if (r->live_fd[file] < 0) {
    int e = open_file_of_ours(r, i);
    errno = -e;
    if (e == -ENOENT) /* its directory is gone, or not the one that we know under this path */
      result = cfn_fail(CFN_RETIRED, 0, 0, "bus '%s' was destroyed meanwhile", r->name);
    else if (e < 0) result = cfn_fail_os("cannot open a life file of bus '%s'", r->name);
  }
  if (result == CFN_OK) {
    int e = cfn_os_lock_try(r->live_fd[file], i % CFN_LIVE_LOCKS_PER_FILE);
    if (e == 0) {
      r->own_nonce[i] = 1; /* taken, not named yet */
      r->live_held[file]++;
    } else if (e == -EAGAIN) {
      result = CFN_AGAIN;
    } else {
      errno = -e;
      result = cfn_fail_os("cannot lock a life byte of bus '%s'", r->name);
    }
    if (r->live_held[file] == 0) { /* none of ours in this file: closing drops nothing */
      close(r->live_fd[file]);
      r->live_fd[file] = -1;
    }
  }
  leave(r);
  return result;
}

void cfn_life_note(cfn_region_t *r, uint32_t i, uint64_t nonce) {
  enter(r);
  r->own_nonce[i] = nonce;
  leave(r);
}

void cfn_life_drop(cfn_region_t *r, uint32_t i) {
  uint32_t file = i / CFN_LIVE_LOCKS_PER_FILE;
  enter(r);
  if (r->own_nonce[i]) {
    r->own_nonce[i] = 0;
    bool ours = r->live_fd[file] >= 0 && still_file(r, file);
    if (ours) cfn_os_lock_release(r->live_fd[file], i % CFN_LIVE_LOCKS_PER_FILE);
    if (--r->live_held[file] == 0) {
      if (ours) close(r->live_fd[file]);
      r->live_fd[file] = -1;
    }
  }
  leave(r);
}

int cfn_life_refresh(cfn_region_t *r, uint32_t i) {
  enter(r);
  int result = CFN_OK;
  if (!r->own_nonce[i]) {
    result = CFN_FORKED;
  } else {
    int e = refresh_file(r, i / CFN_LIVE_LOCKS_PER_FILE);
    if (e == -EAGAIN) {
      result = CFN_AGENT_FENCED;
    } else if (e < 0) {
      errno = -e;
      result = cfn_fail_os("cannot take the life byte of bus '%s' back", r->name);
    }
  }
  leave(r);
  return result;
}

/* 1 held by another process, 0 free, -1 it is ours, -2 cannot tell. */
static int byte_state(cfn_region_t *r, uint32_t i) {
  uint32_t file = i / CFN_LIVE_LOCKS_PER_FILE;
  enter(r);
  int result;
  if (r->own_nonce[i]) {
    result = -1;
  } else if (r->live_fd[file] >= 0) {
    result = cfn_os_lock_held(r->live_fd[file], i % CFN_LIVE_LOCKS_PER_FILE);
  } else {
    int fd = open_file(r, i);
    result = fd < 0 ? -2 : cfn_os_lock_held(fd, i % CFN_LIVE_LOCKS_PER_FILE);
    if (fd >= 0) close(fd); /* we hold nothing in this file: closing drops nothing */
  }
  if (result < -1) result = -2;
  leave(r);
  return result;
}

static void load_identity(const cfn_region_t *r, uint32_t i, cfn_identity_t *out) {
  cfn_attach_shm_t *a = cfn_attachment(r, i);
  out->pid = cfn_load_relaxed(&a->pid);
  out->pid_ns = cfn_load_relaxed(&a->pid_ns);
  out->time_ns = cfn_load_relaxed(&a->time_ns);
  out->start_time = cfn_load_relaxed(&a->start_time);
  out->pidfs_ino = cfn_load_relaxed(&a->pidfs_ino);
}

void cfn_identity_of(const cfn_region_t *r, uint32_t i, uint64_t *pid) {
  *pid = cfn_load_relaxed(&cfn_attachment(r, i)->pid);
}

bool cfn_life_is_stopped(const cfn_region_t *r, uint32_t i) {
  cfn_identity_t who;
  load_identity(r, i, &who);
  char state = cfn_os_process_state(&who);
  return state == 'T' || state == 't';
}

int cfn_life_of(cfn_region_t *r, uint32_t i, uint64_t *judged, bool *free_byte) {
  if (free_byte) *free_byte = false;
  cfn_a64 *id = &cfn_attachment(r, i)->id;
  for (int tries = 0; tries < 64; tries++) {
    uint64_t w = cfn_load_seq(id);
    if (judged) *judged = w;
    unsigned state = cfn_id_state(w);
    if (state == CFN_ID_FREE || state == CFN_ID_VACANT) return CFN_LIFE_NONE;
    if (state == CFN_ID_REAP) return CFN_LIFE_DEAD;
    int byte = byte_state(r, i);
    if (byte != 0) return CFN_LIFE_ALIVE; /* held, ours, or untold: the living get the doubt */
    if (state == CFN_ID_JOINING) { /* the identity there may still be the slot's last process's */
      if (cfn_load_seq(id) != w) continue;
      return CFN_LIFE_DEAD;
    }
    cfn_identity_t who;
    load_identity(r, i, &who);
    int running = cfn_os_process_maps(&who, r->dev, r->ino);
    if (cfn_load_seq(id) != w) continue; /* another life meanwhile: judge that one */
    if (running != 0) { /* it runs, robbed of its lock, or that cannot be told: the living get the doubt */
      if (free_byte) *free_byte = true;
      return CFN_LIFE_ALIVE;
    }
    return CFN_LIFE_DEAD;
  }
  return CFN_LIFE_ALIVE;
}

int cfn_life_of_agent(cfn_region_t *r, uint32_t mailbox, uint32_t *attachment) {
  cfn_mailbox_shm_t *m = cfn_mailbox(r, mailbox);
  for (int tries = 0; tries < 64; tries++) {
    uint64_t owner = cfn_load_seq(&m->owner);
    uint64_t consumer = cfn_load_seq(&m->consumer);
    unsigned reader = cfn_consumer_att(consumer);
    unsigned whose = cfn_owner_att(owner);
    unsigned most = r->geo.config.attachments;
    if (attachment) *attachment = whose && whose <= most ? whose : reader <= most ? reader : 0;
    int life = CFN_LIFE_NONE;
    if (reader && reader <= r->geo.config.attachments)
      life = cfn_life_of(r, reader - 1, NULL, NULL);
    if (life != CFN_LIFE_ALIVE && whose == CFN_OWNER_DEAD) life = CFN_LIFE_DEAD;
    if (life != CFN_LIFE_ALIVE && whose && whose <= r->geo.config.attachments)
      life = cfn_life_of(r, whose - 1, NULL, NULL);
    if (whose == 0 && life == CFN_LIFE_DEAD) life = CFN_LIFE_NONE; /* a reader passed by and died */
    /* An attachment is judged for this agent only while the agent's words still name it. */
    if (cfn_load_seq(&m->owner) == owner && cfn_load_seq(&m->consumer) == consumer) return life;
  }
  return CFN_LIFE_ALIVE;
}

/* 1 in use, 0 not, or an error. The table of this process's regions is closed meanwhile: a thread of ours that
 * attached would lose its locks to our opening and closing of the files. */
static int in_use(int dir_fd, const char *path, uint64_t *pid) {
  struct stat st;
  char file[32];
  int r = 0;
  if (fstat(dir_fd, &st) != 0) return cfn_fail_os("cannot look at %s", path);
  if (!cfn_region_table_close((uint64_t)st.st_dev, (uint64_t)st.st_ino)) {
    *pid = (uint64_t)getpid();
    return 1;
  }
  for (uint32_t i = 0; r == 0 && i < CFN_MAX_ATTACHMENTS; i += CFN_LIVE_LOCKS_PER_FILE) {
    file_name(i, file);
    int fd = openat(dir_fd, file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) continue;
    r = fd < 0 ? -errno : cfn_os_lock_any(fd, pid);
    if (fd >= 0) close(fd);
    if (r < 0) {
      errno = -r;
      r = cfn_fail_os("cannot look at the life bytes in %s", path);
    }
  }
  cfn_region_table_open();
  /* A process that was robbed of its byte is alive all the same. */
  bool there = r == 0 && fstatat(dir_fd, "region", &st, AT_SYMLINK_NOFOLLOW) == 0;
  if (r == 0 && !there && errno != ENOENT) r = cfn_fail_os("cannot look at the region in %s", path);
  if (there) {
    r = cfn_os_mapped_by((uint64_t)st.st_dev, (uint64_t)st.st_ino, pid);
    if (r < 0) {
      errno = -r;
      r = cfn_fail_os("cannot look for processes that have %s mapped", path);
    }
  }
  return r;
}

int cfn_bus_in_use(const char *dir, const char *name, uint64_t *pid) {
  char path[CFN_PATH_BYTES];
  *pid = 0;
  int dir_fd = cfn_region_open_dir(dir, name, path);
  if (dir_fd < 0) return dir_fd;
  int r = in_use(dir_fd, path, pid);
  close(dir_fd);
  return r;
}

int cfn_bus_remove(const char *dir, const char *name, uint64_t *pid) {
  char path[CFN_PATH_BYTES];
  *pid = 0;
  int dir_fd = cfn_region_open_dir(dir, name, path);
  if (dir_fd < 0) return dir_fd;
  int r = in_use(dir_fd, path, pid);
  if (r > 0)
    r = cfn_fail(CFN_AGENT_BUSY, (int64_t)*pid, 0,
                 "bus '%s' is in use: process %llu has it open (0 is one of another pid namespace); end it first, or "
                 "destroy the bus under it (cfnshm destroy --force)", name, (unsigned long long)*pid);
  if (r == 0) r = cfn_region_end_dir(dir_fd, path); /* by what was judged: a later bus of this name is not touched */
  close(dir_fd);
  return r;
}
