/* What the C tests share: checks that name file and line, a bus of their own, processes. */
#ifndef CFN_TESTS_HARNESS_H
#define CFN_TESTS_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "cfnshm.h"

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) t_fail(__FILE__, __LINE__, #condition);                        \
  } while (0)
#define CHECK_INT(expression, expected)                                              \
  do {                                                                               \
    long long got_ = (long long)(expression), want_ = (long long)(expected);         \
    if (got_ != want_) t_fail_int(__FILE__, __LINE__, #expression, got_, want_);     \
  } while (0)

_Noreturn void t_fail(const char *file, int line, const char *what);
_Noreturn void t_fail_int(const char *file, int line, const char *what, long long got,
                          long long want);
/* Names the case that runs, in every failure that follows. */
void t_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
void t_passed(const char *program);

/* A bus name of this process alone; the bus goes when the process ends normally. */
const char *t_bus_name(void);
/* A small bus: few agents, short lanes, few chunks, so that everything runs full and wraps soon. */
cfn_wish_t t_small_wish(void);
cfn_bus_t *t_open(const char *agent, const cfn_wish_t *wish);
cfn_bus_t *t_attach(const char *agent); /* the bus must be there */
void t_close(cfn_bus_t *bus);
void t_destroy(void);

uint64_t t_in(double seconds); /* a deadline */
int t_send(cfn_bus_t *bus, const char *to, unsigned lane, const void *body, uint32_t bytes,
           double timeout, cfn_receipt_t *receipt);
/* The next message; its body in `body` (at most 4096 bytes), its token and header in *wire. */
int64_t t_recv(cfn_bus_t *bus, double timeout, cfn_wire_t *wire, char body[4096]);
int t_ack(cfn_bus_t *bus, uint64_t token);
/* Until the agent's process sleeps, and on this (CFN_WAIT_*). */
void t_until_waits(cfn_bus_t *bus, const char *agent, unsigned kind);
/* No error and, if `quiet`, no warning either. */
void t_check_region(cfn_bus_t *bus, bool quiet);
/* Bytes that are in the heap after a collection. */
uint64_t t_heap_used(cfn_bus_t *bus);
/* Every chunk is FREE. */
void t_check_nothing_held(cfn_bus_t *bus);

/* However the program ends (failure, signal, sanitizer, or after `seconds`), the bus is removed. */
void t_guard(unsigned seconds);
/* fork; the child dies with its parent, so that a failure leaves nobody behind. */
pid_t t_fork(void);
/* Waits for a child; it must end with exit status 0. */
void t_join(pid_t child);
/* SIGKILL, and waited for unless `zombie`. */
void t_kill(pid_t child, bool zombie);
double t_now(void);

#endif
