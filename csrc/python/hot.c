/* The hot verbs for Python, without cffi's crossing: a second module (`cfnshm._core._hot`) in the shared
 * object of the cffi module, over the same C functions, in the stable ABI.
 *
 * Every verb here is the twin of a Python function that does the same through cffi. A twin does the plain
 * case (arguments of the usual types, room in the lane, a message that is there) and hands anything else to
 * its original, which also raises the errors. CFNSHM_BINDING=cffi switches the twins off; one test suite
 * runs against both.
 *
 * The GIL is held over a try, which takes less than giving it back and taking it again (and far less when a
 * busy thread has it), and released to wait and to copy much. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "cfnshm.h"

#define MUCH 65536u                /* bytes worth giving the GIL back for */
#define ROOM (sizeof(cfn_wire_t) + 64 + 256 + 16384) /* as in inbox.py */
#define BATCH_ROOM (1u << 18)

/* ---- the objects ---- */

/* Base of a Bus. `_peers` maps names to (index, word), `_handed` who to what it was handed. */
typedef struct hot_handle {
  PyObject_HEAD
  cfn_bus_t *bus; /* lives as long as `owner`, NULL without it */
  PyObject *peers, *handed, *owner;
  uint8_t *room; /* of a batch, while no thread has taken it */
} hot_handle_t;

typedef struct hot_message {
  PyObject_HEAD
  PyObject *bus, *wire, *raw, *body, *head, *to, *exporter;
} hot_message_t;

typedef struct hot_receipt {
  PyObject_HEAD
  PyObject *bus, *data, *to;
} hot_receipt_t;

static PyTypeObject *handle_base, *message_base, *receipt_base;

/* What is called back; given by setup(). */
static PyTypeObject *message_type, *receipt_type, *batch_type;
static PyObject *encode, *decode, *fail, *external;
static PyObject *original_send, *original_recv, *original_recv_as, *original_recv_many,
    *original_send_group;
static PyObject *word_type, *word_priority, *word_timeout, *word_copy;
static PyObject *word_lane[CFN_LANES];

/* ---- garbage collection of the bases ---- */

static int visit_all(PyObject **first, int n, visitproc visit, void *arg) {
  for (int i = 0; i < n; i++) Py_VISIT(first[i]);
  return 0;
}

static void clear_all(PyObject **first, int n) {
  for (int i = 0; i < n; i++) Py_CLEAR(first[i]);
}

