/* What Python passes: time limits, lanes, addresses; and the way to the originals. */
#include "python/hot.h"

bool hot_deadline(PyObject *timeout, uint64_t *deadline) {
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

bool hot_lane(PyObject *priority, unsigned *lane) {
  for (unsigned i = 0; i < CFN_LANES; i++)
    if (priority == hot.word_lane[i]) {
      *lane = i;
      return true;
    }
  for (unsigned i = 0; i < CFN_LANES; i++)
    if (PyUnicode_Check(priority) && PyUnicode_Compare(priority, hot.word_lane[i]) == 0) {
      *lane = i;
      return true;
    }
  return false;
}

bool hot_same(PyObject *word, PyObject *name) { /* names of arguments are interned, but not always */
  return word == name || PyUnicode_Compare(word, name) == 0;
}

/* What `_look` does, without its Python: the first message to somebody costs a process that was forked the pages
 * that only the originals touch. NULL without an exception if there is no such agent, or for the original to say. */
static PyObject *look(hot_handle_t *self, PyObject *to) {
  Py_ssize_t n;
  const char *name = PyUnicode_AsUTF8AndSize(to, &n);
  if (!name || strlen(name) != (size_t)n) return NULL;
  cfn_address_t found;
  int r;
  Py_BEGIN_ALLOW_THREADS
  r = cfn_bus_find(self->bus, name, &found);
  Py_END_ALLOW_THREADS
  PyObject *place = r == CFN_OK ? Py_BuildValue("IK", found.index, (unsigned long long)found.mid) : NULL;
  if (place && PyDict_SetItem(self->peers, to, place) < 0) Py_CLEAR(place);
  return place;
}

bool hot_address(hot_handle_t *self, PyObject *to, cfn_address_t *address) {
  if (!self->peers || !PyUnicode_CheckExact(to)) return false;
  if (to == self->last_to) { /* what was right is right, or the core says that it is stale */
    *address = self->last_address;
    return true;
  }
  PyObject *place = Py_XNewRef(PyDict_GetItemWithError(self->peers, to));
  if (!place && !PyErr_Occurred()) place = look(self, to);
  PyObject *index = place ? PyTuple_GetItem(place, 0) : NULL, *mid = place ? PyTuple_GetItem(place, 1) : NULL;
  if (index && mid) {
    address->index = (uint32_t)PyLong_AsUnsignedLong(index);
    address->mid = PyLong_AsUnsignedLongLong(mid);
    PyObject *old = self->last_to;
    self->last_to = Py_NewRef(to);
    self->last_address = *address;
    Py_XDECREF(old);
  }
  Py_XDECREF(place);
  PyErr_Clear();
  return index && mid;
}

PyObject *hot_original(PyObject *original, PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
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

PyObject *hot_raise(int64_t code) {
  PyObject *number = PyLong_FromLongLong(code);
  PyObject *never = number ? PyObject_CallFunctionObjArgs(hot.fail, number, NULL) : NULL;
  Py_XDECREF(number);
  Py_XDECREF(never);
  return NULL;
}
