/* takeover.pml: a receiver killed at any step, two helping reapers, the next incarnation in the same attachment.
 *
 * MODELS   in-order receive with an ack at once (own -> TAKEN, -> DONE, register, R5, R6, R7), the consumer word taken and cleared
 *          by reapers, an attachment that is reaped, re-used and used for the same mailbox again.
 * ACTORS   sender (attachment 1, N messages, lives), receiver 1 (attachment 2, incarnation 1), NREAP reapers, receiver 2
 *          (attachment 2, incarnation 2, started when the attachment became VACANT).
 * DIES     receiver 1 at every step; reapers, sender and receiver 2 may be stopped at any step for any time.
 * PROPERTY 1. Each committed message is acked exactly once, in order.  2. No chunk leaks, none is freed twice or while a slot
 *          names it.  3. A late reaper of incarnation 1 takes nothing from incarnation 2 (chunks, consumer word).  4. Nobody is stuck.
 * BOUNDS   C slots, NCH chunks, N messages, NREAP reapers.
 * MUTANTS  MUTANT_ID_CHECK_EARLY    reaper looks at the attachment word before the reads it decides on
 *          MUTANT_NO_ID_CHECK       ... not at all
 *          MUTANT_NO_CONS_CLEAR     reaper leaves the consumer word
 *          MUTANT_CONS_STORE        reaper stores the consumer word instead of CAS of the exact word
 *          MUTANT_NO_CONS_ID_CHECK  reaper clears the (exact) consumer word without looking at the attachment word again
 *          MUTANT_NO_REGISTER       R5 is not announced
 *          MUTANT_REGISTER_LATE     R5 is announced after it
 *          MUTANT_NO_DONE_REAP      reaper frees only chunks that are MINE or TAKEN by the dead
 *          MUTANT_NO_CATCH_UP       the next receiver does not pass slots whose lap is ahead of head
 *          MUTANT_NO_REOWN          the next receiver drops a chunk TAKEN by another (here: by the incarnation before) instead of
 *                                   taking it over
 */
#include "words.h"
#ifndef C
#define C 2
#endif
#ifndef NCH
#define NCH 2
#endif
#ifndef N
#define N 2
#endif
#ifndef NREAP
#define NREAP 2
#endif
#define NA 3
#define TOTAL_DONE (next == N)

short own[NCH]; byte slot[C]; byte pay[NCH]; byte tail, head, cons;
byte id[NA]; byte reg[NA]; bool dead[NA];
/* ghosts */
bool committed[N]; bool acked[N]; byte next; byte reapers = NREAP, procs = 2; bool started2;

#if C == 1
#define REFS(k) ((S_REF(slot[0]) == k+1))
#else
#define REFS(k) ((S_REF(slot[0]) == k+1) + (S_REF(slot[1]) == k+1))
#endif
inline set_free(k, word) { assert(own[k] == word); assert(REFS(k) == 0); own[k] = O_NEXT(word, FREE, 0) }

proctype sender(byte att; bool mortal)
{ byte k = 0, s = 0; short o = 0;
NEXT:
  if :: s >= N -> goto DIE :: else fi;
  if
  :: atomic { O_ST(own[0]) == FREE -> k = 0; o = own[0] }
#if NCH > 1
  :: atomic { O_ST(own[1]) == FREE -> k = 1; o = own[1] }
#endif
  fi;
  STEP( reg[att] = k+1 );
  STEP( assert(own[k] == o); o = O_NEXT(o, MINE, att); own[k] = o );         /* the only sender */
  STEP( assert(own[k] == o); pay[k] = s );
  if :: atomic { S_LAP(slot[AT(tail)]) >= LAP(tail) } fi;                     /* full: waits */
  STEP( assert(slot[AT(tail)] == SLOT(LAP(tail),0)); assert(own[k] == o && REFS(k) == 0);
        slot[AT(tail)] = SLOT(LAP(tail), k+1); committed[s] = true );
  STEP( tail++; s++; k = 0; o = 0; goto NEXT );
DIE:
  atomic { procs--; k = 0; s = 0; o = 0 }
}