#define COLLECTED(kind, first, count)                                                   \
  static int kind##_traverse(PyObject *self, visitproc visit, void *arg) {              \
    Py_VISIT(Py_TYPE(self));                                                            \
    return visit_all(&((hot_##kind##_t *)self)->first, count, visit, arg);              \
  }                                                                                     \
  static int kind##_clear(PyObject *self) {                                             \
    clear_all(&((hot_##kind##_t *)self)->first, count);                                 \
    return 0;                                                                           \
  }

COLLECTED(handle, peers, 3)
COLLECTED(message, bus, 7)
COLLECTED(receipt, bus, 3)

/* Its bus ends with its owner; what is called on the object after that finds nothing. */
static int handle_forget(PyObject *self) {
  ((hot_handle_t *)self)->bus = NULL;
  return handle_clear(self);
}

static void base_dealloc(PyObject *self, int (*clear)(PyObject *)) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  clear(self);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(self);
  Py_DECREF(type);
}

static void handle_dealloc(PyObject *self) {
  free(((hot_handle_t *)self)->room);
  base_dealloc(self, handle_forget);
}
static void message_dealloc(PyObject *self) { base_dealloc(self, message_clear); }
static void receipt_dealloc(PyObject *self) { base_dealloc(self, receipt_clear); }

/* ---- arguments ---- */

static bool deadline_of(PyObject *timeout, uint64_t *deadline) {
  if (timeout == Py_None) {
    *deadline = CFN_FOREVER;
    return true;
  }
  if (!PyFloat_CheckExact(timeout) && !PyLong_CheckExact(timeout)) return false;
  double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1.0 && PyErr_Occurred()) { /* an integer beyond all floats */
    PyErr_Clear();
    return false;
  }
  if (!(seconds < 1e9)) return false; /* also NaN */
  *deadline = seconds <= 0 ? 0 : cfn_os_monotonic_ns() + (uint64_t)(seconds * 1e9);
  return true;
}

static bool lane_of(PyObject *priority, unsigned *lane) {
  for (unsigned i = 0; i < CFN_LANES; i++)
    if (priority == word_lane[i]) {
      *lane = i;
      return true;
    }
  for (unsigned i = 0; i < CFN_LANES; i++)
    if (PyUnicode_Check(priority) && PyUnicode_Compare(priority, word_lane[i]) == 0) {
      *lane = i;
      return true;
    }
  return false;
}

static bool same(PyObject *word, PyObject *name) { /* names of arguments are interned, but not always */
  return word == name || PyUnicode_Compare(word, name) == 0;
}

static bool address_of(const hot_handle_t *self, PyObject *to, cfn_address_t *address) {
  if (!self->peers || !PyUnicode_CheckExact(to)) return false;
  PyObject *place = PyDict_GetItemWithError(self->peers, to);
  if (!place) {
    PyErr_Clear();
    return false;
  }
  PyObject *index = PyTuple_GetItem(place, 0), *mid = PyTuple_GetItem(place, 1);
  if (!index || !mid) {
    PyErr_Clear();
    return false;
  }
  address->index = (uint32_t)PyLong_AsUnsignedLong(index);
  address->mid = PyLong_AsUnsignedLongLong(mid);
  return true;
}

/* Calls the original with the arguments as they came. */
static PyObject *call_original(PyObject *original, PyObject *self, PyObject *const *args, Py_ssize_t n,
                               PyObject *names) {
  Py_ssize_t named = names ? PyTuple_Size(names) : 0;
  PyObject *all = PyTuple_New(n + 1), *keywords = named ? PyDict_New() : NULL, *result = NULL;
  if (!all || (named && !keywords)) goto end;
  PyTuple_SetItem(all, 0, Py_NewRef(self));
  for (Py_ssize_t i = 0; i < n; i++) PyTuple_SetItem(all, i + 1, Py_NewRef(args[i]));
  for (Py_ssize_t i = 0; i < named; i++)
    if (PyDict_SetItem(keywords, PyTuple_GetItem(names, i), args[n + i]) < 0) goto end;
  result = PyObject_Call(original, all, keywords);
end:
  Py_XDECREF(all);
  Py_XDECREF(keywords);
  return result;
}

static PyObject *raise_code(int64_t code) {
  PyObject *number = PyLong_FromLongLong(code);
  PyObject *never = number ? PyObject_CallFunctionObjArgs(fail, number, NULL) : NULL;
  Py_XDECREF(number);
  Py_XDECREF(never);
  return NULL;
}

/* ---- send ---- */

typedef struct body {
  const char *bytes;
  Py_ssize_t n;
  unsigned codec;
  PyObject *made; /* what must be given back */
} body_t;

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
  PyObject *pair = PyObject_CallFunctionObjArgs(encode, value, NULL);
  if (!pair) return -1;
  PyObject *raw = PyTuple_GetItem(pair, 1);
  if (!raw || !PyBytes_CheckExact(raw)) { /* a view of the caller's buffer */
    Py_DECREF(pair);
    return raw ? 0 : -1;
  }
  body->codec = (unsigned)PyLong_AsUnsignedLong(PyTuple_GetItem(pair, 0));
  body->made = pair;
  return PyBytes_AsStringAndSize(raw, (char **)(uintptr_t)&body->bytes, &body->n) == 0 ? 1 : -1;
}

static PyObject *receipt_of(PyObject *self, PyObject *to, const cfn_receipt_t *receipt) {
  hot_receipt_t *made = (hot_receipt_t *)PyType_GenericAlloc(receipt_type, 0);
  if (!made) return NULL;
  made->bus = Py_NewRef(self);
  made->to = Py_NewRef(to);
  made->data = PyBytes_FromStringAndSize((const char *)receipt, sizeof *receipt);
  if (!made->data) Py_CLEAR(made);
  return (PyObject *)made;
}

static PyObject *hot_send(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  hot_handle_t *self = (hot_handle_t *)object;
  uint64_t deadline = CFN_FOREVER;
  unsigned lane = CFN_LANE_NORMAL;
  const char *type = "";
  Py_ssize_t type_bytes = 0;
  body_t body = {0};
  cfn_address_t to;
  bool plain = n == 2 && self->bus && address_of(self, args[0], &to);
  Py_ssize_t named = names ? PyTuple_Size(names) : 0;
  for (Py_ssize_t i = 0; plain && i < named; i++) {
    PyObject *name = PyTuple_GetItem(names, i), *value = args[n + i];
    if (same(name, word_type)) {
      type = PyUnicode_CheckExact(value) ? PyUnicode_AsUTF8AndSize(value, &type_bytes) : NULL;
      plain = type && type_bytes <= CFN_TYPE_BYTES_MAX;
    } else if (same(name, word_priority)) {
      plain = lane_of(value, &lane);
    } else if (same(name, word_timeout)) {
      plain = deadline_of(value, &deadline);
    } else {
      plain = false;
    }
  }
  if (PyErr_Occurred()) PyErr_Clear();
  int there = plain ? body_of(args[1], &body) : 0;
  if (there < 0) return NULL;
  if (there == 0) return call_original(original_send, object, args, n, names);
  int r = CFN_INTERRUPTED;
  cfn_receipt_t receipt;
  if (body.n < MUCH)
    r = cfn_bus_send_one(self->bus, to.index, to.mid, lane, body.codec, body.bytes, (uint32_t)body.n, type,
                         (uint32_t)type_bytes, 0, CFN_TRY, &receipt);
  else if (body.n > UINT32_MAX)
    r = CFN_STALE; /* the original says that it is too large */
  bool first = true;
  while (r == CFN_INTERRUPTED || (first && (r == CFN_FULL || r == CFN_NO_SPACE || r == CFN_AGAIN))) {
    first = false;
    if (PyErr_CheckSignals() < 0) break;
    Py_BEGIN_ALLOW_THREADS
    r = cfn_bus_send_one(self->bus, to.index, to.mid, lane, body.codec, body.bytes, (uint32_t)body.n, type,
                         (uint32_t)type_bytes, 0, deadline, &receipt);
    Py_END_ALLOW_THREADS
  }
  PyObject *result = NULL;
  if (PyErr_Occurred()) { /* Ctrl-C */
  } else if (r == CFN_OK) {
    result = receipt_of(object, args[0], &receipt);
  } else if (r == CFN_STALE) {
    result = call_original(original_send, object, args, n, names);
  } else {
    raise_code(r);
  }
  Py_XDECREF(body.made);
  return result;
}

static PyObject *sum_of(PyObject *a, Py_ssize_t b) {
  PyObject *number = PyLong_FromSsize_t(b);
  PyObject *sum = number ? PyNumber_Add(a, number) : NULL;
  Py_XDECREF(number);
  return sum;
}

/* _send_group(to, bodies, type, lane, deadline, receipts, sent) -> sent: the bodies are a list of its own */
static PyObject *hot_send_group(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  hot_handle_t *self = (hot_handle_t *)object;
  cfn_address_t to;
  Py_ssize_t type_bytes = 0;
  cfn_outgoing_t *batch = NULL;
  bool plain = n == 7 && !names && self->bus && address_of(self, args[0], &to) && PyList_CheckExact(args[1]) &&
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
    return call_original(original_send_group, object, args, n, names);
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
      PyObject *told = receipt_of(object, args[0], &receipt);
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
  if (why == CFN_STALE) { /* unregistered meanwhile: the original looks the agent up again, for the rest */
    PyObject *rest = PyList_GetSlice(args[1], at, count);
    PyObject *sent = rest ? sum_of(args[6], at) : NULL;
    PyObject *with[] = {args[0], rest, args[2], args[3], args[4], args[5], sent};
    PyObject *result = sent ? call_original(original_send_group, object, with, 7, NULL) : NULL;
    Py_XDECREF(rest);
    Py_XDECREF(sent);
    return result;
  }
  return why < 0 ? raise_code(why) : sum_of(args[6], count);
}

/* ---- receive ---- */

/* The message of some wire bytes, which are noted as handed to `who`. What cannot be given to the caller
 * goes back: he must not be taken to have it. */
static PyObject *hand_out(PyObject *object, PyObject *who, const uint8_t *room, int64_t n, PyObject *copy) {
  hot_handle_t *self = (hot_handle_t *)object;
  const cfn_wire_t *w = (const void *)room;
  PyObject *wire = PyBytes_FromStringAndSize((const char *)room, (Py_ssize_t)n);
  PyObject *message = NULL, *noted = wire;
  if (!wire) {
  } else if (w->wire_flags & CFN_WIRE_EXTERNAL) {
    message = noted = PyObject_CallFunctionObjArgs(external, object, wire, copy, NULL);
  } else if ((message = PyType_GenericAlloc(message_type, 0)) != NULL) {
    ((hot_message_t *)message)->bus = Py_NewRef(object);
    ((hot_message_t *)message)->wire = Py_NewRef(wire);
  }
  if (message && PyDict_SetItem(self->handed, who, noted) < 0) Py_CLEAR(message);
  if (!message && w->token) cfn_bus_put_back(self->bus, w->token);
  Py_XDECREF(wire);
  return message;
}

/* What was handed to `who` before, if one crossing can ack it: false if the original must. */
static bool token_before(const hot_handle_t *self, PyObject *who, uint64_t *token) {
  *token = 0;
  if (!self->bus || !self->handed) return false;
  PyObject *before = PyDict_GetItemWithError(self->handed, who);
  if (!before) {
    bool good = !PyErr_Occurred();
    if (!good) PyErr_Clear();
    return good;
  }
  if (!PyBytes_CheckExact(before) || PyBytes_Size(before) < (Py_ssize_t)sizeof *token) return false;
  memcpy(token, PyBytes_AsString(before), sizeof *token);
  return true;
}

static void forget_before(const hot_handle_t *self, PyObject *who) {
  if (PyDict_DelItem(self->handed, who) < 0) PyErr_Clear(); /* nothing was handed out */
}

static PyObject *receive(PyObject *object, PyObject *who, uint64_t token, uint64_t deadline, PyObject *copy) {
  hot_handle_t *self = (hot_handle_t *)object;
  _Alignas(cfn_wire_t) uint8_t room[ROOM];
  int flags = copy == Py_True ? 0 : CFN_RECV_VIEW;
  int64_t n = cfn_bus_recv(self->bus, &token, token != 0, CFN_ALL_LANES, flags, CFN_TRY, room, ROOM);
  if (n > 0) return hand_out(object, who, room, n, copy);
  forget_before(self, who);     /* it is acked */
  if (n != CFN_AGAIN) token = 0; /* (or will be: another thread was inside) */
  for (bool first = true; n == CFN_INTERRUPTED || (first && (n == CFN_EMPTY || n == CFN_AGAIN)); first = false) {
    if (!token && PyErr_CheckSignals() < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS
    n = cfn_bus_recv(self->bus, &token, token != 0, CFN_ALL_LANES, flags, deadline, room, ROOM);
    Py_END_ALLOW_THREADS
    token = 0;
  }
  if (n < 0) return raise_code(n);
  return hand_out(object, who, room, n, copy);
}

/* Who this thread is: a number that no other thread has, also none that comes after it. (The thread's
 * identifier is used again, and with it the last message of a finished thread would be acked.) Negative:
 * iterators and tasks count upward. */
static PyObject *this_thread(void) {
  static atomic_llong threads;
  static _Thread_local long long me;
  if (!me) me = -1 - atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
  return PyLong_FromLongLong(me);
}

static PyObject *hot_this_thread(PyObject *module, PyObject *nothing) {
  (void)module;
  (void)nothing;
  return this_thread();
}

static PyObject *hot_recv(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  uint64_t deadline = CFN_FOREVER, token;
  PyObject *copy = Py_True;
  bool plain = n <= 1 && (n == 0 || deadline_of(args[0], &deadline));
  Py_ssize_t named = names ? PyTuple_Size(names) : 0;
  for (Py_ssize_t i = 0; plain && i < named; i++) {
    PyObject *name = PyTuple_GetItem(names, i), *value = args[n + i];
    if (n == 0 && same(name, word_timeout)) {
      plain = deadline_of(value, &deadline);
    } else if (same(name, word_copy) && PyBool_Check(value)) {
      copy = value;
    } else {
      plain = false;
    }
  }
  PyObject *who = this_thread();
  if (!who) return NULL;
  PyObject *result = plain && token_before((hot_handle_t *)object, who, &token)
                         ? receive(object, who, token, deadline, copy)
                         : call_original(original_recv, object, args, n, names);
  Py_DECREF(who);
  return result;
}

/* _recv(who, timeout, copy) */
static PyObject *hot_recv_as(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  uint64_t deadline, token;
  if (n == 3 && !names && deadline_of(args[1], &deadline) && PyBool_Check(args[2]) &&
      token_before((hot_handle_t *)object, args[0], &token))
    return receive(object, args[0], token, deadline, args[2]);
  return call_original(original_recv_as, object, args, n, names);
}

/* Acks what `who` was handed before, a batch or a message in wire bytes. 1 done, 0 the original must, -1. */
static int ack_before(hot_handle_t *self, PyObject *who) {
  PyObject *before = PyDict_GetItemWithError(self->handed, who);
  if (!before) return PyErr_Occurred() ? -1 : 1;
  if (Py_TYPE(before) != batch_type) return 0;
  int done = -1;
  PyObject *wire = PyObject_GetAttrString(before, "_wire"), *offsets = PyObject_GetAttrString(before, "_offsets");
  PyObject *acked = PyObject_GetAttrString(before, "acked");
  if (wire && offsets && acked && PyBytes_CheckExact(wire) && PyBytes_CheckExact(offsets)) {
    done = 0;
    if (acked == Py_True) {
      done = 1;
    } else if (cfn_bus_ack_batch(self->bus, PyBytes_AsString(wire), (const uint32_t *)(void *)PyBytes_AsString(offsets),
                                 (uint32_t)(PyBytes_Size(offsets) / 4)) == CFN_OK) {
      done = PyObject_SetAttrString(before, "acked", Py_True) == 0 ? 1 : -1;
    }
  }
  Py_XDECREF(wire);
  Py_XDECREF(offsets);
  Py_XDECREF(acked);
  if (done == 1) forget_before(self, who);
  return done;
}

/* _recv_many(who, n, timeout) */
static PyObject *hot_recv_many(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  hot_handle_t *self = (hot_handle_t *)object;
  uint64_t deadline;
  long most = 0;
  bool plain = n == 3 && !names && self->bus && self->handed && PyLong_CheckExact(args[1]) &&
               deadline_of(args[2], &deadline);
  if (plain) most = PyLong_AsLong(args[1]);
  if (PyErr_Occurred()) PyErr_Clear(); /* a number beyond all: the original says so */
  int before = plain && most >= 1 && most <= 65536 ? ack_before(self, args[0]) : 0;
  if (before < 0) return NULL;
  if (before == 0) return call_original(original_recv_many, object, args, n, names);
  uint8_t *room = self->room;
  self->room = NULL; /* taken: another thread makes its own */
  if (!room) room = malloc(BATCH_ROOM);
  uint32_t *offsets = malloc((size_t)most * sizeof *offsets);
  PyObject *batch = NULL, *wire = NULL, *places = NULL, *count = NULL, *large = NULL;
  int64_t got = 0;
  if (!room || !offsets) {
    PyErr_NoMemory();
    goto end;
  }
  size_t used;
  got = cfn_bus_recv_many(self->bus, NULL, 0, CFN_ALL_LANES, (uint32_t)most, CFN_TRY, room, BATCH_ROOM,
                                  offsets, &used);
  for (bool first = true; got == CFN_INTERRUPTED || (first && (got == CFN_EMPTY || got == CFN_AGAIN));
       first = false) {
    if (PyErr_CheckSignals() < 0) goto end;
    Py_BEGIN_ALLOW_THREADS
    got = cfn_bus_recv_many(self->bus, NULL, 0, CFN_ALL_LANES, (uint32_t)most, deadline, room, BATCH_ROOM,
                            offsets, &used);
    Py_END_ALLOW_THREADS
  }
  if (got < 0) {
    raise_code(got);
    goto end;
  }
  const cfn_wire_t *last = (const void *)(room + offsets[got - 1]);
  if (last->wire_flags & CFN_WIRE_EXTERNAL) {
    PyObject *one = PyBytes_FromStringAndSize((const char *)last, last->total_bytes);
    large = one ? PyObject_CallFunctionObjArgs(external, object, one, Py_True, NULL) : NULL;
    Py_XDECREF(one);
    if (!large) goto end;
  }
  wire = PyBytes_FromStringAndSize((char *)room, (Py_ssize_t)used);
  places = PyBytes_FromStringAndSize((char *)offsets, (Py_ssize_t)((size_t)got * sizeof *offsets));
  count = PyLong_FromLongLong(got);
  if (wire && places && count)
    batch = PyObject_CallFunctionObjArgs((PyObject *)batch_type, object, wire, places, count,
                                         large ? large : Py_None, NULL);
  if (batch && PyDict_SetItem(self->handed, args[0], batch) < 0) Py_CLEAR(batch);
end:
  if (!batch) /* nobody has them: from the last to the first, so that they come again in order */
    for (int64_t i = got; i-- > 0;) {
      const cfn_wire_t *w = (const void *)(room + offsets[i]);
      if (w->token) cfn_bus_put_back(self->bus, w->token);
    }
  Py_XDECREF(wire);
  Py_XDECREF(places);
  Py_XDECREF(count);
  Py_XDECREF(large);
  free(offsets);
  if (self->room) free(room);
  else self->room = room;
  return batch;
}

/* bodies(wire, offsets): the bodies' bytes of a batch */
static PyObject *hot_bodies(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  (void)module;
  char *wire, *offsets;
  Py_ssize_t wire_bytes, offset_bytes;
  if (n != 2 || PyBytes_AsStringAndSize(args[0], &wire, &wire_bytes) < 0 ||
      PyBytes_AsStringAndSize(args[1], &offsets, &offset_bytes) < 0) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "bodies(wire, offsets)");
    return NULL;
  }
  Py_ssize_t count = offset_bytes / 4;
  PyObject *all = PyList_New(count);
  for (Py_ssize_t i = 0; all && i < count; i++) {
    uint32_t at;
    cfn_wire_t w = {0};
    memcpy(&at, offsets + 4 * i, sizeof at);
    bool good = (Py_ssize_t)(at + sizeof w) <= wire_bytes;
    if (good) memcpy(&w, wire + at, sizeof w);
    bool elsewhere = w.wire_flags & CFN_WIRE_EXTERNAL; /* its body is not among these bytes */
    good = good && w.total_bytes <= (size_t)wire_bytes - at && (elsewhere || w.body_bytes <= w.total_bytes);
    PyObject *body = NULL;
    if (!good) PyErr_SetString(PyExc_ValueError, "these are no wire bytes of a batch");
    else if (elsewhere) body = Py_NewRef(Py_None);
    else body = PyBytes_FromStringAndSize(wire + at + w.total_bytes - w.body_bytes, w.body_bytes);
    if (!body) Py_CLEAR(all);
    else PyList_SetItem(all, i, body);
  }
  return all;
}

