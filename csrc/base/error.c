#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local cfn_failure_t last_failure;

const char *cfn_error_name(int code) {
  switch (code) {
    case CFN_OK: return "OK";
#define CFN_ERROR_NAME(name, value, exit_status, text) \
  case CFN_##name: return #name;
      CFN_ERROR_LIST(CFN_ERROR_NAME)
#undef CFN_ERROR_NAME
    default: return "UNKNOWN";
  }
}

const char *cfn_error_text(int code) {
  switch (code) {
    case CFN_OK: return "ok";
#define CFN_ERROR_TEXT(name, value, exit_status, text) \
  case CFN_##name: return text;
      CFN_ERROR_LIST(CFN_ERROR_TEXT)
#undef CFN_ERROR_TEXT
    default: return "unknown error";
  }
}

int cfn_error_exit_status(int code) {
  switch (code) {
#define CFN_ERROR_EXIT(name, value, exit_status, text) \
  case CFN_##name: return exit_status;
    CFN_ERROR_LIST(CFN_ERROR_EXIT)
#undef CFN_ERROR_EXIT
    default: return code >= 0 ? 0 : 1;
  }
}

static void record(int code, int os_errno, int64_t have, int64_t want, const char *format,
                   va_list args) {
  last_failure.code = code;
  last_failure.os_errno = os_errno;
  last_failure.have = have;
  last_failure.want = want;
  vsnprintf(last_failure.text, sizeof last_failure.text, format, args);
}

int cfn_fail(int code, int64_t have, int64_t want, const char *format, ...) {
  va_list args;
  va_start(args, format);
  record(code, 0, have, want, format, args);
  va_end(args);
  return code;
}

int cfn_fail_os(const char *format, ...) {
  int saved = errno;
  int code = CFN_OS;
  if (saved == EACCES || saved == EPERM || saved == EROFS) code = CFN_PERMISSION;
  if (saved == ENOSPC || saved == EDQUOT) code = CFN_NO_SPACE;
  if (saved == ENOMEM) code = CFN_NO_MEMORY;
  va_list args;
  va_start(args, format);
  record(code, saved, 0, 0, format, args);
  va_end(args);
  size_t used = strlen(last_failure.text);
  snprintf(last_failure.text + used, sizeof last_failure.text - used, ": %s", strerror(saved));
  return code;
}

const cfn_failure_t *cfn_last_failure(void) { return &last_failure; }
