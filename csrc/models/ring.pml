/* ring.pml: sending into one lane and receiving in order.
 *
 * MODELS   send (register, own CAS FREE -> MINE, plain store, tail, slot, commit CAS, tail CAS, help), receive in order (own ->
 *          TAKEN, ack at once -> DONE, register, R5, R6, R7), reapers of a dead sender that look at its register only, and the
 *          re-use of its attachment by a new process.  The mailbox word never changes here (remove.pml).
 * ACTORS   sender 0 (N0 messages, dies), sender 1 (N1, dies with D1), receiver (attachment 2, lives), NREAP reapers of attachment
 *          0 (the second may stop for good after any pass), a new process in attachment 0 (NEW messages).
 * DIES     senders at every step; everybody may be stopped for any time.
 * PROPERTY 1. Each committed message is received exactly once, in the order of positions, and in order per sender.
 *          2. Plain stores go only into a chunk that is MINE(me); a chunk is in one slot at most; it is FREE exactly if no slot
 *             and nobody holds it; it is never freed while a slot names it.
 *          3. Nobody is stuck: a dead or stopped sender holds up nobody.
 *          4. tail is the number of filled positions, or one less.
 * BOUNDS   C slots, NCH chunks, N0, N1, NEW messages.
 * MUTANTS  MUTANT_NO_ID_CHECK       reaper: attachment word not looked at again before the CAS
 *          MUTANT_NO_SCAN           reaper: ring not looked at
 *          MUTANT_INEXACT_FREE      reaper: frees without comparing the own word
 *          MUTANT_NO_LAP            slots carry no lap
 *          MUTANT_REGISTER_LATE     chunk announced after the CAS that takes it
 *          MUTANT_NO_HELP           a sender does not help the tail
 *          MUTANT_COMMIT_STORE      commit by store instead of CAS
 *          MUTANT_TAIL_STORE        tail by store instead of CAS
 *          MUTANT_SLOT_FIRST        receiver empties the slot before own leaves MINE
 *          MUTANT_FREE_FIRST        receiver frees before it empties the slot
 */
#include "words.h"
#ifndef C
#define C 2
#endif
#ifndef NCH
#define NCH 2
#endif
#ifndef N0
#define N0 1
#endif
#ifndef N1
#define N1 1
#endif
#ifndef NEW
#define NEW 1
#endif
#ifndef D1
#define D1 0
#endif
#ifndef NREAP
#define NREAP 1
#endif
#define NA 3

short own[NCH]; byte slot[C]; byte pay[NCH]; byte tail, head;
byte id[NA]; byte reg[NA]; bool dead[NA];
/* ghosts */
bool committed[6]; bool got[6]; byte order[12]; byte filled, senders = 2, reapers = NREAP; bool new_started, rx_done;

#if C == 1
#define REFS(k) ((S_REF(slot[0]) == k+1))
#else
#define REFS(k) ((S_REF(slot[0]) == k+1) + (S_REF(slot[1]) == k+1))
#endif
#ifdef MUTANT_NO_LAP
#undef LAP
#define LAP(p) 0
#define NEXT_LAP(l) (l)
#else
#define NEXT_LAP(l) ((l)+1)
#endif
#define GONE(d) (dead[d] && id[d] == ID(1,VACANT))

inline set_free(k, word) { assert(own[k] == word); assert(REFS(k) == 0); own[k] = O_NEXT(word, FREE, 0) }

