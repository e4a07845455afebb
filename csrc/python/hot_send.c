/* Twins of what sends. */
#include "python/hot.h"

typedef struct body {
  const char *bytes;
  Py_ssize_t n; /* with the head of an array */
  unsigned codec;
  PyObject *made; /* what must be given back */
  Py_buffer elements; /* of an array, whose head is `made` */
} body_t;

static void body_end(body_t *body) {
  if (body->elements.obj) PyBuffer_Release(&body->elements);
  Py_XDECREF(body->made);
}

/* An array in one piece, as it is now: what is sent later, or to many, must not change meanwhile. */
static bool body_join(body_t *body) {
  if (!body->elements.obj) return true;
  Py_ssize_t start = PyBytes_Size(body->made);
  PyObject *joined = PyBytes_FromStringAndSize(NULL, start + body->elements.len);
  if (!joined) return false;
  memcpy(PyBytes_AsString(joined), PyBytes_AsString(body->made), (size_t)start);
  if (body->elements.len) memcpy(PyBytes_AsString(joined) + start, body->elements.buf, (size_t)body->elements.len);
  body_end(body);
  *body = (body_t){.bytes = PyBytes_AsString(joined), .n = PyBytes_Size(joined), .codec = body->codec, .made = joined};
  return true;
}

static cfn_outgoing_t outgoing(const body_t *body, const char *type, Py_ssize_t type_bytes) {
  cfn_outgoing_t m = {.body = body->bytes, .type = type, .body_bytes = (uint32_t)body->n, .type_bytes = (uint8_t)type_bytes,
                      .codec = (uint8_t)body->codec};
  if (body->elements.obj) {
    m.head = PyBytes_AsString(body->made);
    m.head_bytes = (uint32_t)PyBytes_Size(body->made);
  }
  return m;
}

/* 1 it is there, 0 the original must see to it, -1 an exception (also Ctrl-C: it is not ours to clear). */
static int body_of(PyObject *value, body_t *body) {
  body->made = NULL;
  if (PyBytes_CheckExact(value)) {
    body->codec = CFN_CODEC_RAW;
    return PyBytes_AsStringAndSize(value, (char **)(uintptr_t)&body->bytes, &body->n) == 0;
  }
  if (PyUnicode_CheckExact(value)) {
    body->codec = CFN_CODEC_TEXT;
    body->bytes = PyUnicode_AsUTF8AndSize(value, &body->n);
    if (!body->bytes) PyErr_Clear(); /* lone surrogates: the original knows what to do */
    return body->bytes != NULL;
  }
  body->made = hot_array_out(value, &body->elements);
  if (body->made) {
    body->codec = CFN_CODEC_ARRAY;
    body->bytes = body->elements.buf;
    body->n = PyBytes_Size(body->made) + body->elements.len;
    return 1;
  }
  if (PyErr_Occurred()) return -1;
  PyObject *pair = PyObject_CallFunctionObjArgs(hot.encode, value, NULL);
  if (!pair) return -1;
  PyObject *raw = PyTuple_GetItem(pair, 1);
  if (!raw || !PyBytes_CheckExact(raw)) { /* a view of the caller's buffer */
    Py_DECREF(pair);
    return raw ? 0 : -1;
  }
  body->codec = (unsigned)PyLong_AsUnsignedLong(PyTuple_GetItem(pair, 0));
  if (body->codec == CFN_CODEC_ARRAY) hot_array_sent(value);
  body->made = pair;
  return PyBytes_AsStringAndSize(raw, (char **)(uintptr_t)&body->bytes, &body->n) == 0 ? 1 : -1;
}

PyObject *hot_receipt_of(PyObject *self, PyObject *to, const cfn_receipt_t *receipt) {
  hot_receipt_t *made = (hot_receipt_t *)hot_make_receipt();
  if (!made) return NULL;
  made->bus = Py_NewRef(self);
  made->to = Py_NewRef(to);
  made->inside = true;
  made->receipt = *receipt;
  return (PyObject *)made;
}