/* ---- what a message gives ---- */

/* The header of its wire bytes, if that is what they are. */
static const cfn_wire_t *wire_of(const hot_message_t *self, Py_ssize_t *n) {
  char *wire;
  if (!self->wire || !PyBytes_CheckExact(self->wire)) return NULL;
  PyBytes_AsStringAndSize(self->wire, &wire, n);
  const cfn_wire_t *w = (const void *)wire;
  if (*n < (Py_ssize_t)sizeof *w) return NULL;
  return w->wire_flags & CFN_WIRE_EXTERNAL || w->body_bytes <= (size_t)*n - sizeof *w ? w : NULL;
}

static PyObject *message_raw(PyObject *object, void *original) {
  hot_message_t *self = (hot_message_t *)object;
  if (self->raw && self->raw != Py_None) return Py_NewRef(self->raw);
  Py_ssize_t n;
  const cfn_wire_t *w = wire_of(self, &n);
  if (!w || w->wire_flags & CFN_WIRE_EXTERNAL) return PyObject_CallFunctionObjArgs(original, object, NULL);
  const char *wire = (const char *)w;
  PyObject *raw = PyBytes_FromStringAndSize(wire + n - w->body_bytes, w->body_bytes);
  PyObject *old = self->raw;
  self->raw = Py_XNewRef(raw);
  Py_XDECREF(old);
  return raw;
}

