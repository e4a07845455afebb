/* Arrays: what message.py's _encode_array and _decode_array do, for NumPy's own in one piece, and for those that look
 * like the last one that came. */
#include "python/hot.h"

#define HEAD_MOST ((23 + 8 * 255 + 255) & -16) /* bytes before the elements: as message.py writes them */

/* The last head, and what it says. */
static struct {
  uint8_t head[HEAD_MOST];
  Py_ssize_t start; /* its bytes; 0: none yet */
  Py_ssize_t bytes; /* of the elements */
  PyObject *array, *shape, *type, *offset;
} last;

/* Looks the head up in Python: 1; 0 it is none; -1 with an exception (signals are handled while Python runs). */
static int understand(const uint8_t *head, Py_ssize_t start) {
  PyObject *text = PyBytes_FromStringAndSize((const char *)head, start), *offset = PyLong_FromSsize_t(start);
  PyObject *known = text && offset ? PyObject_CallFunctionObjArgs(hot.array_of, text, NULL) : NULL;
  PyObject *array, *shape, *type;
  Py_ssize_t bytes;
  int is = !known ? -1 : known == Py_None ? 0 : PyArg_ParseTuple(known, "OOOn", &array, &shape, &type, &bytes);
  if (is == 0) PyErr_Clear(); /* more elements than there is memory: decode() says it */
  if (is > 0) {
    PyObject *old[] = {last.array, last.shape, last.type, last.offset};
    memcpy(last.head, head, (size_t)start);
    last.start = start;
    last.bytes = bytes;
    last.array = Py_NewRef(array);
    last.shape = Py_NewRef(shape);
    last.type = Py_NewRef(type);
    last.offset = Py_NewRef(offset);
    for (int i = 0; i < 4; i++) Py_XDECREF(old[i]);
  }
  Py_XDECREF(text);
  Py_XDECREF(offset);
  Py_XDECREF(known);
  return is;
}

static bool as_last(const uint8_t *head, Py_ssize_t start) {
  return start == last.start && memcmp(head, last.head, (size_t)start) == 0;
}

PyObject *hot_array_in(PyObject *exporter, const void *data, Py_ssize_t bytes) {
  const volatile uint8_t *shared = data; /* of others, who may write to it yet */
  uint8_t head[HEAD_MOST];
  if (bytes < 16) return NULL;
  Py_ssize_t start = (23 + 8 * shared[1] + shared[0]) & -16;
  if (start > bytes) return NULL;
  memcpy(head, data, (size_t)start);
  /* Python may let another thread in, who has another head. */
  if (!as_last(head, start) && (understand(head, start) <= 0 || !as_last(head, start))) return NULL;
  if (bytes - start != last.bytes) return NULL;
  PyObject *with[] = {Py_NewRef(last.array), Py_NewRef(last.shape), Py_NewRef(last.type), Py_NewRef(last.offset)};
  PyObject *array = PyObject_CallFunctionObjArgs(with[0], with[1], with[2], exporter, with[3], NULL);
  for (int i = 0; i < 4; i++) Py_DECREF(with[i]);
  if (!array) PyErr_Clear(); /* NumPy's, which runs no Python: decode() says it */
  return array;
}

/* NumPy's class, once somebody has sent such an array. */
static PyTypeObject *ndarray;

void hot_array_sent(PyObject *body) {
  if (ndarray) return;
  PyObject *name = PyUnicode_FromString("numpy"), *numpy = name ? PyImport_GetModule(name) : NULL;
  PyObject *class = numpy ? PyObject_GetAttrString(numpy, "ndarray") : NULL;
  if (class == (PyObject *)Py_TYPE(body)) ndarray = (PyTypeObject *)Py_NewRef(class);
  Py_XDECREF(class);
  Py_XDECREF(numpy);
  Py_XDECREF(name);
  PyErr_Clear();
}

PyObject *hot_array_out(PyObject *body, Py_buffer *elements) {
  if (!ndarray || Py_TYPE(body) != ndarray) return NULL;
  PyObject *dtype = PyObject_GetAttr(body, hot.word_dtype), *shape = PyObject_GetAttr(body, hot.word_shape);
  PyObject *head = dtype && shape ? PyObject_CallFunctionObjArgs(hot.array_head, dtype, shape, NULL) : NULL;
  if (head && PyObject_GetBuffer(body, elements, PyBUF_SIMPLE) < 0) {
    Py_CLEAR(head);
    PyErr_Clear(); /* not in one piece: Python copies it */
  }
  Py_XDECREF(dtype);
  Py_XDECREF(shape);
  return head;
}
