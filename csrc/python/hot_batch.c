/* Batches: parcels, of which Python makes messages as it looks at them. */
#include "python/hot.h"

#define WORTH_MOVING 65536u /* bytes up to which a batch has memory of its own size, and the room is used again at once */

typedef struct hot_parcels {
  PyObject_HEAD
  uint8_t *room;
  bool whole; /* it is BATCH_ROOM, which the next batch may have */
  cfn_parcel_t *parcel; /* its `spare` is the number of its first message here */
  uint32_t n, count;
} hot_parcels_t;

static uint8_t *spare; /* a room that no batch has: the GIL's */

static uint8_t *take_room(void) {
  uint8_t *room = spare;
  spare = NULL;
  return room ? room : malloc(BATCH_ROOM);
}
static void leave_room(uint8_t *room) {
  if (spare) free(room);
  else spare = room;
}

static void parcels_dealloc(PyObject *object) {
  hot_parcels_t *self = (hot_parcels_t *)object;
  PyTypeObject *type = Py_TYPE(object);
  if (self->room && self->whole) leave_room(self->room);
  else free(self->room);
  free(self->parcel);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

/* bodies(): the bodies' bytes; None for one that is elsewhere */
static PyObject *parcels_bodies(PyObject *object, PyObject *nothing) {
  (void)nothing;
  hot_parcels_t *self = (hot_parcels_t *)object;
  PyObject *all = PyList_New(self->count);
  Py_ssize_t at = 0;
  for (uint32_t k = 0; all && k < self->n; k++)
    for (uint32_t i = 0; all && i < self->parcel[k].count; i++) {
      uint32_t bytes;
      const char *data = cfn_parcel_body(self->room, &self->parcel[k], i, &bytes);
      PyObject *body = data ? PyBytes_FromStringAndSize(data, bytes) : Py_NewRef(Py_None);
      if (body) PyList_SetItem(all, at++, body);
      else Py_CLEAR(all);
    }
  return all;
}

/* wire(i): the wire bytes of message i */
static PyObject *parcels_wire(PyObject *object, PyObject *number) {
  hot_parcels_t *self = (hot_parcels_t *)object;
  size_t index = PyLong_AsSize_t(number);
  if (PyErr_Occurred()) return NULL;
  if (index >= self->count) {
    PyErr_SetString(PyExc_IndexError, "batch index out of range");
    return NULL;
  }
  uint32_t low = 0, high = self->n;
  while (high - low > 1) {
    uint32_t middle = (low + high) / 2;
    if (self->parcel[middle].spare <= index) low = middle;
    else high = middle;
  }
  const cfn_parcel_t *parcel = &self->parcel[low];
  uint32_t i = (uint32_t)index - parcel->spare;
  size_t bytes = cfn_parcel_wire(self->room, parcel, i, NULL, 0);
  PyObject *wire = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
  if (wire) cfn_parcel_wire(self->room, parcel, i, PyBytes_AsString(wire), bytes);
  return wire;
}

/* ack(bus): a code of the core */
static PyObject *parcels_ack(PyObject *object, PyObject *bus) {
  hot_parcels_t *self = (hot_parcels_t *)object;
  hot_handle_t *handle = (hot_handle_t *)bus;
  if (!PyType_IsSubtype(Py_TYPE(bus), hot.handle_base) || !handle->bus) {
    PyErr_SetString(PyExc_TypeError, "ack(bus)");
    return NULL;
  }
  int r;
  Py_BEGIN_ALLOW_THREADS
  r = cfn_bus_ack_parcels(handle->bus, self->parcel, self->n);
  Py_END_ALLOW_THREADS
  return PyLong_FromLong(r);
}

PyTypeObject *hot_make_parcels(void) {
  static PyMethodDef methods[] = {{"bodies", parcels_bodies, METH_NOARGS, NULL},
                                  {"wire", parcels_wire, METH_O, NULL},
                                  {"ack", parcels_ack, METH_O, NULL},
                                  {NULL, NULL, 0, NULL}};
  PyType_Slot slots[] = {{Py_tp_dealloc, (void *)parcels_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
  PyType_Spec spec = {"cfnshm._core._hot.Parcels", sizeof(hot_parcels_t), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  return (PyTypeObject *)PyType_FromSpec(&spec);
}

/* Acks the batch that `who` was handed before. 1 done, 0 the original must, -1. */
static int ack_before(hot_handle_t *self, long long who) {
  PyObject *before = hot_noted(self, who);
  if (!before) return PyErr_Occurred() ? -1 : 1;
  if (Py_TYPE(before) != hot.batch_type) return 0;
  int done = -1;
  PyObject *wires = PyObject_GetAttr(before, hot.word_wires), *acked = PyObject_GetAttr(before, hot.word_acked);
  if (wires && acked && Py_TYPE(wires) == hot.parcels_type) {
    const hot_parcels_t *parcels = (const hot_parcels_t *)wires;
    int r = acked == Py_True ? CFN_OK : cfn_bus_try_ack_parcels(self->bus, parcels->parcel, parcels->n);
    if (r == CFN_AGENT_FENCED) { /* said once: the messages are somebody else's */
      hot_forget(self, who);
      hot_raise(r);
    } else if (r == CFN_OK) {
      done = acked == Py_True || PyObject_SetAttr(before, hot.word_acked, Py_True) == 0 ? 1 : -1;
    } else {
      done = 0;
    }
  } else if (wires && acked) {
    done = 0;
  }
  Py_XDECREF(wires);
  Py_XDECREF(acked);
  if (done == 1) hot_forget(self, who);
  return done;
}

/* The batch of `got` messages, which takes the parcels and perhaps the room: these are NULL then. */
static PyObject *batch_of(PyObject *object, int64_t got, uint8_t **room, size_t used, cfn_parcel_t **parcel, uint32_t n) {
  hot_parcels_t *parcels = (hot_parcels_t *)PyType_GenericAlloc(hot.parcels_type, 0);
  PyObject *large = NULL, *batch = NULL, *count = PyLong_FromLongLong(got);
  if (!parcels || !count) goto end;
  const cfn_wire_t *last = (const void *)(*room + (*parcel)[n - 1].at);
  if (last->wire_flags & CFN_WIRE_EXTERNAL) {
    PyObject *one = PyBytes_FromStringAndSize((const char *)last, last->total_bytes);
    large = one ? PyObject_CallFunctionObjArgs(hot.external, object, one, Py_True, NULL) : NULL;
    Py_XDECREF(one);
    if (!large) goto end;
  }
  for (uint32_t k = 0, first = 0; k < n; first += (*parcel)[k++].count) (*parcel)[k].spare = first;
  parcels->n = n;
  parcels->count = (uint32_t)got;
  if (used > WORTH_MOVING) {
    parcels->room = *room;
    parcels->whole = true;
    *room = NULL;
  } else if ((parcels->room = malloc(used)) != NULL) {
    memcpy(parcels->room, *room, used);
  } else {
    PyErr_NoMemory();
    goto end;
  }
  cfn_parcel_t *less = realloc(*parcel, n * sizeof *less);
  parcels->parcel = less ? less : *parcel;
  *parcel = NULL;
  batch = PyObject_CallFunctionObjArgs((PyObject *)hot.batch_type, object, parcels, count, large ? large : Py_None, NULL);
end:
  Py_XDECREF(parcels);
  Py_XDECREF(count);
  Py_XDECREF(large);
  return batch;
}

/* _recv_many(who, n, timeout) */
PyObject *hot_recv_many(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names) {
  hot_handle_t *self = (hot_handle_t *)object;
  uint64_t deadline;
  long most = 0;
  bool plain = n == 3 && !names && self->bus && self->handed && PyLong_CheckExact(args[1]) &&
               hot_deadline(args[2], &deadline);
  if (plain) most = PyLong_AsLong(args[1]);
  if (PyErr_Occurred()) PyErr_Clear(); /* a number beyond all: the original says so */
  long long who = plain && PyLong_CheckExact(args[0]) ? PyLong_AsLongLong(args[0]) : 0;
  if (PyErr_Occurred()) PyErr_Clear();
  int before = who && most >= 1 && most <= 65536 ? ack_before(self, who) : 0;
  if (before < 0) return NULL;
  if (before == 0) return hot_original(hot.original_recv_many, object, args, n, names);
  uint32_t parcels = 0, most_parcels = most < MOST_PARCELS ? (uint32_t)most : MOST_PARCELS;
  uint8_t *room = take_room();
  cfn_parcel_t *parcel = malloc(most_parcels * sizeof *parcel);
  PyObject *batch = NULL;
  int64_t got = 0;
  size_t used;
  if (!room || !parcel) {
    PyErr_NoMemory();
    goto end;
  }
  got = cfn_bus_recv_parcels(self->bus, CFN_ALL_LANES, (uint32_t)most, CFN_TRY, room, BATCH_ROOM, parcel, most_parcels,
                             &parcels, &used);
  for (bool first = true; got == CFN_INTERRUPTED || (first && (got == CFN_EMPTY || got == CFN_AGAIN));
       first = false) {
    if (PyErr_CheckSignals() < 0) goto end;
    Py_BEGIN_ALLOW_THREADS
    got = cfn_bus_recv_parcels(self->bus, CFN_ALL_LANES, (uint32_t)most, deadline, room, BATCH_ROOM, parcel, most_parcels,
                               &parcels, &used);
    Py_END_ALLOW_THREADS
  }
  if (got < 0) {
    hot_raise(got);
    goto end;
  }
  uint64_t token[MOST_PARCELS];
  uint32_t counts[MOST_PARCELS];
  for (uint32_t k = 0; k < parcels; k++) token[k] = parcel[k].token, counts[k] = parcel[k].count;
  batch = batch_of(object, got, &room, used, &parcel, parcels);
  if (batch && !hot_note(self, who, batch)) Py_CLEAR(batch);
  if (!batch) /* nobody has them: from the last to the first, so that they come again in order */
    for (uint32_t k = parcels; k-- > 0;)
      for (uint32_t i = counts[k]; i-- > 0;) cfn_bus_put_back(self->bus, token[k] + i);
end:
  free(parcel);
  if (room) leave_room(room);
  return batch;
}