proctype receiver(byte att; byte inc; bool mortal)
{ byte c = 0, me = 0, h = 0, w = 0, k = 0, v = 0; short o = 0;
TAKE:
  if
  :: atomic { true -> c = cons }
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;
  if :: C_ATT(c) != NONE -> assert(inc == 2); if :: atomic { cons != c -> goto TAKE } fi :: else fi;   /* busy */
  STEP( if :: cons == c -> me = CONS(C_VER(c)+1, att); cons = me; c = 0 :: else -> c = 0; goto TAKE fi );
  STEP( h = head );
RECV:
  if
  :: atomic { TOTAL_DONE && S_LAP(slot[AT(h)]) <= LAP(h) && S_REF(slot[AT(h)]) == 0 -> goto GIVE }
  :: atomic { S_REF(slot[AT(h)]) != 0 || S_LAP(slot[AT(h)]) > LAP(h) }
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;
  STEP( w = slot[AT(h)];
        if :: S_LAP(w) > LAP(h) -> 
#ifdef MUTANT_NO_CATCH_UP
              if :: atomic { S_LAP(slot[AT(h)]) <= LAP(h) -> w = 0; goto RECV } fi     /* waits for ever */
#else
              goto ADVHEAD
#endif
           :: S_LAP(w) == LAP(h) && S_REF(w) != 0 -> k = S_REF(w)-1
           :: else -> assert(false)
        fi );
  STEP( o = own[k]; v = pay[k] );
  STEP( if :: slot[AT(h)] != w -> assert(cons != me); goto DIE :: else fi; assert(O_ST(o) != FREE);
        if :: O_ST(o) == DONE -> goto ADV :: else fi );
#ifdef MUTANT_NO_REOWN
  if :: O_ST(o) == TAKEN && inc == 2 -> next++; goto ADV2 :: else fi;
#endif
  STEP( if :: cons != me -> assert(false) :: else fi );                      /* nobody steals here */
  STEP( assert(own[k] == o); o = O_NEXT(o, TAKEN, att); own[k] = o );        /* R4 */
  STEP( assert(own[k] == o); o = O_NEXT(o, DONE, att); own[k] = o;           /* ack */
        assert(committed[v] && !acked[v] && v == next); acked[v] = true; next++ );
ADV:
#if !defined(MUTANT_NO_REGISTER) && !defined(MUTANT_REGISTER_LATE)
  STEP( reg[att] = k+1 );
#endif
ADV2:
  STEP( assert(slot[AT(h)] == w); slot[AT(h)] = SLOT(S_LAP(w)+1, 0); v = 0 );       /* R5 */
#ifdef MUTANT_REGISTER_LATE
  STEP( reg[att] = k+1 );
#endif
ADVHEAD:
  STEP( MAX_INTO(head, h+1); h++; w = 0; if :: o == 0 -> goto RECV :: else fi );    /* R6 */
  STEP( if :: own[k] == o -> set_free(k, o) :: else fi; k = 0; o = 0; v = 0 );      /* R7 */
  STEP( reg[att] = 0; goto RECV );
GIVE:
  STEP( assert(cons == me); cons = CONS(C_VER(me)+1, NONE) );
DIE:
  atomic { procs--; c = 0; me = 0; h = 0; w = 0; k = 0; v = 0; o = 0 }
}

proctype reaper()
{ byte k = 0, j = 0, c = 0; short o = 0; bool found = false;
  if
  :: atomic { dead[2] }
  :: atomic { procs == 0 && !dead[2] -> goto END }
  fi;
  atomic { if :: id[2] == ID(1,LIVE) -> id[2] = ID(1,REAP) :: id[2] == ID(1,REAP) :: else -> goto END fi };
  atomic { k = reg[2]; if :: k == 0 -> goto WORD :: else -> k-- fi };
#ifdef MUTANT_ID_CHECK_EARLY
  atomic { if :: id[2] != ID(1,REAP) -> goto END :: else fi };
#endif
#ifdef MUTANT_NO_DONE_REAP
  atomic { o = own[k]; if :: (O_ST(o) != MINE && O_ST(o) != TAKEN) || O_WHO(o) != 2 -> goto WORD :: else fi };
#else
  atomic { o = own[k]; if :: O_ST(o) == FREE || (O_ST(o) != DONE && O_WHO(o) != 2) -> goto WORD :: else fi };
#endif
SCAN:
  atomic { if :: S_REF(slot[j]) == k+1 -> found = true :: else fi; j++; if :: j < C -> goto SCAN :: else fi };
  if :: found -> goto WORD :: else fi;
#if !defined(MUTANT_NO_ID_CHECK) && !defined(MUTANT_ID_CHECK_EARLY)
  atomic { if :: id[2] != ID(1,REAP) -> goto END :: else fi };
#endif
  atomic { if :: own[k] == o -> assert(started2 -> O_WHO(o) != 2 : true); set_free(k, o) :: else fi };
WORD:
  k = 0; j = 0; o = 0; found = false;
#ifndef MUTANT_NO_CONS_CLEAR
  atomic { c = cons };
  if
  :: C_ATT(c) == 2 ->
#ifndef MUTANT_NO_CONS_ID_CHECK
       atomic { if :: id[2] != ID(1,REAP) -> goto END :: else fi };
#endif
#ifdef MUTANT_CONS_STORE
       atomic { assert(!started2 || C_ATT(cons) == NONE); cons = CONS(C_VER(c)+1, NONE) }
#else
       atomic { if :: cons == c -> assert(!started2); cons = CONS(C_VER(c)+1, NONE) :: else fi }
#endif
  :: else
  fi;
#endif
  c = 0;
  atomic { if :: id[2] == ID(1,REAP) -> id[2] = ID(2,LIVE); started2 = true; procs++; run receiver(2, 2, false)    /* VACANT, re-used */
              :: else fi };
END:
  atomic { reapers--; k = 0; j = 0; c = 0; o = 0; found = false }
}

init { byte z;
  atomic {
    id[2] = ID(1,LIVE); cons = CONS(0,NONE);
    run sender(1, false); run receiver(2, 1, true);
    z = 0; do :: z < NREAP -> run reaper(); z++ :: else -> break od; z = 0 };
  atomic { procs == 0 && reapers == 0 ->
    z = 0; do :: z < NCH -> assert(O_ST(own[z]) == FREE && REFS(z) == 0); z++ :: else -> break od;
    z = 0; do :: z < N -> assert(acked[z]); z++ :: else -> break od }
}
