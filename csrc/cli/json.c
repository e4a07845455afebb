#include "cli/json.h"

#include <string.h>
#include <time.h>

/* Length of the valid UTF-8 sequence at p, or 0. */
static size_t utf8_length(const uint8_t *p, size_t n) {
  if (p[0] < 0x80) return 1;
  size_t need = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
                : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
  if (need == 0 || need > n) return 0;
  for (size_t i = 1; i < need; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if (p[0] == 0xe0 && p[1] < 0xa0) return 0; /* overlong */
  if (p[0] == 0xed && p[1] > 0x9f) return 0; /* surrogates */
  if (p[0] == 0xf0 && p[1] < 0x90) return 0;
  if (p[0] == 0xf4 && p[1] > 0x8f) return 0;
  return need;
}

int cfn_json_is_text(const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n;) {
    size_t k = utf8_length(bytes + i, n - i);
    if (k == 0 || bytes[i] == 0) return 0;
    i += k;
  }
  return 1;
}

/* ---- validation: a recursive descent over RFC 8259, at most 512 deep ---- */

typedef struct scan {
  const uint8_t *p, *end;
  int depth;
} scan_t;

static void skip_space(scan_t *s) {
  while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')) s->p++;
}
static int accept_char(scan_t *s, char c) {
  if (s->p < s->end && *s->p == (uint8_t)c) return s->p++, 1;
  return 0;
}
static int accept_word(scan_t *s, const char *word) {
  size_t n = strlen(word);
  if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return 0;
  s->p += n;
  return 1;
}
static int digits(scan_t *s) {
  const uint8_t *start = s->p;
  while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
  return s->p > start;
}
static int number(scan_t *s) {
  accept_char(s, '-');
  if (!accept_char(s, '0') && !digits(s)) return 0;
  if (accept_char(s, '.') && !digits(s)) return 0;
  if (accept_char(s, 'e') || accept_char(s, 'E')) {
    if (!accept_char(s, '+')) accept_char(s, '-');
    if (!digits(s)) return 0;
  }
  return 1;
}
static int string(scan_t *s) {
  if (!accept_char(s, '"')) return 0;
  while (s->p < s->end) {
    uint8_t c = *s->p++;
    if (c == '"') return 1;
    if (c < 0x20) return 0;
    if (c != '\\') continue;
    if (s->p == s->end || !strchr("\"\\/bfnrtu", *s->p)) return 0;
    if (*s->p++ != 'u') continue;
    for (int i = 0; i < 4; i++, s->p++)
      if (s->p >= s->end || !strchr("0123456789abcdefABCDEF", *s->p) || !*s->p) return 0;
  }
  return 0;
}
static int value(scan_t *s);
static int members(scan_t *s, char close, int keyed) {
  skip_space(s);
  if (accept_char(s, close)) return 1;
  do {
    skip_space(s);
    if (keyed && (!string(s) || (skip_space(s), !accept_char(s, ':')))) return 0;
    if (!value(s)) return 0;
    skip_space(s);
  } while (accept_char(s, ','));
  return accept_char(s, close);
}
static int value(scan_t *s) {
  skip_space(s);
  if (s->p == s->end || ++s->depth > 512) return 0;
  int good = *s->p == '{'   ? (s->p++, members(s, '}', 1))
             : *s->p == '[' ? (s->p++, members(s, ']', 0))
             : *s->p == '"' ? string(s)
                            : accept_word(s, "true") || accept_word(s, "false") ||
                                  accept_word(s, "null") || number(s);
  s->depth--;
  return good;
}

int cfn_json_valid(const uint8_t *bytes, size_t n) {
  scan_t s = {bytes, bytes + n, 0};
  if (!cfn_json_is_text(bytes, n) || !value(&s)) return 0;
  skip_space(&s);
  return s.p == s.end;
}

void cfn_print_plain(FILE *out, const char *text, size_t n, int width) {
  for (size_t i = 0; i < n; i++, width--)
    putc((uint8_t)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i], out);
  while (width-- > 0) putc(' ', out);
}

void cfn_json_string(FILE *out, const char *text, size_t n) {
  const uint8_t *p = (const uint8_t *)text;
  putc('"', out);
  for (size_t i = 0; i < n;) {
    size_t k = utf8_length(p + i, n - i);
    if (k == 0) {
      fputs("\\ufffd", out);
      i++;
      continue;
    }
    if (k > 1) {
      fwrite(p + i, 1, k, out);
    } else if (p[i] == '"' || p[i] == '\\') {
      putc('\\', out);
      putc(p[i], out);
    } else if (p[i] == '\n') {
      fputs("\\n", out);
    } else if (p[i] == '\t') {
      fputs("\\t", out);
    } else if (p[i] == '\r') {
      fputs("\\r", out);
    } else if (p[i] < 0x20 || p[i] == 0x7f) {
      fprintf(out, "\\u%04x", p[i]);
    } else {
      putc(p[i], out);
    }
    i += k;
  }
  putc('"', out);
}

void cfn_base64(FILE *out, const uint8_t *p, size_t n) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    uint32_t v = (uint32_t)p[i] << 16;
    if (i + 1 < n) v |= (uint32_t)p[i + 1] << 8;
    if (i + 2 < n) v |= p[i + 2];
    putc(digits[v >> 18 & 63], out);
    putc(digits[v >> 12 & 63], out);
    putc(i + 1 < n ? digits[v >> 6 & 63] : '=', out);
    putc(i + 2 < n ? digits[v & 63] : '=', out);
  }
}

void cfn_json_time(FILE *out, uint64_t wall_ns) {
  time_t seconds = (time_t)(wall_ns / 1000000000u);
  struct tm t;
  gmtime_r(&seconds, &t);
  fprintf(out, "\"%04d-%02d-%02dT%02d:%02d:%02d.%06dZ\"", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
          t.tm_hour, t.tm_min, t.tm_sec, (int)(wall_ns % 1000000000u / 1000u));
}
