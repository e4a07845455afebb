/* What messages give of their wire bytes. */
#include "python/hot.h"

/* blank(n): bytes that nobody has written to yet */
PyObject *hot_blank(PyObject *module, PyObject *n) {
  (void)module;
  Py_ssize_t bytes = PyLong_AsSsize_t(n);
  return bytes < 0 && PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize(NULL, bytes);
}

PyObject *hot_message_wire(PyObject *object, void *nothing) {
  (void)nothing;
  hot_message_t *self = (hot_message_t *)object;
  if (!self->wire && self->head_bytes && self->raw && PyBytes_CheckExact(self->raw)) {
    Py_ssize_t body = PyBytes_Size(self->raw);
    self->wire = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->head_bytes + body);
    if (!self->wire) return NULL;
    char *bytes = PyBytes_AsString(self->wire);
    memcpy(bytes, self->inside, self->head_bytes);
    memcpy(bytes + self->head_bytes, PyBytes_AsString(self->raw), (size_t)body);
  } else if (!self->wire) {
    PyErr_SetString(PyExc_AttributeError, "_wire");
  }
  return Py_XNewRef(self->wire);
}

int hot_message_set_wire(PyObject *object, PyObject *value, void *nothing) {
  (void)nothing;
  hot_message_t *self = (hot_message_t *)object;
  PyObject *old = self->wire;
  self->head_bytes = 0;
  self->wire = Py_XNewRef(value);
  Py_XDECREF(old);
  return 0;
}

/* The header of its wire bytes, if that is what they are. */
static const cfn_wire_t *wire_of(const hot_message_t *self, Py_ssize_t *n) {
  char *wire;
  if (self->head_bytes) { /* its body is in `raw` already */
    *n = (Py_ssize_t)self->head_bytes;
    return self->raw && PyBytes_CheckExact(self->raw) ? (const void *)self->inside : NULL;
  }
  if (!self->wire || !PyBytes_CheckExact(self->wire)) return NULL;
  PyBytes_AsStringAndSize(self->wire, &wire, n);
  const cfn_wire_t *w = (const void *)wire;
  if (*n < (Py_ssize_t)sizeof *w) return NULL;
  return w->wire_flags & CFN_WIRE_EXTERNAL || w->body_bytes <= (size_t)*n - sizeof *w ? w : NULL;
}

/* The place of a body that is not among the wire bytes. */
PyObject *hot_place_of(const cfn_wire_t *w) {
  PyObject *place = PyType_GenericAlloc(hot.place_type, 0);
  if (!place) return NULL;
  ((hot_place_t *)place)->data = (void *)(uintptr_t)w->external;
  ((hot_place_t *)place)->bytes = (Py_ssize_t)w->body_bytes;
  return place;
}

/* Ends the view of a message whose exporter is a place; false while somebody else still uses it. */
bool hot_message_release(hot_message_t *self) {
  PyObject *raw = self->raw, *body = self->body;
  self->raw = self->body = NULL; /* first: what follows may run other code, which may end the view itself */
  Py_XDECREF(raw);
  Py_XDECREF(body);
  if (!self->exporter || Py_TYPE(self->exporter) != hot.place_type) return true;
  bool ours = Py_REFCNT(self->exporter) == 1;
  if (ours) Py_CLEAR(self->exporter);
  return ours;
}

PyObject *hot_message_raw(PyObject *object, void *original) {
  hot_message_t *self = (hot_message_t *)object;
  if (self->raw && self->raw != Py_None) return Py_NewRef(self->raw);
  Py_ssize_t n;
  const cfn_wire_t *w = wire_of(self, &n);
  bool elsewhere = w && w->wire_flags & CFN_WIRE_EXTERNAL;
  if (!w || (elsewhere && (!self->exporter || Py_TYPE(self->exporter) != hot.place_type)))
    return PyObject_CallFunctionObjArgs(original, object, NULL);
  const char *wire = (const char *)w;
  /* Our own reference: a finalizer that runs while the view is made could ack the message, and end the place. */
  PyObject *place = elsewhere ? Py_NewRef(self->exporter) : NULL;
  PyObject *raw = elsewhere ? PyMemoryView_FromObject(place)
                            : PyBytes_FromStringAndSize(wire + n - w->body_bytes, w->body_bytes);
  Py_XDECREF(place);
  PyObject *old = self->raw;
  self->raw = Py_XNewRef(raw);
  Py_XDECREF(old);
  return raw;
}

static PyObject *keep_body(hot_message_t *self, PyObject *body) {
  PyObject *old = self->body; /* another thread's, who asked meanwhile */
  self->body = Py_XNewRef(body);
  Py_XDECREF(old);
  return body;
}

PyObject *hot_message_body(PyObject *object, void *original) {
  hot_message_t *self = (hot_message_t *)object;
  Py_ssize_t n;
  const cfn_wire_t *w = wire_of(self, &n);
  if (!w || self->body) return PyObject_CallFunctionObjArgs(original, object, NULL);
  unsigned codec = w->codec;
  bool placed = w->wire_flags & CFN_WIRE_EXTERNAL && self->exporter && Py_TYPE(self->exporter) == hot.place_type;
  if (codec == CFN_CODEC_ARRAY && placed && !self->raw) { /* straight from its place */
    hot_place_t *place = (hot_place_t *)Py_NewRef(self->exporter);
    PyObject *array = hot_array_in((PyObject *)place, place->data, place->bytes);
    Py_DECREF((PyObject *)place);
    if (array || PyErr_Occurred()) return keep_body(self, array);
  }
  PyObject *raw = self->head_bytes ? Py_NewRef(self->raw) : PyObject_GetAttrString(object, "raw"), *body = NULL;
  if (!raw) return NULL;
  if (codec == CFN_CODEC_RAW) {
    body = Py_NewRef(raw);
  } else if (codec == CFN_CODEC_TEXT && PyBytes_CheckExact(raw)) {
    body = PyUnicode_DecodeUTF8(PyBytes_AsString(raw), PyBytes_Size(raw), "surrogatepass");
    if (!body && PyErr_ExceptionMatches(PyExc_UnicodeError)) PyErr_Clear(); /* decode() says it in its words */
  }
  if (codec == CFN_CODEC_ARRAY && PyBytes_CheckExact(raw))
    body = hot_array_in(raw, PyBytes_AsString(raw), PyBytes_Size(raw));
  if (!body && !PyErr_Occurred()) {
    PyObject *number = PyLong_FromLong(codec);
    body = number ? PyObject_CallFunctionObjArgs(hot.decode, number, raw, NULL) : NULL;
    Py_XDECREF(number);
  }
  Py_DECREF(raw);
  return keep_body(self, body);
}
