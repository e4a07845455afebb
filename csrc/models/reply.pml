/* reply.pml: the reply ring of an attachment, over two lives of its slot.
 *
 * MODELS   publish of an answer with the asker's attachment word as authority (csrc/msg/outbox.c, csrc/msg/ring.c), drain_replies
 *          of csrc/agent/bus_request.c, reap_chunk and reap_replies of csrc/agent/reap.c with cfn_ring_retire_lap and
 *          cfn_ring_retire, cfn_recycle under LEAVING by the holder of the life byte (who leaves, or joins where a dead one was),
 *          join of csrc/agent/attach.c.
 * ACTORS   asker in attachment 0, life 1, and the process that has it after that, life 2; answerers 1 and 2 (attachments 1 and
 *          2, N1 answers for life 1, N2 for life 2, which it learns of when it is LIVE); reaper 4, which lives, and reaper 3
 *          (NREAP = 2; may leave after any pass).  STALE: a reaper more, of a life before life 1, which stopped before it looked at
 *          rlap and goes on at any time (in attachment 3).
 * DIES     life 1 (D0; D0 = 2: only between two answers), life 2 (DJ) before it is LIVE, either of them while it leaves (DJ),
 *          answerer 1 (D1), reaper 3 (DR), at every step; everybody may be stopped for any time.  LEAVE: a life may leave between
 *          two answers.  JOIN: the next process may take the life byte before anybody has called the slot VACANT, and then
 *          recycles it itself.
 * PROPERTY 1. An answer is handed only to the life it was for, at most once; an answer for a life that stays to the end, exactly once.
 *          2. A commit falls into the ring of the life it was meant for; a reaper takes out only answers of the life it reaps.
 *          3. A chunk is in one slot at most, never freed while a slot names it, never twice; at the end all are FREE, though any
 *             of them was announced by who died.  No other actor empties the slot or takes the answer of a living asker.
 *          4. The lap of a slot, head and tail never fall; nobody is stuck.
 * BOUNDS   C slots, NCH chunks, N1 and N2 answers, two lives, one answerer for each.
 * MUTANTS  MUTANT_NO_ID_CHECK       publish: no look at the attachment word after the slot load; MUTANT_ID_CHECK_EARLY before it
 *          MUTANT_NO_DRAIN_RECHECK  drain: slot not loaded again after own
 *          MUTANT_DRAIN_SLOT_FIRST  drain: slot emptied before own leaves MINE; MUTANT_DRAIN_FREE_FIRST chunk freed before it
 *          MUTANT_NO_DRAIN_REGISTER drain: the chunk is not announced
 *          MUTANT_NO_RETIRE         reaper does not empty the ring
 *          MUTANT_NO_AUTH           reaper: no look at the attachment word before it takes a slot; MUTANT_AUTH_EARLY before its loads
 *          MUTANT_LAP_NO_AUTH       ... before it sets rlap
 *          MUTANT_NO_TAG            rlap of an earlier life is used again
 *          MUTANT_NO_AGREE          every reaper takes its own lap
 *          MUTANT_LAP0, MUTANT_LAP1 rlap = lap(tail), lap(tail)+1
 *          MUTANT_NO_SLOT_RECHECK   reaper: slot not loaded again after own
 *          MUTANT_NO_REGISTER       reaper: the chunk it takes out is not announced
 *          MUTANT_SLOT_FIRST        reaper empties the slot before it owns the chunk
 *          MUTANT_LOOK_AGAIN        reaper that lost the slot after it had taken the chunk only looks again
 *          MUTANT_CURSOR_STORE      head and tail stored, not CAS-max
 *          MUTANT_REAP_NO_ID        reap_chunk: attachment word not looked at before the CAS
 *          MUTANT_NO_SCAN           reap_chunk: the ring is not looked at
 *          MUTANT_NO_JOINER_CELL    the joiner's announcement is not looked at by who reaps it
 *          MUTANT_LEAVE_AS_REAP     the holder of the life byte recycles under REAP, as helpers do
 */
