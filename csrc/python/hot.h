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
#ifndef CFN_PYTHON_HOT_H
#define CFN_PYTHON_HOT_H

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
#define MOST_PARCELS 1024u /* of a batch */
#define INSIDE 160u /* bytes of a wire header with its sender and type, as most have them */

/* ---- the objects ---- */

/* Base of a Bus. `_peers` maps names to (index, word), `_handed` who to what it was handed. */
typedef struct hot_handle {
  PyObject_HEAD
  cfn_bus_t *bus; /* lives as long as `owner`, NULL without it */
  PyObject *peers, *handed, *owner;
  PyObject *last;      /* what was handed out last; not in `handed` */
  PyObject *last_to;   /* whom the last message was sent to, by a name of `peers` */
  uint64_t last_token; /* the same of a message that has nothing but its token to be remembered by */
  long long last_who;  /* and to whom */
  cfn_address_t last_address;
} hot_handle_t;

/* A message that was received here has its wire header in itself and its body in `raw`; `wire` is made of both when it is
 * asked for. One that Python makes has its wire bytes. */
typedef struct hot_message {
  PyObject_HEAD
  PyObject *bus, *wire, *raw, *body, *head, *to, *exporter;
  size_t head_bytes; /* of `inside` */
  _Alignas(cfn_wire_t) uint8_t inside[INSIDE];
} hot_message_t;

/* The same: `data` is made of `receipt` when it is asked for, if that is the receipt. */
typedef struct hot_receipt {
  PyObject_HEAD
  PyObject *bus, *data, *to;
  bool inside;
  cfn_receipt_t receipt;
} hot_receipt_t;

/* Where a body is in the bus: what a message received with copy=False gives views of. Its references count them, for
 * memoryviews and arrays made of it all hold it. */
typedef struct hot_place {
  PyObject_HEAD
  void *data;
  Py_ssize_t bytes;
} hot_place_t;

/* Room of a loan: dropped with its last view, unless it was sent. */
typedef struct hot_lent {
  PyObject_HEAD
  cfn_bus_t *bus;
  PyObject *owner; /* keeps `bus` */
  void *data;
  Py_ssize_t bytes;
  uint64_t number;
} hot_lent_t;

/* What the module keeps: one set, the main interpreter's. */
extern struct hot {
  PyTypeObject *handle_base, *message_base, *receipt_base, *place_type, *lent_type, *parcels_type; /* made here */
  PyTypeObject *message_type, *receipt_type, *receipts_type, *batch_type;  /* given by setup(), like what is called back: */
  PyObject *encode, *decode, *array_head, *array_of, *fail, *external;
  PyObject *original_send, *original_send_group, *original_broadcast, *original_recv, *original_recv_as, *original_recv_many;
  PyObject *word_type, *word_priority, *word_timeout, *word_copy, *word_others, *word_wires, *word_acked, *word_empty, *word_dtype,
      *word_shape, *word_lane[CFN_LANES];
} hot;

/* ---- arguments: false if the original must look at them ---- */

bool hot_deadline(PyObject *timeout, uint64_t *deadline);
bool hot_lane(PyObject *priority, unsigned *lane);
bool hot_address(hot_handle_t *self, PyObject *to, cfn_address_t *address);
bool hot_same(PyObject *word, PyObject *name);

/* Calls the original with the arguments as they came. */
PyObject *hot_original(PyObject *original, PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_make_message(void);
PyObject *hot_make_receipt(void);
PyObject *hot_receipt_of(PyObject *self, PyObject *to, const cfn_receipt_t *receipt);
/* NULL, with the exception of a code of the core. */
PyObject *hot_raise(int64_t code);

/* ---- what was handed to whom, unacked ----
 *
 * The last entry stands in the handle itself: a dict takes as long as the rest of a receive. It goes into the dict when
 * another thread needs its place, or when Python looks. */

long long hot_this_thread_number(void);
/* What was handed to him, borrowed, or NULL (also with an exception). */
PyObject *hot_noted(hot_handle_t *self, long long who);
bool hot_note(hot_handle_t *self, long long who, PyObject *what);
bool hot_note_token(hot_handle_t *self, long long who, uint64_t token);
void hot_forget(hot_handle_t *self, long long who);
/* All of it into the dict: false with an exception. */
bool hot_settle(hot_handle_t *self);

/* ---- the twins ---- */

PyObject *hot_send(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_send_group(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_broadcast(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_recv(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_recv_as(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *hot_this_thread(PyObject *module, PyObject *nothing);
PyObject *hot_blank(PyObject *module, PyObject *n);
PyTypeObject *hot_make_parcels(void);
PyObject *hot_lend(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *hot_send_lent(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyTypeObject *hot_make_lent(void);
PyObject *hot_place_of(const cfn_wire_t *w);
bool hot_message_release(hot_message_t *self);
/* The array that these bytes of the exporter are; NULL, perhaps without an exception: Python must look at it. */
PyObject *hot_array_in(PyObject *exporter, const void *data, Py_ssize_t bytes);
/* An array's head, and its elements, to be released; NULL as above. `hot_array_sent`: Python has sent this one. */
PyObject *hot_array_out(PyObject *body, Py_buffer *elements);
void hot_array_sent(PyObject *body);
PyObject *hot_message_wire(PyObject *self, void *nothing);
int hot_message_set_wire(PyObject *self, PyObject *value, void *nothing);
PyObject *hot_message_raw(PyObject *self, void *original);
PyObject *hot_message_body(PyObject *self, void *original);

#endif
