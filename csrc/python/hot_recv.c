/* Twins of what receives and acks. */
#include "python/hot.h"

/* Who this thread is: a number that no other thread has, also none that comes after it. (The thread's
 * identifier is used again, and with it the last message of a finished thread would be acked.) Negative:
 * iterators and tasks count upward. */
long long hot_this_thread_number(void) {
  static atomic_llong threads;
  static _Thread_local long long me;
  if (!me) me = -1 - atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
  return me;
}

PyObject *hot_this_thread(PyObject *module, PyObject *nothing) {
  (void)module;
  (void)nothing;
  return PyLong_FromLongLong(hot_this_thread_number());
}

/* ---- what was handed to whom ---- */

bool hot_settle(hot_handle_t *self) {
  if (!self->last && !self->last_token) return true;
  PyObject *who = PyLong_FromLongLong(self->last_who);
  /* A token's bytes stand for the wire bytes that begin with them. */
  PyObject *last = self->last ? Py_NewRef(self->last)
                              : PyBytes_FromStringAndSize((const char *)&self->last_token, sizeof self->last_token);
  bool done = who && last && PyDict_SetItem(self->handed, who, last) == 0;
  Py_XDECREF(who);
  Py_XDECREF(last);
  if (done) {
    self->last_token = 0;
    Py_CLEAR(self->last);
  }
  return done;
}

PyObject *hot_noted(hot_handle_t *self, long long who) {
  if (self->last_who == who) {
    if (self->last) return self->last;
    if (!hot_settle(self)) return NULL;
  }
  if (PyDict_Size(self->handed) == 0) return NULL;
  PyObject *number = PyLong_FromLongLong(who);
  PyObject *noted = number ? PyDict_GetItemWithError(self->handed, number) : NULL;
  Py_XDECREF(number);
  return noted;
}

void hot_forget(hot_handle_t *self, long long who) {
  if ((self->last || self->last_token) && self->last_who == who) {
    self->last_token = 0;
    Py_CLEAR(self->last);
  } else if (PyDict_Size(self->handed)) {
    PyObject *number = PyLong_FromLongLong(who);
    if (!number || PyDict_DelItem(self->handed, number) < 0) PyErr_Clear(); /* nothing was handed out */
    Py_XDECREF(number);
  }
}

/* The place in the handle is for `who` now, who has nothing else: what stood there is in *old, or in the dict. */
static bool note_here(hot_handle_t *self, long long who, PyObject **old) {
  if ((self->last || self->last_token) && self->last_who == who) {
    *old = self->last;
    self->last = NULL;
    self->last_token = 0;
  } else {
    *old = NULL;
    if (PyDict_Size(self->handed)) hot_forget(self, who);
    if (!hot_settle(self)) return false;
    self->last_who = who;
  }
  return true;
}

bool hot_note(hot_handle_t *self, long long who, PyObject *what) {
  PyObject *old;
  if (!note_here(self, who, &old)) return false;
  self->last = Py_NewRef(what);
  Py_XDECREF(old);
  return true;
}

bool hot_note_token(hot_handle_t *self, long long who, uint64_t token) {
  PyObject *old;
  if (!note_here(self, who, &old)) return false;
  self->last_token = token;
  Py_XDECREF(old);
  return true;
}

/* A message that has its header in itself. */
static PyObject *message_of(PyObject *object, const uint8_t *room, size_t head_bytes, size_t body_bytes) {
  hot_message_t *message = (hot_message_t *)hot_make_message();
  if (!message) return NULL;
  message->raw = PyBytes_FromStringAndSize((const char *)room + head_bytes, (Py_ssize_t)body_bytes);
  message->bus = Py_NewRef(object);
  message->head_bytes = head_bytes;
  memcpy(message->inside, room, head_bytes);
  if (!message->raw) Py_CLEAR(message);
  return (PyObject *)message;
}

/* The message of some wire bytes, which are noted as handed to `who`. What cannot be given to the caller
 * goes back: he must not be taken to have it. */
static PyObject *hand_out(PyObject *object, long long who, const uint8_t *room, int64_t n, PyObject *copy) {
  hot_handle_t *self = (hot_handle_t *)object;
  const cfn_wire_t *w = (const void *)room;
  size_t head_bytes = (size_t)n - w->body_bytes;
  if (!(w->wire_flags & CFN_WIRE_EXTERNAL) && head_bytes <= INSIDE && w->token) {
    PyObject *plain = message_of(object, room, head_bytes, w->body_bytes);
    if (plain && !hot_note_token(self, who, w->token)) Py_CLEAR(plain);
    if (!plain) cfn_bus_put_back(self->bus, w->token);
    return plain;
  }
  PyObject *wire = PyBytes_FromStringAndSize((const char *)room, (Py_ssize_t)n);
  PyObject *message = NULL, *noted = wire;
  if (!wire) {
  } else if (w->wire_flags & CFN_WIRE_EXTERNAL && copy == Py_False) {
    PyObject *place = hot_place_of(w);
    message = noted = place ? hot_make_message() : NULL;
    if (message) {
      ((hot_message_t *)message)->bus = Py_NewRef(object);
      ((hot_message_t *)message)->wire = Py_NewRef(wire);
      ((hot_message_t *)message)->exporter = Py_NewRef(place);
    }
    Py_XDECREF(place);
  } else if (w->wire_flags & CFN_WIRE_EXTERNAL) {
    message = noted = PyObject_CallFunctionObjArgs(hot.external, object, wire, copy, NULL);
  } else if ((message = hot_make_message()) != NULL) {
    ((hot_message_t *)message)->bus = Py_NewRef(object);
    ((hot_message_t *)message)->wire = Py_NewRef(wire);
  }
  if (message && !hot_note(self, who, noted)) Py_CLEAR(message);
  if (!message && w->token) cfn_bus_put_back(self->bus, w->token);
  Py_XDECREF(wire);
  return message;
}