#include "words.h"
#ifndef C
#define C 1
#endif
#ifndef NCH
#define NCH 2
#endif
#ifndef N1
#define N1 1
#endif
#ifndef N2
#define N2 1
#endif
#ifndef D0
#define D0 1
#endif
#ifndef D1
#define D1 0
#endif
#ifndef DJ
#define DJ 0
#endif
#ifndef DR
#define DR 0
#endif
#ifndef NREAP
#define NREAP 1
#endif
#ifndef LEAVE
#define LEAVE 0
#endif
#ifndef STALE
#define STALE 0
#endif
#ifndef JOIN
#define JOIN 0
#endif
#define NA 5
#define JOINING   4
#define LEAVING   5
#define AID(i,s)  ((i)*8+(s))
#define A_INC(x)  ((x)/8)
#define A_ST(x)   ((x)%8)

short own[NCH]; byte slot[C]; byte pay[NCH]; byte tail, head; short rlap;
byte id[NA]; byte reg[NA]; byte joiner; bool dead[NA];       /* joiner: the cell JOINER of attachment 0; dead[0]: its life byte is free */
/* ghosts; answers 0 and 1 are for life 1, 2 and 3 for life 2 */
bool committed[4]; bool got[4]; byte busy = 4+NREAP+STALE; byte answerers = 2; bool no_life_2;

#define LIFE(m) ((m)/2+1)
#if C == 1
#define REFS(k) ((S_REF(slot[0]) == k+1))
#else
#define REFS(k) ((S_REF(slot[0]) == k+1) + (S_REF(slot[1]) == k+1))
#endif
#if NCH == 1
#define NONE_FREE (O_ST(own[0]) != FREE)
#else
#define NONE_FREE (O_ST(own[0]) != FREE && O_ST(own[1]) != FREE)
#endif
#define THERE(p) (S_LAP(slot[AT(p)]) > LAP(p) || (S_LAP(slot[AT(p)]) == LAP(p) && S_REF(slot[AT(p)]) != 0))
#define TO_REAP(x) (dead[x] && A_ST(id[x]) != VACANT)

inline set_slot(i, new) { assert(S_LAP(new) >= S_LAP(slot[i])); slot[i] = new }
inline set_free(k, word) { assert(own[k] == word); assert(REFS(k) == 0); own[k] = O_NEXT(word, FREE, 0) }
#ifdef MUTANT_CURSOR_STORE
#define RAISE(x,v) assert((x) <= (v)); x = v
#else
#define RAISE(x,v) MAX_INTO(x,v)
#endif

/* n answers, m0 and following, for the life that `expect` names */
proctype answerer(byte att; byte m0; byte n; byte expect; bool mortal)
{ byte k = 0, t = 0, w = 0, s = 0; short o = 0;
  if
  :: atomic { expect == AID(1,LIVE) || (A_INC(id[0]) == 2 && A_ST(id[0]) != JOINING) -> skip }      /* it has received the request */
  :: atomic { no_life_2 -> goto DIE }
  fi;
NEXT:
  if :: s >= n -> goto DIE :: else fi;
PICK:
  if
  :: atomic { O_ST(own[0]) == FREE -> k = 0; o = own[0] }
#if NCH > 1
  :: atomic { O_ST(own[1]) == FREE -> k = 1; o = own[1] }
#endif
  :: atomic { NONE_FREE -> goto DIE }                           /* gives up */
  fi;
  STEP( reg[att] = k+1 );
  STEP( if :: own[k] == o -> o = O_NEXT(o, MINE, att); own[k] = o :: else -> k = 0; o = 0; goto PICK fi );
  STEP( assert(own[k] == o); pay[k] = m0+s );
TAIL:
#ifdef MUTANT_ID_CHECK_EARLY
  STEP( if :: id[0] != expect -> goto DROP :: else fi );
#endif
  STEP( t = tail );
  STEP( w = slot[AT(t)];
        if :: S_LAP(w) == LAP(t) && S_REF(w) == 0
           :: (S_LAP(w) == LAP(t) && S_REF(w) != 0) || S_LAP(w) > LAP(t) -> w = 0; goto HELP
           :: else -> w = 0; goto FULL
        fi );
#if !defined(MUTANT_NO_ID_CHECK) && !defined(MUTANT_ID_CHECK_EARLY)
  STEP( if :: id[0] != expect -> goto DROP :: else fi );        /* AFTER the slot */
#endif
  STEP( if :: slot[AT(t)] == w ->                               /* commit */
             assert(own[k] == o); assert(REFS(k) == 0); assert(A_INC(id[0]) == A_INC(expect) && A_ST(id[0]) != VACANT);
             slot[AT(t)] = SLOT(LAP(t), k+1); committed[m0+s] = true; w = 0
           :: else -> w = 0; goto TAIL fi );
  STEP( if :: tail == t -> tail = t+1 :: else fi );
  STEP( reg[att] = 0; s++; k = 0; t = 0; o = 0; goto NEXT );
HELP:
  STEP( if :: tail == t -> tail = t+1 :: else fi; goto TAIL );
FULL:
  if
  :: atomic { tail != t || S_LAP(slot[AT(t)]) >= LAP(t) -> goto TAIL }
  :: atomic { goto DROP }                                       /* the asker is gone, or it gives up */
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;
DROP:
  STEP( set_free(k, o) );
  STEP( reg[att] = 0 );
DIE:
  atomic { answerers--; busy--; k = 0; t = 0; w = 0; s = 0; o = 0 }
}

