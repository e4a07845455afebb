/* What the verbs share. verbs.c has the table and the help texts, verbs_message.c what sends and receives,
 * verbs_agent.c the agents and the bus, verbs_context.c objects and values, verbs_sync.c locks and barriers. */
#ifndef CFN_CLI_VERBS_H
#define CFN_CLI_VERBS_H

#include "cli/cli.h"

enum { CFN_NEED_AGENT = 1, CFN_CREATE_BUS = 2, CFN_CREATE_AGENT = 4, CFN_OWN_AGENT = 8 };
/* Opens the bus of the options, acting as their agent if they name one. */
int cfn_cli_open(const cfn_cli_t *cli, int need, cfn_bus_t **bus);
int cfn_cli_open_as_nobody(const cfn_cli_t *cli, int need, cfn_bus_t **bus); /* whoever we are */

/* The payload: the argument, or standard input where it is "-" or missing. The caller frees it, also after a failure. */
int cfn_cli_read_body(const cfn_cli_t *cli, int argument, uint8_t **body, uint32_t *bytes);
uint8_t cfn_cli_codec(const cfn_cli_t *cli, const uint8_t *body, size_t bytes);
/* With --body-json it must be that. */
int cfn_cli_check_json(const cfn_cli_t *cli, const uint8_t *body, uint32_t bytes);

int cfn_verb_register(cfn_cli_t *cli);
int cfn_verb_unregister(cfn_cli_t *cli);
int cfn_verb_send(cfn_cli_t *cli);
int cfn_verb_recv(cfn_cli_t *cli);
int cfn_verb_ack(cfn_cli_t *cli);
int cfn_verb_request(cfn_cli_t *cli);
int cfn_verb_reply(cfn_cli_t *cli);
int cfn_verb_broadcast(cfn_cli_t *cli);
int cfn_verb_inbox(cfn_cli_t *cli);
int cfn_verb_wait(cfn_cli_t *cli);
int cfn_verb_list(cfn_cli_t *cli);
int cfn_verb_whoami(cfn_cli_t *cli);
int cfn_verb_status(cfn_cli_t *cli);
int cfn_verb_destroy(cfn_cli_t *cli);
int cfn_verb_put(cfn_cli_t *cli);
int cfn_verb_get(cfn_cli_t *cli);
int cfn_verb_delete(cfn_cli_t *cli);
int cfn_verb_state(cfn_cli_t *cli);
int cfn_verb_lock(cfn_cli_t *cli);
int cfn_verb_elect(cfn_cli_t *cli);
int cfn_verb_semaphore(cfn_cli_t *cli);
int cfn_verb_barrier(cfn_cli_t *cli);

#endif
