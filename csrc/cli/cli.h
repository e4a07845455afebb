/* The command's frame: options, output, errors. Each verb is a function in verbs.c. */
#ifndef CFN_CLI_CLI_H
#define CFN_CLI_CLI_H

#include <stdbool.h>

#include "cfnshm.h"

typedef struct cfn_cli {
  const char *verb;
  /* options, each with its environment variable */
  const char *bus;   /* --bus, CFNSHM_BUS, "default" */
  const char *agent; /* --as, CFNSHM_AGENT */
  const char *dir;   /* --dir, CFNSHM_DIR */
  const char *type, *team, *capabilities, *tags, *status;
  uint64_t agents, size, count;
  uint64_t version; /* CFN_ANY_VERSION: none was asked for */
  cfn_wish_t wish; /* lanes and slabs: CFNSHM_LANES, CFNSHM_SLABS */
  double timeout; /* seconds; < 0: for ever */
  bool timeout_set, json, follow, hold, force, as_json, as_raw, steal, all, shell, total,
      wait_ack, intact, go_on;
  unsigned lane;
  bool lane_set;
  /* positional */
  int argc;
  char **argv;
} cfn_cli_t;

bool cfn_cli_knows(const char *verb);
/* Exit status of the command. */
int cfn_cli_run(cfn_cli_t *cli);

/* Prints the failure of this thread and returns its exit status. */
int cfn_cli_fail(const cfn_cli_t *cli, int code);
int cfn_cli_usage(const cfn_cli_t *cli, const char *problem);
uint64_t cfn_cli_deadline(const cfn_cli_t *cli, double otherwise);
const char *cfn_cli_help(const char *verb);
/* Has whoever would read our output gone away? Then a waiting `x=$(cfnshm recv)` whose shell was killed
 * must not go on holding the inbox. */
bool cfn_cli_reader_gone(void);
/* With --shell a failure must not leave the last message's variables: eval would repeat it. */
void cfn_cli_empty_variables(const cfn_cli_t *cli, int status);

#endif