static PyObject *message_body(PyObject *object, void *original) {
  hot_message_t *self = (hot_message_t *)object;
  Py_ssize_t n;
  const cfn_wire_t *w = wire_of(self, &n);
  if (!w || self->body) return PyObject_CallFunctionObjArgs(original, object, NULL);
  unsigned codec = w->codec;
  PyObject *raw = PyObject_GetAttrString(object, "raw"), *body = NULL;
  if (!raw) return NULL;
  if (codec == CFN_CODEC_RAW) {
    body = Py_NewRef(raw);
  } else {
    PyObject *number = PyLong_FromLong(codec);
    body = number ? PyObject_CallFunctionObjArgs(decode, number, raw, NULL) : NULL;
    Py_XDECREF(number);
  }
  Py_DECREF(raw);
  PyObject *old = self->body; /* another thread's, who asked meanwhile */
  self->body = Py_XNewRef(body);
  Py_XDECREF(old);
  return body;
}

/* ---- twins ---- */

typedef PyObject *(*fast_t)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

static const struct twin {
  const char *name;
  fast_t fast;
  PyObject **original;
} twins[] = {{"send", hot_send, &original_send},
             {"_send_group", hot_send_group, &original_send_group},
             {"recv", hot_recv, &original_recv},
             {"_recv", hot_recv_as, &original_recv_as},
             {"_recv_many", hot_recv_many, &original_recv_many}};

