/* How the command shows a message: as its body, as JSON, as shell variables. */
#ifndef CFN_CLI_SHOW_H
#define CFN_CLI_SHOW_H

#include <stdio.h>

#include "cli/cli.h"

extern const char *const cfn_lane_names[CFN_LANES];

/* att.inc.sequence: the message's id */
void cfn_show_id(FILE *out, const cfn_wire_t *w);
/* "name":value in JSON; with "encoding":"base64" behind it where the bytes are no text. */
void cfn_show_payload(const char *name, unsigned codec, const uint8_t *body, size_t bytes);
/* One line, the fields of the envelope and the payload. */
void cfn_show_json(const cfn_wire_t *w, const char *to);
/* As the options ask. */
void cfn_show(const cfn_cli_t *cli, const cfn_wire_t *w, const char *to);

#endif
