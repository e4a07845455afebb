/* Loans without cffi's crossing. */
#include "python/hot.h"

static int lent_buffer(PyObject *self, Py_buffer *view, int flags) {
  return PyBuffer_FillInfo(view, self, ((hot_lent_t *)self)->data, ((hot_lent_t *)self)->bytes, 0, flags);
}

static void lent_dealloc(PyObject *object) {
  hot_lent_t *self = (hot_lent_t *)object;
  PyTypeObject *type = Py_TYPE(object);
  if (self->number) { /* not sent */
    Py_BEGIN_ALLOW_THREADS
    cfn_bus_loan_drop(self->bus, self->number);
    Py_END_ALLOW_THREADS
  }
  Py_XDECREF(self->owner);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

static PyMemberDef lent_members[] = {{"number", T_ULONGLONG, offsetof(hot_lent_t, number), READONLY, NULL},
                                     {NULL, 0, 0, 0, NULL}};

PyTypeObject *hot_make_lent(void) {
  PyType_Slot slots[] = {{Py_tp_dealloc, (void *)lent_dealloc}, {Py_bf_getbuffer, (void *)lent_buffer},
                         {Py_tp_members, lent_members}, {0, NULL}};
  PyType_Spec spec = {"cfnshm._core._hot.Lent", sizeof(hot_lent_t), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  return (PyTypeObject *)PyType_FromSpec(&spec);
}

/* lend(bus, bytes): room for so many */
PyObject *hot_lend(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  (void)module;
  if (n != 2 || !PyType_IsSubtype(Py_TYPE(args[0]), hot.handle_base)) {
    PyErr_SetString(PyExc_TypeError, "lend(bus, bytes)");
    return NULL;
  }
  hot_handle_t *handle = (hot_handle_t *)args[0];
  size_t bytes = PyLong_AsSize_t(args[1]);
  if (PyErr_Occurred()) return NULL;
  hot_lent_t *self = handle->bus && handle->owner ? (hot_lent_t *)PyType_GenericAlloc(hot.lent_type, 0) : NULL;
  if (!self) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "this bus was never opened");
    return NULL;
  }
  self->bus = handle->bus;
  self->owner = Py_NewRef(handle->owner);
  cfn_loan_t loan;
  int r;
  Py_BEGIN_ALLOW_THREADS /* it may make room first, on disk */
  r = cfn_bus_loan(self->bus, bytes, &loan);
  Py_END_ALLOW_THREADS
  if (r == CFN_OK) {
    self->data = loan.data;
    self->bytes = (Py_ssize_t)bytes;
    self->number = loan.number;
    return (PyObject *)self;
  }
  hot_raise(r);
  Py_DECREF(self);
  return NULL;
}

/* send_lent(bus, room, to, type's bytes, lane, timeout): the receipt, or None: the original must, with its waiting and its
 * looking up. */
PyObject *hot_send_lent(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  (void)module;
  uint64_t deadline;
  cfn_address_t to;
  if (n != 6 || !PyType_IsSubtype(Py_TYPE(args[0]), hot.handle_base) || Py_TYPE(args[1]) != hot.lent_type ||
      !PyBytes_CheckExact(args[3]) || !PyLong_CheckExact(args[4])) {
    PyErr_SetString(PyExc_TypeError, "send_lent(bus, room, to, type, lane, timeout)");
    return NULL;
  }
  hot_handle_t *self = (hot_handle_t *)args[0];
  hot_lent_t *lent = (hot_lent_t *)args[1];
  unsigned lane = (unsigned)PyLong_AsUnsignedLong(args[4]);
  if (PyErr_Occurred()) return NULL;
  if (!self->bus || !hot_address(self, args[2], &to) || !hot_deadline(args[5], &deadline)) Py_RETURN_NONE;
  cfn_receipt_t receipt;
  int r = cfn_bus_loan_send(self->bus, lent->number, to.index, to.mid, lane, CFN_CODEC_RAW, PyBytes_AsString(args[3]),
                            (uint32_t)PyBytes_Size(args[3]), CFN_TRY, &receipt);
  if (r == CFN_STALE) Py_CLEAR(self->last_to);
  if (r != CFN_OK) Py_RETURN_NONE; /* still open, or the original says what is wrong */
  lent->number = 0; /* nothing is left to be dropped */
  return hot_receipt_of(args[0], args[2], &receipt);
}