/* A text that lives as long as the process: what descriptors are called and say. */
static const char *lasting(PyObject *text) {
  Py_ssize_t n;
  const char *chars = text ? PyUnicode_AsUTF8AndSize(text, &n) : NULL;
  char *copy = chars ? malloc((size_t)n + 1) : NULL;
  if (copy) memcpy(copy, chars, (size_t)n + 1);
  return copy;
}

/* twin(function, text): a method that does the plain case and leaves the rest to the function. */
static PyObject *hot_twin(PyObject *module, PyObject *args) {
  (void)module;
  PyObject *function, *text;
  if (!PyArg_ParseTuple(args, "OU", &function, &text)) return NULL;
  PyObject *name = PyObject_GetAttrString(function, "__name__");
  const char *wanted = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
  PyObject *result = NULL;
  for (size_t i = 0; wanted && i < sizeof twins / sizeof twins[0]; i++) {
    if (strcmp(wanted, twins[i].name) != 0) continue;
    PyMethodDef *def = calloc(1, sizeof *def);
    if (!def) {
      PyErr_NoMemory();
      break;
    }
    *twins[i].original = Py_NewRef(function);
    *def = (PyMethodDef){twins[i].name, (PyCFunction)(void (*)(void))twins[i].fast,
                         METH_FASTCALL | METH_KEYWORDS, lasting(text)};
    result = PyDescr_NewMethod(handle_base, def);
  }
  if (!result && !PyErr_Occurred()) PyErr_Format(PyExc_LookupError, "%S has no twin", name);
  Py_XDECREF(name);
  return result;
}