PyObject *hot_send(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  hot_handle_t *self = (hot_handle_t *)object;
  uint64_t deadline = CFN_FOREVER;
  unsigned lane = CFN_LANE_NORMAL;
  const char *type = "";
  Py_ssize_t type_bytes = 0;
  body_t body = {0};
  cfn_address_t to;
  bool plain = n == 2 && self->bus && hot_address(self, args[0], &to);
  Py_ssize_t named = names ? PyTuple_Size(names) : 0;
  for (Py_ssize_t i = 0; plain && i < named; i++) {
    PyObject *name = PyTuple_GetItem(names, i), *value = args[n + i];
    if (hot_same(name, hot.word_type)) {
      type = PyUnicode_CheckExact(value) ? PyUnicode_AsUTF8AndSize(value, &type_bytes) : NULL;
      plain = type && type_bytes <= CFN_TYPE_BYTES_MAX;
    } else if (hot_same(name, hot.word_priority)) {
      plain = hot_lane(value, &lane);
    } else if (hot_same(name, hot.word_timeout)) {
      plain = hot_deadline(value, &deadline);
    } else {
      plain = false;
    }
  }
  if (PyErr_Occurred()) PyErr_Clear();
  int there = plain ? body_of(args[1], &body) : 0;
  if (there < 0) return NULL;
  if (there == 0) return hot_original(hot.original_send, object, args, n, names);
  int r = CFN_INTERRUPTED;
  cfn_receipt_t receipt;
  cfn_outgoing_t m = outgoing(&body, type, type_bytes);
  if (body.n < MUCH) {
    r = cfn_bus_send(self->bus, &to, lane, &m, 1, CFN_TRY, &receipt);
  } else if (body.n > UINT32_MAX) {
    r = CFN_STALE; /* the original says that it is too large */
  } else if (body.elements.obj) {
    Py_BEGIN_ALLOW_THREADS
    r = cfn_bus_send(self->bus, &to, lane, &m, 1, 0, &receipt);
    Py_END_ALLOW_THREADS
  }
  if (r == CFN_FULL || r == CFN_NO_SPACE || r == CFN_AGAIN || r == CFN_INTERRUPTED) { /* it may wait */
    if (!body_join(&body)) r = CFN_NO_MEMORY;
    m = outgoing(&body, type, type_bytes);
  }
  bool first = true;
  while (r == CFN_INTERRUPTED || (first && (r == CFN_FULL || r == CFN_NO_SPACE || r == CFN_AGAIN))) {
    first = false;
    if (PyErr_CheckSignals() < 0) break;
    Py_BEGIN_ALLOW_THREADS
    r = cfn_bus_send(self->bus, &to, lane, &m, 1, deadline, &receipt);
    Py_END_ALLOW_THREADS
  }
  PyObject *result = NULL;
  if (PyErr_Occurred()) { /* Ctrl-C */
  } else if (r == CFN_OK) {
    result = hot_receipt_of(object, args[0], &receipt);
  } else if (r == CFN_STALE) {
    Py_CLEAR(self->last_to);
    result = hot_original(hot.original_send, object, args, n, names);
  } else {
    hot_raise(r);
  }
  body_end(&body);
  return result;
}

static PyObject *sum_of(PyObject *a, Py_ssize_t b) {
  PyObject *number = PyLong_FromSsize_t(b);
  PyObject *sum = number ? PyNumber_Add(a, number) : NULL;
  Py_XDECREF(number);
  return sum;
}

