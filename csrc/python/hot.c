#include "python/hot.h"

struct hot hot;

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

COLLECTED(handle, peers, 5)
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

static void handle_dealloc(PyObject *self) { base_dealloc(self, handle_forget); }

/* One of each kind that ended is made again, cleared, by who needs the next: most end before that. */
static bool spared(PyObject *self, PyTypeObject *kind, PyObject **spare, int (*clear)(PyObject *)) {
  if (*spare || Py_TYPE(self) != kind) return false;
  PyObject_GC_UnTrack(self);
  clear(self);
  if (*spare) return false; /* what ended with it took the place */
  *spare = self;
  Py_DECREF(kind);
  return true;
}
static PyObject *made(PyTypeObject *kind, PyObject **spare) {
  PyObject *self = *spare;
  if (!self) return PyType_GenericAlloc(kind, 0);
  *spare = NULL;
  PyObject_Init(self, kind);
  PyObject_GC_Track(self);
  return self;
}

static PyObject *spare_message, *spare_receipt; /* the GIL's */
PyObject *hot_make_message(void) {
  PyObject *message = made(hot.message_type, &spare_message);
  if (message) ((hot_message_t *)message)->head_bytes = 0;
  return message;
}
PyObject *hot_make_receipt(void) { return made(hot.receipt_type, &spare_receipt); }

static void message_dealloc(PyObject *self) {
  if (!spared(self, hot.message_type, &spare_message, message_clear)) base_dealloc(self, message_clear);
}
static void receipt_dealloc(PyObject *self) {
  if (!spared(self, hot.receipt_type, &spare_receipt, receipt_clear)) base_dealloc(self, receipt_clear);
}

/* ---- twins ---- */

typedef PyObject *(*fast_t)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

static const struct twin {
  const char *name;
  fast_t fast;
  PyObject **original;
} twins[] = {{"send", hot_send, &hot.original_send},
             {"_send_group", hot_send_group, &hot.original_send_group},
             {"broadcast", hot_broadcast, &hot.original_broadcast},
             {"recv", hot_recv, &hot.original_recv},
             {"_recv", hot_recv_as, &hot.original_recv_as},
             {"_recv_many", hot_recv_many, &hot.original_recv_many}};

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
    result = PyDescr_NewMethod(hot.handle_base, def);
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
  *def = (PyGetSetDef){raw ? "raw" : "body", raw ? hot_message_raw : hot_message_body, NULL,
                       PyUnicode_Check(text) ? lasting(text) : NULL, Py_NewRef(function)};
  return PyDescr_NewGetSet(hot.message_base, def);
}

/* sealed(class): the same class, of which none is derived, made here: the end of an object costs a third of what it costs
 * for a class that Python makes. */
static PyObject *hot_sealed(PyObject *module, PyObject *class) {
  (void)module;
  bool message = PyType_Check(class) && PyType_IsSubtype((PyTypeObject *)class, hot.message_base);
  if (!message && !(PyType_Check(class) && PyType_IsSubtype((PyTypeObject *)class, hot.receipt_base))) {
    PyErr_SetString(PyExc_TypeError, "only classes of messages and receipts are sealed");
    return NULL;
  }
  PyObject *base = (PyObject *)(message ? hot.message_base : hot.receipt_base), *type = NULL, *key, *value;
  PyObject *module_name = PyObject_GetAttrString(class, "__module__"), *name = PyObject_GetAttrString(class, "__name__");
  PyObject *dotted = module_name && name ? PyUnicode_FromFormat("%U.%U", module_name, name) : NULL;
  PyType_Slot slots[] = {{Py_tp_dealloc, (void *)(message ? message_dealloc : receipt_dealloc)},
                         {Py_tp_traverse, (void *)(message ? message_traverse : receipt_traverse)},
                         {Py_tp_clear, (void *)(message ? message_clear : receipt_clear)},
                         {0, NULL}};
  PyType_Spec spec = {lasting(dotted), (int)(message ? sizeof(hot_message_t) : sizeof(hot_receipt_t)), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  PyObject *bases = PyTuple_Pack(1, base), *all = PyObject_GetAttrString(class, "__dict__");
  PyObject *items = all ? PyMapping_Items(all) : NULL;
  if (spec.name && bases && items) type = PyType_FromSpecWithBases(&spec, bases);
  for (Py_ssize_t i = 0; type && i < PyList_Size(items); i++) {
    key = PyTuple_GetItem(PyList_GetItem(items, i), 0);
    value = PyTuple_GetItem(PyList_GetItem(items, i), 1);
    if (PyUnicode_CompareWithASCIIString(key, "__slots__") && PyObject_SetAttr(type, key, value) < 0) Py_CLEAR(type);
  }
  PyObject *used[] = {module_name, name, dotted, bases, all, items};
  for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) Py_XDECREF(used[i]);
  return type;
}