/* attribute("raw" | "body", function): the same for a property of a message. */
static PyObject *hot_attribute(PyObject *module, PyObject *args) {
  (void)module;
  const char *name;
  PyObject *function, *text;
  if (!PyArg_ParseTuple(args, "sOO", &name, &function, &text)) return NULL;
  PyGetSetDef *def = calloc(1, sizeof *def);
  if (!def) return PyErr_NoMemory();
  bool raw = strcmp(name, "raw") == 0;
  *def = (PyGetSetDef){raw ? "raw" : "body", raw ? message_raw : message_body, NULL,
                       PyUnicode_Check(text) ? lasting(text) : NULL, Py_NewRef(function)};
  return PyDescr_NewGetSet(message_base, def);
}

/* There is one set of classes and originals here: they are the main interpreter's. (A subinterpreter gets a
 * copy of this module without any of its code being run.) */
static PyObject *hot_usable(PyObject *module, PyObject *nothing) {
  (void)module;
  (void)nothing;
  return PyBool_FromLong(PyInterpreterState_GetID(PyInterpreterState_Get()) == 0);
}

/* setup(message, receipt, batch, encode, decode, fail, external) */
static PyObject *hot_setup(PyObject *module, PyObject *args) {
  (void)module;
  PyObject *message, *receipt, *batch;
  if (!PyArg_ParseTuple(args, "OOOOOOO", &message, &receipt, &batch, &encode, &decode, &fail, &external))
    return NULL;
  if (!PyType_IsSubtype((PyTypeObject *)message, message_base) ||
      !PyType_IsSubtype((PyTypeObject *)receipt, receipt_base)) {
    PyErr_SetString(PyExc_TypeError, "messages and receipts must be made of the bases here");
    return NULL;
  }
  for (PyObject *const *p = (PyObject *const[]){message, receipt, batch, encode, decode, fail, external, NULL};
       *p; p++)
    Py_INCREF(*p);
  message_type = (PyTypeObject *)message;
  receipt_type = (PyTypeObject *)receipt;
  batch_type = (PyTypeObject *)batch;
  Py_RETURN_NONE;
}