/* messages m0 .. m0+n-1 */
proctype sender(byte att; byte m0; byte n; bool mortal)
{ byte k = 0, t = 0, w = 0, s = 0; short o = 0;
NEXT:
  if :: s >= n -> goto DIE :: else fi;
PICK:
  if
  :: atomic { O_ST(own[0]) == FREE -> k = 0; o = own[0] }
#if NCH > 1
  :: atomic { O_ST(own[1]) == FREE -> k = 1; o = own[1] }
#endif
  fi;
#ifndef MUTANT_REGISTER_LATE
  STEP( reg[att] = k+1 );
#endif
  STEP( if :: own[k] == o -> o = O_NEXT(o, MINE, att); own[k] = o :: else -> k = 0; o = 0; goto PICK fi );
#ifdef MUTANT_REGISTER_LATE
  STEP( reg[att] = k+1 );
#endif
  STEP( assert(own[k] == o); pay[k] = m0+s );
TAIL:
  STEP( t = tail );
  STEP( w = slot[AT(t)];
        if :: S_LAP(w) == LAP(t) && S_REF(w) == 0
           :: (S_LAP(w) == LAP(t) && S_REF(w) != 0) || S_LAP(w) > LAP(t) -> goto HELP
           :: else -> goto FULL
        fi );
#ifdef MUTANT_COMMIT_STORE
  STEP(
#else
  STEP( if :: slot[AT(t)] == w :: else -> goto TAIL fi;
#endif
        assert(own[k] == o); assert(REFS(k) == 0);
        slot[AT(t)] = SLOT(LAP(t), k+1); committed[m0+s] = true; order[filled] = m0+s; filled++; assert(tail+1 >= filled) );
#ifdef MUTANT_TAIL_STORE
  STEP( tail = t+1; assert(tail <= filled && tail+1 >= filled) );
#else
  STEP( if :: tail == t -> tail = t+1 :: else fi; assert(tail <= filled && tail+1 >= filled) );
#endif
  STEP( reg[att] = 0; s++; k = 0; t = 0; w = 0; o = 0; goto NEXT );
HELP:
#ifdef MUTANT_NO_HELP
  if :: atomic { tail != t -> goto TAIL } :: atomic { mortal -> dead[att] = true; goto DIE } fi;
#else
  STEP( if :: tail == t -> tail = t+1 :: else fi; goto TAIL );
#endif
FULL:
  if
  :: atomic { tail != t || S_LAP(slot[AT(t)]) >= LAP(t) -> goto TAIL }
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;
DIE:
  atomic { senders--; k = 0; t = 0; w = 0; s = 0; o = 0 }
}

proctype receiver(byte att; bool mortal)
{ byte h = 0, w = 0, k = 0, v = 0; short o = 0;
RECV:
  if
  :: atomic { h < filled }
  :: atomic { h == filled && senders == 0 && (!dead[0] || new_started) -> goto DIE }
  fi;
  STEP( w = slot[AT(h)]; if :: S_LAP(w) == LAP(h) && S_REF(w) != 0 -> k = S_REF(w)-1 :: else -> assert(false) fi );
  STEP( o = own[k]; v = pay[k]; assert(O_ST(o) == MINE) );
#ifdef MUTANT_SLOT_FIRST
  STEP( slot[AT(h)] = SLOT(NEXT_LAP(S_LAP(w)), 0); w = 0 );
#endif
#ifdef MUTANT_FREE_FIRST
  STEP( own[k] = O_NEXT(o, FREE, 0) );
  STEP( slot[AT(h)] = SLOT(NEXT_LAP(S_LAP(w)), 0); w = 0; assert(v == order[h] && !got[v]); got[v] = true; h++; head = h; goto RECV );
#endif
  STEP( assert(own[k] == o); o = O_NEXT(o, TAKEN, att); own[k] = o );                                  /* R4 */
  STEP( assert(own[k] == o); o = O_NEXT(o, DONE, att); own[k] = o;                                     /* ack */
        assert(committed[v] && !got[v]); assert(v == order[h]); got[v] = true );
  STEP( reg[att] = k+1 );
#ifndef MUTANT_SLOT_FIRST
  STEP( assert(slot[AT(h)] == w); slot[AT(h)] = SLOT(NEXT_LAP(S_LAP(w)), 0); w = 0 );                  /* R5 */
#endif
  STEP( h++; head = h );                                                                               /* R6 */
  STEP( set_free(k, o); k = 0; o = 0; v = 0 );                                                         /* R7 */
  STEP( reg[att] = 0; goto RECV );
DIE:
  atomic { rx_done = true; h = 0; w = 0; k = 0; v = 0; o = 0 }
}

proctype reaper(bool first)
{ byte k = 0, j = 0; short o = 0; bool found = false;
  if
  :: atomic { dead[0] }
  :: atomic { senders == 0 && !dead[0] -> goto END }
  fi;
  atomic { if :: id[0] == ID(1,LIVE) -> id[0] = ID(1,REAP) :: id[0] == ID(1,REAP) :: else -> goto END fi };
  atomic { k = reg[0]; if :: k == 0 -> goto VACATE :: else -> k-- fi };
  atomic { o = own[k]; if :: O_ST(o) == FREE || O_WHO(o) != 0 || O_ST(o) == DONE -> goto VACATE :: else fi };
#ifndef MUTANT_NO_SCAN
SCAN:
  atomic { if :: S_REF(slot[j]) == k+1 -> found = true :: else fi; j++; if :: j < C -> goto SCAN :: else fi };
#endif
  if :: found -> goto VACATE :: else fi;
#ifndef MUTANT_NO_ID_CHECK
  atomic { if :: id[0] != ID(1,REAP) -> goto END :: else fi };          /* authority after everything the decision rests on */
#endif
#ifdef MUTANT_INEXACT_FREE
  atomic { set_free(k, own[k]) };
#else
  atomic { if :: own[k] == o -> set_free(k, o) :: else fi };
#endif
VACATE:
  atomic { if :: id[0] == ID(1,REAP) -> id[0] = ID(1,VACANT) :: else fi };
  atomic { if :: id[0] == ID(1,VACANT) && !new_started -> id[0] = ID(2,LIVE); new_started = true; senders++; run sender(0, 4, NEW, false)
              :: else fi };
END:
  atomic { reapers--; k = 0; j = 0; o = 0; found = false }
}

/* sender 1 has its own reaper: one, and its attachment is not re-used */
proctype reaper1()
{ byte k = 0, j = 0; short o = 0; bool found = false;
  if :: atomic { dead[1] } :: atomic { senders == 0 && !dead[1] -> goto END } fi;
  atomic { id[1] = ID(1,REAP) };
  atomic { k = reg[1]; if :: k == 0 -> goto VACATE :: else -> k-- fi };
  atomic { o = own[k]; if :: O_ST(o) != MINE || O_WHO(o) != 1 -> goto VACATE :: else fi };
SCAN:
  atomic { if :: S_REF(slot[j]) == k+1 -> found = true :: else fi; j++; if :: j < C -> goto SCAN :: else fi };
  if :: !found -> atomic { if :: own[k] == o -> set_free(k, o) :: else fi } :: else fi;
VACATE:
  atomic { id[1] = ID(1,VACANT) };
END:
  atomic { reapers-- }
}

init { byte z;
  atomic {
    id[0] = ID(1,LIVE); id[1] = ID(1,LIVE); id[2] = ID(1,LIVE);
    run sender(0, 0, N0, true); run sender(1, 2, N1, D1); run receiver(2, false);
    run reaper(true);
#if NREAP > 1
    run reaper(false);
#endif
#if D1
    reapers++; run reaper1();
#endif
  };
  atomic { rx_done && senders == 0 && reapers == 0 ->
    z = 0; do :: z < NCH -> assert(O_ST(own[z]) == FREE && REFS(z) == 0); z++ :: else -> break od;
    z = 0; do :: z < 6 -> assert(committed[z] == got[z]); z++ :: else -> break od }
}
