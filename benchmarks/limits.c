/* What no library can pass on a machine: a bare ring, a bare futex, bare copies, calls that do nothing.
 *
 * A Python extension (stable ABI) that limits.py builds where there is a compiler. The ring has one sender and one
 * receiver and no care for deaths: each side looks at the other's counter only when its own copy of it says full or
 * empty, and spins. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE 128

typedef struct ring {
  _Alignas(LINE) _Atomic uint64_t tail;
  _Alignas(LINE) _Atomic uint64_t head;
  _Alignas(LINE) uint64_t slots, bytes, stride;
  _Alignas(LINE) char data[];
} ring_t;

static ring_t *ring;
static uint64_t mine, theirs; /* my counter, and what I know of the other's */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_a_bit(unsigned *turns) {
  if (++*turns % 4096 == 0) sched_yield(); /* with one core the other side must run */
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static char *slot_at(uint64_t at) { return ring->data + (at & (ring->slots - 1)) * ring->stride; }

static char *to_fill(void) {
  unsigned turns = 0;
  while (mine - theirs >= ring->slots) {
    theirs = atomic_load_explicit(&ring->head, memory_order_acquire);
    if (mine - theirs >= ring->slots) pause_a_bit(&turns);
  }
  return slot_at(mine);
}

static char *to_take(void) {
  unsigned turns = 0;
  while (mine == theirs) {
    theirs = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (mine == theirs) pause_a_bit(&turns);
  }
  return slot_at(mine);
}

static void filled(void) { atomic_store_explicit(&ring->tail, ++mine, memory_order_release); }
static void taken(void) { atomic_store_explicit(&ring->head, ++mine, memory_order_release); }

static ring_t *new_ring(uint64_t slots, uint64_t bytes) {
  uint64_t stride = (bytes + LINE - 1) / LINE * LINE;
  ring_t *made = mmap(NULL, sizeof *made + slots * stride, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return NULL;
  made->slots = slots, made->bytes = bytes, made->stride = stride;
  return made;
}

/* ---- the ring from Python ---- */

/* make(slots, bytes): before the fork */
static PyObject *make(PyObject *self, PyObject *args) {
  unsigned long long slots, bytes;
  if (!PyArg_ParseTuple(args, "KK", &slots, &bytes)) return NULL;
  ring = new_ring(slots, bytes);
  mine = theirs = 0;
  if (!ring) return PyErr_SetFromErrno(PyExc_OSError);
  Py_RETURN_NONE;
}

static PyObject *ring_send(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  char *bytes;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(args[0], &bytes, &size) < 0) return NULL;
  memcpy(to_fill(), bytes, ring->bytes);
  filled();
  Py_RETURN_NONE;
}

static PyObject *ring_recv(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  PyObject *body = PyBytes_FromStringAndSize(to_take(), (Py_ssize_t)ring->bytes);
  taken();
  return body;
}

static PyObject *ring_send_many(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  Py_ssize_t count = PyList_Size(args[0]);
  for (Py_ssize_t i = 0; i < count; i++) {
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(PyList_GetItem(args[0], i), &bytes, &size) < 0) return NULL;
    memcpy(to_fill(), bytes, ring->bytes);
    mine++;
  }
  atomic_store_explicit(&ring->tail, mine, memory_order_release);
  Py_RETURN_NONE;
}

static PyObject *ring_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  to_take();
  uint64_t count = theirs - mine < 64 ? theirs - mine : 64;
  PyObject *all = PyList_New((Py_ssize_t)count);
  for (uint64_t i = 0; all && i < count; i++) {
    PyObject *body = PyBytes_FromStringAndSize(slot_at(mine + i), (Py_ssize_t)ring->bytes);
    if (!body) Py_CLEAR(all);
    else PyList_SetItem(all, (Py_ssize_t)i, body);
  }
  mine += count;
  atomic_store_explicit(&ring->head, mine, memory_order_release);
  return all;
}

/* recv_view(): the slot itself, which goes back with the next call */
static bool held;
static PyObject *ring_recv_view(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  if (held) taken();
  held = true;
  return PyMemoryView_FromMemory(to_take(), (Py_ssize_t)ring->bytes, PyBUF_READ);
}

/* send_buffer(object with a buffer) */
static PyObject *ring_send_buffer(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  Py_buffer view;
  if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) return NULL;
  memcpy(to_fill(), view.buf, ring->bytes);
  PyBuffer_Release(&view);
  filled();
  Py_RETURN_NONE;
}

/* loan_send(first, last): as a sender does who writes in place */
static PyObject *ring_loan(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  char *at = to_fill();
  at[0] = (char)PyLong_AsLong(args[0]);
  at[ring->bytes - 1] = (char)PyLong_AsLong(args[1]);
  filled();
  Py_RETURN_NONE;
}

static PyObject *nothing(PyObject *self, PyObject *const *args, Py_ssize_t n) { Py_RETURN_NONE; }