/* _send_group(to, bodies, type, lane, deadline, receipts, sent) -> sent: the bodies are a list of its own */
PyObject *hot_send_group(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  hot_handle_t *self = (hot_handle_t *)object;
  cfn_address_t to;
  Py_ssize_t type_bytes = 0;
  cfn_outgoing_t *batch = NULL;
  bool plain = n == 7 && !names && self->bus && hot_address(self, args[0], &to) && PyList_CheckExact(args[1]) &&
               PyUnicode_CheckExact(args[2]);
  const char *type = plain ? PyUnicode_AsUTF8AndSize(args[2], &type_bytes) : NULL;
  plain = type && type_bytes <= CFN_TYPE_BYTES_MAX;
  if (PyErr_Occurred()) PyErr_Clear();
  Py_ssize_t count = plain ? PyList_Size(args[1]) : 0;
  if (plain) batch = malloc((size_t)(count ? count : 1) * sizeof *batch);
  plain = batch != NULL;
  for (Py_ssize_t i = 0; plain && i < count; i++) {
    PyObject *body = PyList_GetItem(args[1], i);
    char *bytes;
    Py_ssize_t size;
    plain = PyBytes_CheckExact(body) && PyBytes_AsStringAndSize(body, &bytes, &size) == 0 && size <= UINT32_MAX;
    if (plain)
      batch[i] = (cfn_outgoing_t){.body = bytes, .type = type, .body_bytes = (uint32_t)size,
                                  .type_bytes = (uint8_t)type_bytes, .codec = CFN_CODEC_RAW};
  }
  if (!plain) {
    free(batch);
    return hot_original(hot.original_send_group, object, args, n, names);
  }
  unsigned lane = (unsigned)PyLong_AsUnsignedLong(args[3]);
  uint64_t deadline = PyLong_AsUnsignedLongLong(args[4]);
  Py_ssize_t at = 0;
  int why = CFN_OK;
  bool first = true, failed = PyErr_Occurred() != NULL;
  while (at < count && !failed) {
    cfn_receipt_t receipt;
    uint32_t sent = 0;
    if (first) {
      why = cfn_bus_send_frame(self->bus, &to, lane, batch + at, (uint32_t)(count - at), CFN_TRY, &receipt, &sent);
    } else {
      Py_BEGIN_ALLOW_THREADS
      why = cfn_bus_send_frame(self->bus, &to, lane, batch + at, (uint32_t)(count - at), deadline, &receipt, &sent);
      Py_END_ALLOW_THREADS
    }
    if (why == CFN_OK) {
      first = true;
      at += sent;
      PyObject *told = hot_receipt_of(object, args[0], &receipt);
      failed = !told || PyList_Append(args[5], told) < 0;
      Py_XDECREF(told);
    } else if (why == CFN_INTERRUPTED || (first && (why == CFN_FULL || why == CFN_NO_SPACE || why == CFN_AGAIN))) {
      first = false;
      failed = PyErr_CheckSignals() < 0;
    } else {
      break;
    }
  }
  free(batch);
  if (failed) return NULL;
  if (why == CFN_STALE) Py_CLEAR(self->last_to);
  if (why == CFN_STALE) { /* unregistered meanwhile: the original looks the agent up again, for the rest */
    PyObject *rest = PyList_GetSlice(args[1], at, count);
    PyObject *sent = rest ? sum_of(args[6], at) : NULL;
    PyObject *with[] = {args[0], rest, args[2], args[3], args[4], args[5], sent};
    PyObject *result = sent ? hot_original(hot.original_send_group, object, with, 7, NULL) : NULL;
    Py_XDECREF(rest);
    Py_XDECREF(sent);
    return result;
  }
  return why < 0 ? hot_raise(why) : sum_of(args[6], count);
}

/* ---- broadcast ---- */

#define FEW 16          /* agents, to whom a broadcast takes less than giving the GIL back */

/* Everybody, as _others remembers them: the names and the addresses, borrowed; NULL if that is not the newest. */
static PyObject *everybody(hot_handle_t *self, PyObject *known, const cfn_address_t **to, Py_ssize_t *n) {
  if (!known || !PyTuple_CheckExact(known) || PyTuple_Size(known) != 3) return NULL;
  PyObject *version = PyTuple_GetItem(known, 0), *names = PyTuple_GetItem(known, 1), *places = PyTuple_GetItem(known, 2);
  if (!PyLong_CheckExact(version) || !PyList_CheckExact(names) || !PyBytes_CheckExact(places)) return NULL;
  uint64_t then = PyLong_AsUnsignedLongLong(version), now = cfn_bus_names_version(self->bus);
  *n = PyList_Size(names);
  *to = (const void *)PyBytes_AsString(places);
  return now && now == then && *n > 0 && PyBytes_Size(places) == *n * (Py_ssize_t)sizeof **to ? names : NULL;
}

/* Those that were not tried, as another thread was inside, before anybody is waited for. How many got it now. */
static int once_more(cfn_bus_t *bus, const cfn_address_t *to, uint32_t count, unsigned lane, const cfn_outgoing_t *m,
                     int *results, cfn_receipt_t *out) {
  int got = 0;
  Py_BEGIN_ALLOW_THREADS
  for (uint32_t i = 0; i < count; i++)
    if (results[i] == CFN_AGAIN) {
      results[i] = cfn_bus_send(bus, &to[i], lane, m, 1, 0, &out[i]);
      got += results[i] == CFN_OK;
    }
  Py_END_ALLOW_THREADS
  return got;
}