#define REAP_VARS byte d = 0, word = 0, k = 0, i = 0, w = 0, lap = 0, pass = 0; short o = 0, r = 0; bool emptied = false

/* Recycles attachment d under the authority `word`, by attachment me, which announces in `cell`; goes to LOST or falls through. */
inline reap_all(me, cell) {
  pass = 0;
CHUNK:
  STEP( if :: pass == 0 -> k = reg[d] :: else -> k = joiner fi; if :: k == 0 -> goto NEXT_CELL :: else -> k-- fi );
LOOK:
  STEP( o = own[k]; assert(O_ST(o) != DONE); if :: O_ST(o) == FREE || O_WHO(o) != d -> k = 0; o = 0; goto NEXT_CELL :: else fi );
#ifndef MUTANT_NO_SCAN
  i = 0;
SCAN:
  STEP( if :: S_REF(slot[i]) == k+1 -> k = 0; o = 0; i = 0; goto NEXT_CELL :: else fi; i++; if :: i < C -> goto SCAN :: else -> i = 0 fi );
#endif
#ifndef MUTANT_REAP_NO_ID
  STEP( if :: id[d] != word -> goto LOST :: else fi );
#endif
  STEP( if :: own[k] == o -> assert(A_INC(id[d]) == A_INC(word) && A_ST(id[d]) != VACANT); set_free(k, o); k = 0; o = 0
           :: else -> o = 0; goto LOOK fi );
NEXT_CELL:
#ifndef MUTANT_NO_JOINER_CELL
  if :: d == 0 && pass == 0 -> pass = 1; goto CHUNK :: else -> pass = 0 fi;
#endif
#ifdef MUTANT_NO_RETIRE
  goto VACATE;
#endif
  if :: d != 0 -> goto VACATE :: else fi;
AGREE:
#ifdef MUTANT_NO_AGREE
  STEP( lap = LAP(tail)+2 );
#else
  STEP( r = rlap; lap = R_LAP(r);
#ifdef MUTANT_NO_TAG
        if :: r != 0 -> r = 0; goto SLOTS :: else fi );
#else
        if :: R_TAG(r) == A_INC(word) -> r = 0; goto SLOTS :: else fi );
#endif
#ifdef MUTANT_LAP0
  STEP( MAX_INTO(lap, LAP(tail)) );
#else
#ifdef MUTANT_LAP1
  STEP( MAX_INTO(lap, LAP(tail)+1) );
#else
  STEP( MAX_INTO(lap, LAP(tail)+2) );
#endif
#endif
#ifndef MUTANT_LAP_NO_AUTH
  STEP( if :: id[d] != word -> goto LOST :: else fi );
#endif
  STEP( if :: rlap == r -> rlap = RLAP(A_INC(word), lap); r = 0 :: else -> r = 0; goto AGREE fi );
#endif
SLOTS:
  i = 0;
SLOT1:
  w = 0; k = 0; o = 0; emptied = false;
  if :: i >= C -> i = 0; goto CURSORS :: else fi;
  STEP( w = slot[i]; if :: S_LAP(w) >= lap -> i++; goto SLOT1 :: else fi );
#ifdef MUTANT_AUTH_EARLY
  STEP( if :: id[d] != word -> goto LOST :: else fi );
#endif
  if
  :: S_REF(w) != 0 ->
       k = S_REF(w)-1;
       STEP( o = own[k] );
#ifndef MUTANT_NO_SLOT_RECHECK
       STEP( if :: slot[i] != w -> goto SLOT1 :: else fi; assert(O_ST(o) != FREE) )
#endif
  :: else
  fi;
#if !defined(MUTANT_NO_AUTH) && !defined(MUTANT_AUTH_EARLY)
  STEP( if :: id[d] != word -> goto LOST :: else fi );          /* LAST */
