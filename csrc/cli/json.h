/* Writing JSON and base64 to a stream: all that the command prints with --json. */
#ifndef CFN_CLI_JSON_H
#define CFN_CLI_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A quoted string; bytes that are not UTF-8 become U+FFFD. */
void cfn_json_string(FILE *out, const char *text, size_t bytes);
/* 1 if the bytes are whole, valid UTF-8 without NUL. */
int cfn_json_is_text(const uint8_t *bytes, size_t n);
/* 1 if the bytes are one JSON value. */
int cfn_json_valid(const uint8_t *bytes, size_t n);
/* Text for a table: control characters become '?'. */
void cfn_print_plain(FILE *out, const char *text, size_t bytes, int width);
void cfn_base64(FILE *out, const uint8_t *bytes, size_t n);
/* Seconds since 1970 as 2026-11-21T06:00:00.123456Z */
void cfn_json_time(FILE *out, uint64_t wall_ns);

#endif