/* _bind(address of the core's handle, what frees it when it is collected) */
static PyObject *handle_bind(PyObject *self, PyObject *args) {
  PyObject *address, *owner;
  if (!PyArg_ParseTuple(args, "OO", &address, &owner)) return NULL;
  void *bus = PyLong_AsVoidPtr(address);
  if (PyErr_Occurred()) return NULL;
  ((hot_handle_t *)self)->owner = Py_NewRef(owner);
  ((hot_handle_t *)self)->bus = bus;
  Py_RETURN_NONE;
}

/* ---- the module ---- */

#define AT(kind, field) offsetof(hot_##kind##_t, field)
static PyMemberDef handle_members[] = {{"_peers", T_OBJECT_EX, AT(handle, peers), 0, NULL},
                                       {"_handed", T_OBJECT_EX, AT(handle, handed), 0, NULL},
                                       {NULL, 0, 0, 0, NULL}};
static PyMemberDef message_members[] = {
    {"_bus", T_OBJECT_EX, AT(message, bus), 0, NULL},   {"_wire", T_OBJECT_EX, AT(message, wire), 0, NULL},
    {"_raw_", T_OBJECT_EX, AT(message, raw), 0, NULL},  {"_body_", T_OBJECT_EX, AT(message, body), 0, NULL},
    {"_head", T_OBJECT_EX, AT(message, head), 0, NULL}, {"_to", T_OBJECT_EX, AT(message, to), 0, NULL},
    {"_exporter", T_OBJECT_EX, AT(message, exporter), 0, NULL},
    {NULL, 0, 0, 0, NULL}};