/* There is one set of classes and originals here: they are the main interpreter's. (A subinterpreter gets a
 * copy of this module without any of its code being run.) */
static PyObject *hot_usable(PyObject *module, PyObject *nothing) {
  (void)module;
  (void)nothing;
  return PyBool_FromLong(PyInterpreterState_GetID(PyInterpreterState_Get()) == 0);
}

/* setup(message, receipt, receipts, batch, encode, decode, array_head, array_of, fail, external) */
static PyObject *hot_setup(PyObject *module, PyObject *args) {
  (void)module;
  PyObject *message, *receipt, *receipts, *batch;
  if (!PyArg_ParseTuple(args, "OOOOOOOOOO", &message, &receipt, &receipts, &batch, &hot.encode, &hot.decode,
                        &hot.array_head, &hot.array_of, &hot.fail, &hot.external))
    return NULL;
  if (!PyType_IsSubtype((PyTypeObject *)message, hot.message_base) ||
      !PyType_IsSubtype((PyTypeObject *)receipt, hot.receipt_base)) {
    PyErr_SetString(PyExc_TypeError, "messages and receipts must be made of the bases here");
    return NULL;
  }
  for (PyObject *const *p = (PyObject *const[]){message, receipt, receipts, batch, hot.encode, hot.decode,
                                                hot.array_head, hot.array_of, hot.fail, hot.external, NULL};
       *p; p++)
    Py_INCREF(*p);
  hot.message_type = (PyTypeObject *)message;
  hot.receipt_type = (PyTypeObject *)receipt;
  hot.receipts_type = (PyTypeObject *)receipts;
  hot.batch_type = (PyTypeObject *)batch;
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
                                       {NULL, 0, 0, 0, NULL}};
static PyMemberDef message_members[] = {
    {"_bus", T_OBJECT_EX, AT(message, bus), 0, NULL},   {"_raw_", T_OBJECT_EX, AT(message, raw), 0, NULL},
    {"_body_", T_OBJECT_EX, AT(message, body), 0, NULL}, {"_head", T_OBJECT_EX, AT(message, head), 0, NULL},
    {"_to", T_OBJECT_EX, AT(message, to), 0, NULL},     {"_exporter", T_OBJECT_EX, AT(message, exporter), 0, NULL},
    {NULL, 0, 0, 0, NULL}};
static PyMemberDef receipt_members[] = {{"_bus", T_OBJECT_EX, AT(receipt, bus), 0, NULL},
                                        {"to", T_OBJECT_EX, AT(receipt, to), 0, NULL},
                                        {NULL, 0, 0, 0, NULL}};
static PyObject *handle_handed(PyObject *object, void *nothing) {
  (void)nothing;
  hot_handle_t *self = (hot_handle_t *)object;
  if (!self->handed) {
    PyErr_SetString(PyExc_AttributeError, "_handed");
    return NULL;
  }
  return hot_settle(self) ? Py_NewRef(self->handed) : NULL;
}
static int handle_set_handed(PyObject *object, PyObject *value, void *nothing) {
  (void)nothing;
  hot_handle_t *self = (hot_handle_t *)object;
  if (!value || !PyDict_CheckExact(value)) {
    PyErr_SetString(PyExc_TypeError, "_handed is a dict");
    return -1;
  }
  PyObject *old = self->handed;
  self->handed = Py_NewRef(value);
  Py_XDECREF(old);
  return 0;
}
static PyGetSetDef handle_attributes[] = {{"_handed", handle_handed, handle_set_handed, NULL, NULL},
                                          {NULL, NULL, NULL, NULL, NULL}};
static PyGetSetDef message_attributes[] = {{"_wire", hot_message_wire, hot_message_set_wire, NULL, NULL},
                                           {NULL, NULL, NULL, NULL, NULL}};
