/* The system refuses: the n-th call of a name that the core makes in this process fails, or somebody else does something just
 * before it. The calls are wrapped when the test is linked (Makefile), so nothing is traced and nothing is slow; for deaths at
 * every call there is test_syscalls.c. */
#ifndef CFN_TESTS_REFUSER_H
#define CFN_TESTS_REFUSER_H

#include "tests/harness.h"

enum { N_ALWAYS = 1 << 30 };
/* Of the calls of `name` that come, the first `after` are made, the next `times` fail with `error`. One rule at a time. */
void n_refuse(const char *name, int after, int times, int error);
/* Instead of failing, it is preceded by `what`, or answers so. */
void n_before(const char *name, int after, int times, void (*what)(void));
void n_answer(const char *name, int after, int times, long value);
void n_reads(const char *text); /* the next read() finds that */
/* The rule ends: how often it was followed, which is never 0. */
int n_end(void);

#endif