/* ---- without Python ---- */

/* c_ring(messages) -> messages a second of 64 B, one at a time, between two processes */
static PyObject *c_ring(PyObject *self, PyObject *args) {
  unsigned long long messages;
  if (!PyArg_ParseTuple(args, "K", &messages)) return NULL;
  ring_t *before = ring;
  ring = new_ring(1024, 64);
  if (!ring) return PyErr_SetFromErrno(PyExc_OSError);
  char body[64] = {0};
  double begin, end;
  mine = theirs = 0;
  Py_BEGIN_ALLOW_THREADS
  pid_t child = fork();
  if (child == 0) {
    for (uint64_t i = 0; i < messages; i++) {
      memcpy(body, &i, sizeof i);
      memcpy(to_fill(), body, sizeof body);
      filled();
    }
    _exit(0);
  }
  begin = now();
  for (uint64_t i = 0; i < messages; i++) {
    uint64_t number;
    memcpy(body, to_take(), sizeof body);
    memcpy(&number, body, sizeof number);
    if (number != i) abort();
    taken();
  }
  end = now();
  waitpid(child, NULL, 0);
  Py_END_ALLOW_THREADS
  munmap(ring, sizeof *ring + ring->slots * ring->stride);
  ring = before;
  return PyFloat_FromDouble((double)messages / (end - begin));
}

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static void wait_for(_Atomic uint32_t *word, uint32_t old) {
  while (atomic_load(word) == old) syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
}

static void say(_Atomic uint32_t *word, uint32_t value) {
  atomic_store(word, value);
  syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* futex(rounds, my core, the other's) -> (p50, p99, p99.9) of a round trip in seconds: two processes that sleep */
static PyObject *futex(PyObject *self, PyObject *args) {
  int rounds, a, b;
  if (!PyArg_ParseTuple(args, "iii", &rounds, &a, &b)) return NULL;
  _Atomic uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  double *took = calloc((size_t)rounds, sizeof *took);
  if (words == MAP_FAILED || !took) return PyErr_NoMemory();
  cpu_set_t before;
  sched_getaffinity(0, sizeof before, &before);
  Py_BEGIN_ALLOW_THREADS
  pid_t child = fork();
  if (child == 0) {
    pin(b);
    for (int i = 0; i < rounds; i++) {
      wait_for(&words[0], (uint32_t)i);
      say(&words[32], (uint32_t)i + 1);
    }
    _exit(0);
  }
  pin(a);
  for (int i = 0; i < rounds; i++) {
    double begin = now();
    say(&words[0], (uint32_t)i + 1);
    wait_for(&words[32], (uint32_t)i);
    took[i] = now() - begin;
  }
  waitpid(child, NULL, 0);
  sched_setaffinity(0, sizeof before, &before);
  Py_END_ALLOW_THREADS
  qsort(took, (size_t)rounds, sizeof *took, compare);
  PyObject *out = Py_BuildValue("(ddd)", took[rounds / 2], took[rounds * 99 / 100], took[rounds * 999 / 1000]);
  free(took);
  munmap((void *)words, 4096);
  return out;
}

/* copies(bytes, times) -> seconds of a copy in and a copy out */
static PyObject *copies(PyObject *self, PyObject *args) {
  Py_ssize_t bytes;
  int times;
  if (!PyArg_ParseTuple(args, "ni", &bytes, &times)) return NULL;
  char *a = malloc((size_t)bytes), *b = malloc((size_t)bytes), *c = malloc((size_t)bytes);
  if (!a || !b || !c) return PyErr_NoMemory();
  memset(a, 1, (size_t)bytes), memset(b, 1, (size_t)bytes), memset(c, 1, (size_t)bytes);
  double begin = now();
  for (int i = 0; i < times; i++) {
    a[i % bytes]++;
    memcpy(b, a, (size_t)bytes);
    __asm__ volatile("" ::: "memory");
    memcpy(c, b, (size_t)bytes);
    __asm__ volatile("" ::: "memory");
  }
  double took = now() - begin;
  free(a), free(b), free(c);
  return PyFloat_FromDouble(took / times);
}

#define FAST(name, function) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL}
static PyMethodDef functions[] = {
    {"make", make, METH_VARARGS, NULL},     {"c_ring", c_ring, METH_VARARGS, NULL},
    {"futex", futex, METH_VARARGS, NULL},   {"copies", copies, METH_VARARGS, NULL},
    FAST("send", ring_send),                FAST("recv", ring_recv),
    FAST("send_many", ring_send_many),      FAST("recv_many", ring_recv_many),
    FAST("recv_view", ring_recv_view),      FAST("send_buffer", ring_send_buffer),
    FAST("loan", ring_loan),                FAST("nothing", nothing),
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "limits", NULL, -1, functions, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_limits(void) { return PyModule_Create(&definition); }