static PyMemberDef receipt_members[] = {{"_bus", T_OBJECT_EX, AT(receipt, bus), 0, NULL},
                                        {"_data", T_OBJECT_EX, AT(receipt, data), 0, NULL},
                                        {"to", T_OBJECT_EX, AT(receipt, to), 0, NULL},
                                        {NULL, 0, 0, 0, NULL}};
static PyMethodDef handle_methods[] = {{"_bind", handle_bind, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyTypeObject *make_base(PyObject *module, const char *name, int bytes, destructor dealloc,
                               traverseproc traverse, inquiry clear, PyMemberDef *members,
                               PyMethodDef *methods) {
  PyType_Slot slots[] = {{Py_tp_dealloc, (void *)dealloc}, {Py_tp_traverse, (void *)traverse},
                         {Py_tp_clear, (void *)clear},     {Py_tp_members, members},
                         {Py_tp_methods, methods},         {0, NULL}};
  static PyMethodDef none[] = {{NULL, NULL, 0, NULL}};
  if (!methods) slots[4].pfunc = none;
  PyType_Spec spec = {name, bytes, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
  PyObject *type = PyType_FromSpec(&spec);
  const char *dot = strrchr(name, '.');
  if (type && PyModule_AddObjectRef(module, dot + 1, type) < 0) Py_CLEAR(type);
  return (PyTypeObject *)type;
}

static PyMethodDef functions[] = {
    {"setup", hot_setup, METH_VARARGS, NULL},
    {"usable", hot_usable, METH_NOARGS, NULL},
    {"twin", hot_twin, METH_VARARGS, NULL},
    {"this_thread", hot_this_thread, METH_NOARGS, NULL},
    {"attribute", hot_attribute, METH_VARARGS, NULL},
    {"bodies", (PyCFunction)(void (*)(void))hot_bodies, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "cfnshm._core._hot", NULL, -1, functions,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__hot(void) {
  static const char *const lanes[CFN_LANES] = {"control", "high", "normal", "low"};
  PyObject *module = PyModule_Create(&definition);
  if (!module) return NULL;
  handle_base = make_base(module, "cfnshm._core._hot.HandleBase", sizeof(hot_handle_t), handle_dealloc,
                          handle_traverse, handle_forget, handle_members, handle_methods);
  message_base = make_base(module, "cfnshm._core._hot.MessageBase", sizeof(hot_message_t), message_dealloc,
                           message_traverse, message_clear, message_members, NULL);
  receipt_base = make_base(module, "cfnshm._core._hot.ReceiptBase", sizeof(hot_receipt_t), receipt_dealloc,
                           receipt_traverse, receipt_clear, receipt_members, NULL);
  word_type = PyUnicode_InternFromString("type");
  word_priority = PyUnicode_InternFromString("priority");
  word_timeout = PyUnicode_InternFromString("timeout");
  word_copy = PyUnicode_InternFromString("copy");
  for (unsigned i = 0; i < CFN_LANES; i++) word_lane[i] = PyUnicode_InternFromString(lanes[i]);
  if (!handle_base || !message_base || !receipt_base || PyErr_Occurred()) Py_CLEAR(module);
  return module;
}