#endif
  if
  :: S_REF(w) == 0 -> STEP( if :: slot[i] == w -> set_slot(i, SLOT(lap, 0)) :: else fi; goto SLOT1 )
  :: else
  fi;
#ifdef MUTANT_NO_SLOT_RECHECK
  if :: O_ST(o) == FREE -> goto SLOT1 :: else fi;
#endif
#ifndef MUTANT_NO_REGISTER
  STEP( cell = k+1 );
#endif
#ifdef MUTANT_SLOT_FIRST
  STEP( if :: slot[i] == w -> set_slot(i, SLOT(lap, 0)) :: else -> goto SLOT1 fi );
  STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, me); own[k] = o :: else -> goto SLOT1 fi );
#else
  STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, me); own[k] = o; assert(LIFE(pay[k]) == A_INC(word)) :: else -> goto SLOT1 fi );
#ifdef MUTANT_LOOK_AGAIN
  STEP( if :: slot[i] == w -> set_slot(i, SLOT(lap, 0)) :: else -> goto SLOT1 fi );
#else
  STEP( if :: slot[i] == w -> set_slot(i, SLOT(lap, 0)); emptied = true :: else fi );
#endif
#endif
  STEP( if :: own[k] == o -> set_free(k, o) :: else fi; if :: !emptied -> goto SLOT1 :: else fi );
  STEP( cell = 0; goto SLOT1 );
CURSORS:
  STEP( RAISE(tail, lap*C) );
  STEP( RAISE(head, lap*C); lap = 0 );
VACATE:
  STEP( if :: id[d] == word -> id[d] = AID(A_INC(word),VACANT) :: else -> goto LOST fi )
}

/* a life of attachment 0; life 2 begins when the life byte is free */
proctype asker(byte life; bool mortal)
{ byte h = 0; byte att = 0; bool joined = false; REAP_VARS;
  if :: life == 1 -> joined = true; goto DRAIN :: else fi;
  if
#if JOIN
  :: atomic { dead[0] -> dead[0] = false }
#else
  :: atomic { dead[0] && A_ST(id[0]) == VACANT -> dead[0] = false }
#endif
  fi;
RECYCLE:
  STEP( word = id[0];
#ifdef MUTANT_LEAVE_AS_REAP
        if :: A_ST(word) == VACANT -> goto JOINS :: else fi );
  STEP( if :: id[0] == word -> word = AID(A_INC(word),REAP); id[0] = word :: else -> goto RECYCLE fi );
#else
        if :: A_ST(word) == VACANT -> goto JOINS :: else fi );
  STEP( if :: id[0] == word -> word = AID(A_INC(word),LEAVING); id[0] = word :: else -> goto RECYCLE fi );
#endif
  reap_all(att, joiner);
  goto GONE;
LOST:
#ifdef MUTANT_LEAVE_AS_REAP
  STEP( joiner = 0; w = 0; k = 0; i = 0; lap = 0; o = 0; r = 0; emptied = false; goto RECYCLE );
#else
  assert(false);                                                /* nobody takes it from the holder of the life byte */
#endif
GONE:
  w = 0; k = 0; i = 0; lap = 0; o = 0; r = 0; pass = 0; emptied = false;
  if :: joined -> atomic { dead[0] = true; goto END } :: else fi;
JOINS:
  word = 0;
  STEP( assert(id[0] == AID(1,VACANT)); id[0] = AID(2,JOINING) );
  STEP( reg[0] = 0 );
  STEP( joiner = 0 );
  STEP( assert(id[0] == AID(2,JOINING)); id[0] = AID(2,LIVE); joined = true; mortal = false );

DRAIN:
  if
  :: atomic { THERE(head) -> skip }
  :: atomic { life == 2 && answerers == 0 && !THERE(head) -> goto END }
  :: atomic { life == 1 && LEAVE == 0 && D0 == 0 && answerers == 0 && !THERE(head) -> goto END }
#if LEAVE
  :: atomic { mortal = (DJ != 0); goto RECYCLE }
#endif
#if D0 == 2
  :: atomic { life == 1 -> dead[0] = true; goto END }
#endif
  :: atomic { mortal -> dead[0] = true; goto END }
  fi;
  STEP( h = head );
  STEP( w = slot[AT(h)];
        if :: S_LAP(w) > LAP(h) -> w = 0; goto HEAD
           :: S_LAP(w) < LAP(h) || (S_LAP(w) == LAP(h) && S_REF(w) == 0) -> w = 0; h = 0; goto DRAIN
           :: else -> k = S_REF(w)-1
        fi );
  STEP( o = own[k] );