PyObject *hot_broadcast(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *words) {
  hot_handle_t *self = (hot_handle_t *)object;
  unsigned lane = CFN_LANE_NORMAL;
  PyObject *kind = NULL, *priority = hot.word_lane[CFN_LANE_NORMAL], *timeout = Py_None;
  const char *type = "";
  Py_ssize_t type_bytes = 0, count = 0, named = words ? PyTuple_Size(words) : 0;
  uint64_t deadline;
  bool plain = n == 1 && self->bus;
  for (Py_ssize_t i = 0; plain && i < named; i++) {
    PyObject *name = PyTuple_GetItem(words, i), *value = args[n + i];
    if (hot_same(name, hot.word_type)) {
      kind = value;
      type = PyUnicode_CheckExact(value) ? PyUnicode_AsUTF8AndSize(value, &type_bytes) : NULL;
      plain = type && type_bytes <= CFN_TYPE_BYTES_MAX;
    } else if (hot_same(name, hot.word_priority)) {
      priority = value;
      plain = hot_lane(value, &lane);
    } else if (hot_same(name, hot.word_timeout)) {
      timeout = value;
      plain = hot_deadline(value, &deadline);
    } else { /* which agents: the original looks for them, unless all are meant */
      plain = value == Py_None && (PyUnicode_CompareWithASCIIString(name, "team") == 0 ||
                                   PyUnicode_CompareWithASCIIString(name, "agent_type") == 0 ||
                                   PyUnicode_CompareWithASCIIString(name, "capability") == 0);
    }
  }
  const cfn_address_t *to = NULL;
  PyObject *known = plain ? PyObject_GetAttr(object, hot.word_others) : NULL;
  PyObject *names = known ? everybody(self, known, &to, &count) : NULL, *result = NULL, *receipts = NULL;
  if (PyErr_Occurred()) PyErr_Clear();
  body_t body = {0};
  int there = names ? body_of(args[0], &body) : 0, *results = NULL;
  if (there == 0 || body.n >= MUCH) {
    if (there >= 0) result = hot_original(hot.original_broadcast, object, args, n, words);
    goto end;
  }
  if (there < 0 || !body_join(&body)) goto end;
  results = malloc((size_t)count * sizeof *results);
  receipts = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(cfn_receipt_t));
  if (!results || !receipts) {
    if (receipts) PyErr_NoMemory();
    goto end;
  }
  cfn_outgoing_t m = outgoing(&body, type, type_bytes);
  cfn_receipt_t *out = (cfn_receipt_t *)(void *)PyBytes_AsString(receipts);
  memset(out, 0, (size_t)count * sizeof *out);
  int got;
  if (count <= FEW) {
    got = cfn_bus_broadcast(self->bus, to, (uint32_t)count, lane, &m, CFN_TRY, results, out);
  } else {
    Py_BEGIN_ALLOW_THREADS
    got = cfn_bus_broadcast(self->bus, to, (uint32_t)count, lane, &m, CFN_TRY, results, out);
    Py_END_ALLOW_THREADS
  }
  if (got == CFN_AGAIN) result = hot_original(hot.original_broadcast, object, args, n, words);
  else if (got < 0) hot_raise(got);
  if (got < 0) goto end;
  if (got < count) got += once_more(self->bus, to, (uint32_t)count, lane, &m, results, out);
  result = PyObject_CallFunctionObjArgs((PyObject *)hot.receipts_type, object, names, receipts, NULL);
  if (result && got < count) {
    PyObject *tried = result;
    result = PyObject_CallMethod(object, "_broadcast_on", "Oy#OOOO", tried, (const char *)results,
                                 count * (Py_ssize_t)sizeof *results, args[0], kind ? kind : hot.word_empty, priority, timeout);
    Py_DECREF(tried);
  }
end:
  free(results);
  Py_XDECREF(receipts);
  Py_XDECREF(known);
  body_end(&body);
  return result;
}