static PyObject *receipt_data(PyObject *object, void *nothing) {
  (void)nothing;
  hot_receipt_t *self = (hot_receipt_t *)object;
  if (self->inside && !self->data)
    self->data = PyBytes_FromStringAndSize((const char *)&self->receipt, sizeof self->receipt);
  else if (!self->data)
    PyErr_SetString(PyExc_AttributeError, "_data");
  return Py_XNewRef(self->data);
}
static int receipt_set_data(PyObject *object, PyObject *value, void *nothing) {
  (void)nothing;
  hot_receipt_t *self = (hot_receipt_t *)object;
  PyObject *old = self->data;
  self->inside = false;
  self->data = Py_XNewRef(value);
  Py_XDECREF(old);
  return 0;
}
static PyGetSetDef receipt_attributes[] = {{"_data", receipt_data, receipt_set_data, NULL, NULL},
                                           {NULL, NULL, NULL, NULL, NULL}};
static PyMethodDef handle_methods[] = {{"_bind", handle_bind, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

/* ---- places ---- */

static int place_buffer(PyObject *self, Py_buffer *view, int flags) {
  return PyBuffer_FillInfo(view, self, ((hot_place_t *)self)->data, ((hot_place_t *)self)->bytes, 1, flags);
}
static void place_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(self);
  Py_DECREF(type);
}
static PyTypeObject *make_place(void) {
  PyType_Slot slots[] = {{Py_tp_dealloc, (void *)place_dealloc}, {Py_bf_getbuffer, (void *)place_buffer}, {0, NULL}};
  PyType_Spec spec = {"cfnshm._core._hot.Place", sizeof(hot_place_t), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  return (PyTypeObject *)PyType_FromSpec(&spec);
}

static PyTypeObject *make_base(PyObject *module, const char *name, int bytes, destructor dealloc,
                               traverseproc traverse, inquiry clear, PyMemberDef *members,
                               PyMethodDef *methods, PyGetSetDef *attributes) {
  PyType_Slot slots[] = {{Py_tp_dealloc, (void *)dealloc}, {Py_tp_traverse, (void *)traverse},
                         {Py_tp_clear, (void *)clear},     {Py_tp_members, members},
                         {Py_tp_methods, methods},         {Py_tp_getset, attributes},
                         {0, NULL}};
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
    {"sealed", hot_sealed, METH_O, NULL},
    {"this_thread", hot_this_thread, METH_NOARGS, NULL},
    {"attribute", hot_attribute, METH_VARARGS, NULL},
    {"blank", hot_blank, METH_O, NULL},
    {"lend", (PyCFunction)(void (*)(void))hot_lend, METH_FASTCALL, NULL},
    {"send_lent", (PyCFunction)(void (*)(void))hot_send_lent, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "cfnshm._core._hot", NULL, -1, functions,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__hot(void) {
  static const char *const lanes[CFN_LANES] = {"control", "high", "normal", "low"};
  PyObject *module = PyModule_Create(&definition);
  if (!module) return NULL;
  hot.handle_base = make_base(module, "cfnshm._core._hot.HandleBase", sizeof(hot_handle_t), handle_dealloc,
                          handle_traverse, handle_forget, handle_members, handle_methods, handle_attributes);
  hot.message_base = make_base(module, "cfnshm._core._hot.MessageBase", sizeof(hot_message_t), message_dealloc,
                           message_traverse, message_clear, message_members, NULL, message_attributes);
  hot.receipt_base = make_base(module, "cfnshm._core._hot.ReceiptBase", sizeof(hot_receipt_t), receipt_dealloc,
                           receipt_traverse, receipt_clear, receipt_members, NULL, receipt_attributes);
  hot.place_type = make_place();
  hot.lent_type = hot_make_lent();
  hot.parcels_type = hot_make_parcels();
  hot.word_type = PyUnicode_InternFromString("type");
  hot.word_priority = PyUnicode_InternFromString("priority");
  hot.word_timeout = PyUnicode_InternFromString("timeout");
  hot.word_copy = PyUnicode_InternFromString("copy");
  hot.word_wires = PyUnicode_InternFromString("_wires");
  hot.word_acked = PyUnicode_InternFromString("acked");
  hot.word_empty = PyUnicode_InternFromString("");
  hot.word_dtype = PyUnicode_InternFromString("dtype");
  hot.word_shape = PyUnicode_InternFromString("shape");
  hot.word_others = PyUnicode_InternFromString("_others");
  for (unsigned i = 0; i < CFN_LANES; i++) hot.word_lane[i] = PyUnicode_InternFromString(lanes[i]);
  if (!hot.handle_base || !hot.message_base || !hot.receipt_base || !hot.place_type || !hot.lent_type ||
      !hot.parcels_type || PyErr_Occurred())
    Py_CLEAR(module);
  return module;
}