static int token_of(PyObject *wire, uint64_t *token) {
  if (!PyBytes_CheckExact(wire) || PyBytes_Size(wire) < (Py_ssize_t)sizeof *token) return 0;
  memcpy(token, PyBytes_AsString(wire), sizeof *token);
  return 1;
}

/* What was handed to `who` before: 1, its token, or 0 if nothing is owed; 0, the original must see to it; -1, an exception
 * (also Ctrl-C, which is not ours to clear). */
static int token_before(hot_handle_t *self, long long who, uint64_t *token) {
  *token = 0;
  if (!self->bus || !self->handed) return 0;
  if (self->last_token && self->last_who == who) {
    *token = self->last_token;
    return 1;
  }
  PyObject *before = hot_noted(self, who);
  if (!before) return PyErr_Occurred() ? -1 : 1;
  PyObject *wire = before;
  if (Py_TYPE(before) == hot.message_type) { /* its body is elsewhere; a view of it that is in use keeps it unacked */
    hot_message_t *message = (hot_message_t *)before;
    wire = message->wire;
    Py_INCREF(before);
    int done;
    if (message->exporter && Py_TYPE(message->exporter) == hot.place_type) {
      done = !hot_message_release(message) ? 1 : wire ? token_of(wire, token) : 0;
    } else {
      PyObject *ended = PyObject_CallMethod(before, "_release", NULL);
      done = !ended ? -1 : ended == Py_False ? 1 : wire ? token_of(wire, token) : 0;
      Py_XDECREF(ended);
    }
    Py_DECREF(before); /* AFTER its wire was read: another thread may have dropped all the others while _release ran */
    return done;
  }
  return token_of(wire, token);
}

static PyObject *receive(PyObject *object, long long who, uint64_t token, uint64_t deadline, PyObject *copy) {
  hot_handle_t *self = (hot_handle_t *)object;
  _Alignas(cfn_wire_t) uint8_t room[ROOM];
  int flags = copy == Py_True ? 0 : CFN_RECV_VIEW;
  int64_t n = cfn_bus_recv(self->bus, &token, token != 0, CFN_ALL_LANES, flags, CFN_TRY, room, ROOM);
  if (n > 0) return hand_out(object, who, room, n, copy);
  hot_forget(self, who);         /* it is acked */
  if (n != CFN_AGAIN) token = 0; /* (or will be: another thread was inside) */
  for (bool first = true; n == CFN_INTERRUPTED || (first && (n == CFN_EMPTY || n == CFN_AGAIN)); first = false) {
    if (!token && PyErr_CheckSignals() < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS
    n = cfn_bus_recv(self->bus, &token, token != 0, CFN_ALL_LANES, flags, deadline, room, ROOM);
    Py_END_ALLOW_THREADS
    token = 0;
  }
  if (n < 0) return hot_raise(n);
  return hand_out(object, who, room, n, copy);
}

PyObject *hot_recv(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  uint64_t deadline = CFN_FOREVER, token;
  PyObject *copy = Py_True;
  bool plain = n <= 1 && (n == 0 || hot_deadline(args[0], &deadline));
  Py_ssize_t named = names ? PyTuple_Size(names) : 0;
  for (Py_ssize_t i = 0; plain && i < named; i++) {
    PyObject *name = PyTuple_GetItem(names, i), *value = args[n + i];
    if (n == 0 && hot_same(name, hot.word_timeout)) {
      plain = hot_deadline(value, &deadline);
    } else if (hot_same(name, hot.word_copy) && PyBool_Check(value)) {
      copy = value;
    } else {
      plain = false;
    }
  }
  long long who = hot_this_thread_number();
  int before = plain ? token_before((hot_handle_t *)object, who, &token) : 0;
  if (before < 0) return NULL;
  if (before) return receive(object, who, token, deadline, copy);
  return hot_original(hot.original_recv, object, args, n, names);
}

/* _recv(who, timeout, copy) */
PyObject *hot_recv_as(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  uint64_t deadline, token;
  long long who = n == 3 && PyLong_CheckExact(args[0]) ? PyLong_AsLongLong(args[0]) : 0;
  if (PyErr_Occurred()) PyErr_Clear();
  bool plain = n == 3 && !names && who && hot_deadline(args[1], &deadline) && PyBool_Check(args[2]);
  int before = plain ? token_before((hot_handle_t *)object, who, &token) : 0;
  if (before < 0) return NULL;
  if (before) return receive(object, who, token, deadline, args[2]);
  return hot_original(hot.original_recv_as, object, args, n, names);
}