#ifndef MUTANT_NO_DRAIN_RECHECK
  STEP( if :: slot[AT(h)] != w -> w = 0; h = 0; k = 0; o = 0; goto DRAIN :: else fi; assert(O_ST(o) == MINE || O_ST(o) == TAKEN) );
#endif
#ifndef MUTANT_NO_DRAIN_REGISTER
  STEP( reg[0] = k+1 );
#endif
#ifdef MUTANT_DRAIN_SLOT_FIRST
  STEP( assert(slot[AT(h)] == w); set_slot(AT(h), SLOT(S_LAP(w)+1, 0)) );
#endif
  STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, 0); own[k] = o;
             assert(LIFE(pay[k]) == life && committed[pay[k]] && !got[pay[k]]); got[pay[k]] = true     /* handed to who asked */
           :: else -> assert(false) fi );
#ifdef MUTANT_DRAIN_FREE_FIRST
  STEP( set_free(k, o) );
#endif
#ifndef MUTANT_DRAIN_SLOT_FIRST
  STEP( if :: slot[AT(h)] == w -> set_slot(AT(h), SLOT(S_LAP(w)+1, 0)); w = 0 :: else -> assert(false) fi );
#endif
HEAD:
  STEP( MAX_INTO(head, h+1); h = 0; if :: o == 0 -> goto DRAIN :: else fi );
  STEP( if :: own[k] == o -> set_free(k, o) :: else -> assert(false) fi );
  STEP( reg[0] = 0; k = 0; o = 0; w = 0; goto DRAIN );
DIE:
  atomic { if :: life == 2 && !joined -> no_life_2 = true :: else fi };
END:
  atomic { busy--; h = 0; joined = false; d = 0; word = 0; k = 0; i = 0; w = 0; lap = 0; pass = 0; o = 0; r = 0; emptied = false }
}

proctype reaper(byte att; bool mortal; bool leaves; bool stale)
{ REAP_VARS;
  if :: stale -> word = AID(0,REAP); goto AGREE :: else fi;
NEXT:
  if
  :: atomic { TO_REAP(0) -> d = 0; word = id[0] }
#if D1
  :: atomic { TO_REAP(1) -> d = 1; word = id[1] }
#endif
#if DR
  :: atomic { TO_REAP(3) -> d = 3; word = id[3] }
#endif
  :: atomic { busy == 1 && !leaves && !TO_REAP(0) && !TO_REAP(1) && !TO_REAP(3) -> goto DIE }
  :: atomic { leaves -> goto DIE }
  fi;
  STEP( if :: A_ST(word) == REAP
           :: else -> if :: id[d] == word -> id[d] = AID(A_INC(word),REAP) :: else fi; word = AID(A_INC(word),REAP) fi );
  STEP( if :: id[d] != word -> goto LOST :: else fi );
  reap_all(att, reg[att]);
  goto OVER;
LOST:
  STEP( reg[att] = 0 );
OVER:
  if :: stale -> goto DIE :: else fi;
  d = 0; word = 0; w = 0; k = 0; i = 0; lap = 0; pass = 0; o = 0; r = 0; emptied = false;
  goto NEXT;
DIE:
  atomic { busy--; d = 0; word = 0; k = 0; i = 0; w = 0; lap = 0; pass = 0; o = 0; r = 0; emptied = false }
}

init { byte z;
  atomic {
    z = 0; do :: z < NA -> id[z] = AID(1,LIVE); z++ :: else -> break od; z = 0;
    run asker(1, D0 == 1); run asker(2, DJ);
    run answerer(1, 0, N1, AID(1,LIVE), D1); run answerer(2, 2, N2, AID(2,LIVE), false);
    run reaper(4, false, false, false);
#if NREAP > 1
    run reaper(3, DR, true, false);
#endif
#if STALE
    run reaper(3, false, true, true);
#endif
  };
  atomic { busy == 0 ->
    z = 0; do :: z < NCH -> assert(O_ST(own[z]) == FREE && REFS(z) == 0); z++ :: else -> break od;
    z = 0; do :: z < 4 -> assert(!(id[0] == AID(LIFE(z),LIVE) && committed[z]) || got[z]); z++ :: else -> break od;
    z = 0 }
}
