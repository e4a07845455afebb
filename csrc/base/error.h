/* The one list of result codes. Zero or more is success (often a count); a negative value is one
 * of these. "Full", "empty" and "timed out" are ordinary results, not surprises.
 *
 *   X(NAME, value, exit status of the command, text)
 */
#ifndef CFN_BASE_ERROR_H
#define CFN_BASE_ERROR_H

#include <stdint.h>

#define CFN_ERROR_LIST(X)                                                                  \
  X(INTERRUPTED, -1, 1, "interrupted by a signal or a safety tick: call again")            \
  X(TIMEOUT, -2, 3, "timed out")                                                           \
  X(EMPTY, -3, 3, "nothing there")                                                         \
  X(FULL, -4, 4, "the inbox is full")                                                      \
  X(AGAIN, -5, 1, "too much contention just now: call again")                              \
  X(UNKNOWN_AGENT, -6, 5, "no such agent")                                                 \
  X(AGENT_DEAD, -7, 6, "the agent's process died")                                         \
  X(AGENT_BUSY, -8, 10, "another live process reads this inbox")                           \
  X(NO_SPACE, -9, 11, "no room left")                                                      \
  X(TOO_LARGE, -10, 11, "larger than the largest message this bus can hold")               \
  X(BAD_NAME, -11, 2, "not a valid name")                                                  \
  X(VERSION_MISMATCH, -12, 8, "the bus was made by another version")                       \
  X(CORRUPT, -13, 8, "the bus is corrupt")                                                 \
  X(OVER_CAPACITY, -14, 11, "more than the bus was created for")                           \
  X(AGENT_FENCED, -15, 9, "the inbox was taken over by someone else")                      \
  X(CLOSED, -16, 1, "this handle is closed")                                               \
  X(FORKED, -17, 1, "this handle was inherited by fork")                                   \
  X(PERMISSION, -18, 7, "permission denied")                                               \
  X(STALE, -19, 5, "the agent was removed meanwhile")                                      \
  X(OS, -20, 1, "the operating system refused")                                            \
  X(INVALID, -21, 2, "bad argument")                                                       \
  X(RETIRED, -22, 12, "the bus was destroyed")                                             \
  X(NO_BUS, -23, 12, "no such bus")                                                        \
  X(NO_MEMORY, -24, 1, "out of memory in this process")                                    \
  X(UNKNOWN_KEY, -25, 3, "no such key")                                                    \
  X(CONFLICT, -26, 1, "somebody else changed it meanwhile")                                \
  X(UNKNOWN_OBJECT, -27, 3, "no such object")                                              \
  X(LEASE_LOST, -28, 9, "the lease is not held any more")                                  \
  X(OWNER_DIED, -29, 14, "its last holder died holding it")                                \
  X(BROKEN_BARRIER, -30, 13, "the barrier is broken")                                      \
  X(DEADLOCK, -31, 10, "who waits for each other waits for ever")

enum {
  CFN_OK = 0,
#define CFN_ERROR_ENUM(name, value, exit_status, text) CFN_##name = value,
  CFN_ERROR_LIST(CFN_ERROR_ENUM)
#undef CFN_ERROR_ENUM
};

/* What the last failing call of this thread knew: the code alone never says which agent, which
 * file, how many bytes. Thread-local, valid until the thread's next failing call. */
typedef struct cfn_failure {
  int code;
  int os_errno;    /* errno of the failing system call, or 0 */
  int64_t have;    /* what there is (bytes, agents, pid: see text), or 0 */
  int64_t want;    /* what was asked for, or 0 */
  char text[400];  /* one sentence that names the thing, and the remedy where there is one */
} cfn_failure_t;

const char *cfn_error_name(int code); /* "FULL" */
const char *cfn_error_text(int code);
int cfn_error_exit_status(int code);

/* Records the failure of this thread and returns `code`. */
int cfn_fail(int code, int64_t have, int64_t want, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same for a system call that has just set errno; maps EACCES and ENOSPC to their own codes. */
int cfn_fail_os(const char *format, ...) __attribute__((format(printf, 1, 2)));
const cfn_failure_t *cfn_last_failure(void);

#endif
