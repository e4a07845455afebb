/* consumer.pml: consumers in lease mode on one mailbox.
 *
 * MODELS   consumer word taken, given back (also with unacked leases), taken over after the holder died, stolen from a living
 *          holder; receive with leases (slot, own, slot again, consumer word last, R4 also from TAKEN by anyone, seen, own again);
 *          ack in any order -> DONE; head move over the DONE prefix (register, R5, R6, R7); reapers that look at the dead one's
 *          register and at the consumer word only; re-use of a dead sender's attachment (SREUSE); re-use of chunks.
 * ACTORS   senders 0 and 1 (N0, N1 messages; die with D0, D1), consumers 2 and 3 (die with D2, D3; 3 steals with STEAL; R2, R3 =
 *          messages each may be handed), NREAP reapers (the second may stop for good after any pass).
 * DIES     whoever has D = 1, at every step; everybody may be stopped for any time at any step.
 * PROPERTY 1. Each committed message is acked once, or still stands in the ring unacked (no loss, no duplicate ack).
 *          2. A message is handed out only by R4 of a consumer that held the consumer word after the last load; the ack of a
 *             consumer that is not fenced succeeds.
 *          3. At most one delivery of a message is without the redelivered flag.
 *          4. A chunk is in one slot at most, FREE exactly if in none (at the end), never freed while a slot names it; plain
 *             stores go only into MINE(me); no leak after the dead were reaped; no consumer word names a dead attachment then.
 *          5. If nobody died: no DONE chunk stands at head at the end.
 * BOUNDS   C = 2 slots, NCH chunks, LEASES per consumer (1 or 2), N0, N1, R2, R3.
 * MUTANTS  MUTANT_DROP_TAKEN        a chunk TAKEN by another is dropped, not taken over
 *          MUTANT_R5_STORE          R5 by store
 *          MUTANT_HEAD_STORE        R6 by store
 *          MUTANT_REAP_BY_HOLDER    reaper looks a chunk up in the ring only if the dead one holds its consumer word
 *          MUTANT_ID_CHECK_EARLY, MUTANT_NO_ID_CHECK   reaper: attachment word looked at before its reads, or not at all
 *          MUTANT_DONE_NOT_SKIPPED  a receiver takes DONE chunks over
 *          MUTANT_NO_SLOT_RECHECK   slot not loaded again after own
 *          MUTANT_NO_CONS_CHECK     consumer word not looked at before R4
 *          MUTANT_SEEN_EARLY        redelivered decided by a seen that was loaded at the take
 *          MUTANT_SEEN_STORE        seen loaded and stored, not CAS-max
 *          MUTANT_NO_OWN_RECHECK    own not loaded again before the hand-out
 *          MUTANT_COUNT_STORE       plain store of a delivery count into the meta after R4
 *          MUTANT_NO_DONE_REAP      reaper frees only what is MINE or TAKEN by the dead
 *          MUTANT_NO_REGISTER       R5 is not announced
 *          MUTANT_DONE_REOWNED      the head move re-owns a DONE chunk before R5
 *          MUTANT_NO_CONS_CLEAR     reaper leaves the consumer word
 *          MUTANT_ACK_NO_MOVE       the ack does not move the head
 */
#include "words.h"
#define C 2
#ifndef NCH
#define NCH 2
#endif
#ifndef N0
#define N0 1
#endif
#ifndef N1
#define N1 1
#endif
#ifndef D0
#define D0 0
#endif
#ifndef D1
#define D1 0
#endif
#ifndef D2
#define D2 1
#endif
#ifndef D3
#define D3 0
#endif
#ifndef STEAL
#define STEAL 0
#endif
#ifndef R2
#define R2 2
#endif
#ifndef R3
#define R3 2
#endif
#ifndef LEASES
#define LEASES 2
#endif
#ifndef NREAP
#define NREAP 1
#endif
#ifndef SREUSE
#define SREUSE 0
#endif
#define NA 4

short own[NCH]; byte slot[C]; byte pay[NCH]; byte tail, head, seen, cons;
byte id[NA]; byte reg[NA]; bool dead[NA];
/* ghosts */
bool committed[6]; byte acked[6]; byte fresh[6]; byte at_pos[8]; byte senders = 2+SREUSE, consumers = 2, reapers = NREAP;

#define REFS(k) ((S_REF(slot[0]) == k+1) + (S_REF(slot[1]) == k+1))
inline set_free(k, word) { assert(own[k] == word); assert(REFS(k) == 0); own[k] = O_NEXT(word, FREE, 0) }

proctype sender(byte att; byte m0; byte n; bool mortal)
{ byte k = 0, t = 0, w = 0, s = 0; short o = 0;
NEXT:
  if :: s >= n -> goto DIE :: else fi;
PICK:
  if
  :: atomic { O_ST(own[0]) == FREE -> k = 0; o = own[0] }
  :: atomic { O_ST(own[1]) == FREE -> k = 1; o = own[1] }
#if NCH > 2
  :: atomic { O_ST(own[2]) == FREE -> k = 2; o = own[2] }
#endif
  :: atomic { consumers == 0 -> goto DIE }
  fi;
  STEP( reg[att] = k+1 );
  STEP( if :: own[k] == o -> o = O_NEXT(o, MINE, att); own[k] = o :: else -> k = 0; o = 0; goto PICK fi );
  STEP( assert(own[k] == o); pay[k] = m0+s );
TAIL:
  STEP( t = tail );
  STEP( w = slot[AT(t)];
        if :: S_LAP(w) == LAP(t) && S_REF(w) == 0
           :: (S_LAP(w) == LAP(t) && S_REF(w) != 0) || S_LAP(w) > LAP(t) -> goto HELP
           :: else -> goto FULL
        fi );
  STEP( if :: slot[AT(t)] == w :: else -> goto TAIL fi;
        assert(own[k] == o); assert(REFS(k) == 0);
        slot[AT(t)] = SLOT(LAP(t), k+1); committed[m0+s] = true; at_pos[t] = m0+s );
  STEP( if :: tail == t -> tail = t+1 :: else fi );
  STEP( reg[att] = 0; s++; k = 0; t = 0; w = 0; o = 0; goto NEXT );
HELP:
  STEP( if :: tail == t -> tail = t+1 :: else fi; goto TAIL );
FULL:
  if
  :: atomic { tail != t || S_LAP(slot[AT(t)]) >= LAP(t) -> goto TAIL }
  :: atomic { consumers == 0 -> set_free(k, o); goto DIE }                    /* gives up */
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;
DIE:
  atomic { senders--; k = 0; t = 0; w = 0; s = 0; o = 0 }
}

/* b = messages it may be handed */
proctype consumer(byte att; byte b; bool steal; bool mortal)
{ byte c = 0, me = 0, h = 0, w = 0, k = 0, cur = 0, v = 0; short o = 0;
  short lease[LEASES]; byte lk[LEASES];                         /* exact own word handed out (0 = none), its chunk */
  bool redelivered = false;
#ifdef MUTANT_SEEN_EARLY
  byte seen0 = 0;
#endif
TAKE:
  STEP( c = cons; if :: C_ATT(c) != NONE && !dead[C_ATT(c)] && !steal -> goto BUSY :: else fi );
  STEP( if :: cons == c -> me = CONS(C_VER(c)+1, att); cons = me; c = 0 :: else -> c = 0; goto TAKE fi );
  goto TOOK;
BUSY:
  if :: atomic { cons != c || dead[C_ATT(c)] -> c = 0; goto TAKE } :: atomic { goto DIE } fi;
TOOK:
#ifdef MUTANT_SEEN_EARLY
  STEP( cur = head );
  STEP( seen0 = seen );
#else
  STEP( cur = head );
#endif
LOOP:
  if
#if LEASES > 1
  :: b > 0 && (lease[0] == 0 || lease[1] == 0) -> goto RECV
  :: atomic { lease[1] != 0 -> o = lease[1]; k = lk[1]; lease[1] = 0; lk[1] = 0; goto ACK }
#else
  :: b > 0 && lease[0] == 0 -> goto RECV
#endif
  :: atomic { lease[0] != 0 -> o = lease[0]; k = lk[0]; lease[0] = 0; lk[0] = 0; goto ACK }
  :: atomic { cons == me -> cons = CONS(C_VER(me)+1, NONE); goto DIE }        /* gives back, even with unacked leases */
  :: atomic { cons != me -> goto DIE }                                        /* finds itself fenced */
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;

RECV:
  STEP( w = slot[AT(cur)];                                                    /* R2 */
        if :: S_LAP(w) > LAP(cur) -> cur++; w = 0; goto RECV
           :: S_LAP(w) < LAP(cur) || (S_LAP(w) == LAP(cur) && S_REF(w) == 0) -> w = 0; if :: b = 0 :: senders > 0 fi; goto LOOP
           :: else -> k = S_REF(w)-1
        fi );
  STEP( o = own[k]; v = pay[k] );                                             /* R3: the copy counts only if R4 succeeds */
  STEP(
#ifndef MUTANT_NO_SLOT_RECHECK
        if :: slot[AT(cur)] != w -> w = 0; k = 0; o = 0; v = 0; goto RECV :: else fi;
        assert(O_ST(o) != FREE);
#endif
        if
#ifndef MUTANT_DONE_NOT_SKIPPED
        :: O_ST(o) == DONE -> cur++; w = 0; k = 0; o = 0; v = 0; goto ADV     /* a skip runs the head move */
#endif
#ifdef MUTANT_NO_SLOT_RECHECK
        :: O_ST(o) == FREE -> w = 0; k = 0; o = 0; v = 0; goto RECV
#endif
#ifdef MUTANT_DROP_TAKEN
        :: O_ST(o) == TAKEN && O_WHO(o) != att ->
             if :: slot[AT(cur)] == w -> slot[AT(cur)] = SLOT(S_LAP(w)+1, 0) :: else fi;
             cur++; w = 0; k = 0; o = 0; v = 0; goto RECV
#endif
        :: else
        fi );
#ifndef MUTANT_NO_CONS_CHECK
  STEP( if :: cons != me -> goto DIE :: else fi );                            /* authority last */
#endif
  STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, att); own[k] = o;           /* R4 */
             assert(slot[AT(cur)] == w && v == at_pos[cur] && acked[v] == 0 && committed[v]); w = 0
           :: else -> w = 0; k = 0; o = 0; v = 0; goto RECV fi );
#ifdef MUTANT_COUNT_STORE
  STEP( assert(own[k] == o) );
#endif
#ifdef MUTANT_SEEN_STORE
  STEP( redelivered = (cur < seen) );
  STEP( seen = cur+1 );
#else
  STEP(
#ifdef MUTANT_SEEN_EARLY
        redelivered = (cur < seen0);
#else
        redelivered = (cur < seen);
#endif
        MAX_INTO(seen, cur+1) );
#endif
  STEP(
#ifndef MUTANT_NO_OWN_RECHECK
        if :: own[k] != o -> assert(cons != me); goto DIE :: else fi;
#endif
        assert(acked[v] == 0); if :: !redelivered -> fresh[v]++; assert(fresh[v] <= 1) :: else fi;
#if LEASES > 1
        if :: lease[0] == 0 -> lease[0] = o; lk[0] = k :: else -> lease[1] = o; lk[1] = k fi;
#else
        lease[0] = o; lk[0] = k;
#endif
        cur++; b--; k = 0; o = 0; v = 0; redelivered = false; goto LOOP );

ACK:
  STEP( if :: own[k] == o -> own[k] = O_NEXT(o, DONE, att); acked[pay[k]]++; assert(acked[pay[k]] == 1); o = 0; k = 0
           :: else -> assert(cons != me); goto DIE fi );                      /* only a fenced consumer may fail */
#ifdef MUTANT_ACK_NO_MOVE
  goto LOOP;
#endif
ADV:
  STEP( h = head );
ADV2:
  STEP( w = slot[AT(h)];
        if :: S_LAP(w) > LAP(h) -> goto ADVHEAD
           :: S_LAP(w) < LAP(h) || (S_LAP(w) == LAP(h) && S_REF(w) == 0) -> w = 0; h = 0; goto LOOP
           :: else -> k = S_REF(w)-1
        fi );
  STEP( o = own[k]; if :: O_ST(o) != DONE -> w = 0; h = 0; k = 0; o = 0; goto LOOP :: else fi );
#ifdef MUTANT_DONE_REOWNED
  if
  :: O_WHO(o) != att -> STEP( if :: own[k] == o -> o = O_NEXT(o, DONE, att); own[k] = o :: else -> k = 0; o = 0; goto ADV2 fi )
  :: else
  fi;
#endif
#ifndef MUTANT_NO_REGISTER
  STEP( reg[att] = k+1 );
#endif
#ifdef MUTANT_R5_STORE
  STEP( slot[AT(h)] = SLOT(S_LAP(w)+1, 0) );
#else
  STEP( if :: slot[AT(h)] == w -> slot[AT(h)] = SLOT(S_LAP(w)+1, 0)           /* R5: its winner frees the chunk */
           :: else -> k = 0; o = 0; goto ADV2 fi );
#endif
ADVHEAD:
#ifdef MUTANT_HEAD_STORE
  STEP( assert(head <= h+1); head = h+1; h++; w = 0; if :: o == 0 -> goto ADV2 :: else fi );
#else
  STEP( MAX_INTO(head, h+1); h++; w = 0; if :: o == 0 -> goto ADV2 :: else fi );      /* R6 */
#endif
  STEP( if :: own[k] == o -> set_free(k, o) :: else fi; k = 0; o = 0 );               /* R7 */
  STEP( reg[att] = 0; goto ADV2 );
DIE:
  atomic { consumers--; c = 0; me = 0; h = 0; w = 0; k = 0; cur = 0; v = 0; o = 0; b = 0; lease[0] = 0; lk[0] = 0;
#if LEASES > 1
    lease[1] = 0; lk[1] = 0;
#endif
    redelivered = false }
}

#if SREUSE
/* a new process in the attachment of the dead sender 0 */
proctype next_sender()
{ if
  :: atomic { id[0] == ID(1,VACANT) -> id[0] = ID(2,LIVE); dead[0] = false; run sender(0, 4, 1, false) }
  :: atomic { senders-- }
  fi }
#endif

#define TO_REAP(d) (dead[d] && (id[d] == ID(1,LIVE) || id[d] == ID(1,REAP)))
proctype reaper(bool leaves)
{ byte d = 0, k = 0, j = 0, c = 0; short o = 0; bool found = false;
NEXT:
  k = 0; j = 0; c = 0; o = 0; found = false; d = 0;
  if
#if D0
  :: atomic { TO_REAP(0) -> d = 0 }
#endif
#if D1
  :: atomic { TO_REAP(1) -> d = 1 }
#endif
#if D2
  :: atomic { TO_REAP(2) -> d = 2 }
#endif
#if D3
  :: atomic { TO_REAP(3) -> d = 3 }
#endif
  :: atomic { consumers == 0 && senders == 0 && !TO_REAP(0) && !TO_REAP(1) && !TO_REAP(2) && !TO_REAP(3) -> goto END }
  fi;
  atomic { if :: id[d] == ID(1,LIVE) -> id[d] = ID(1,REAP) :: id[d] == ID(1,REAP) :: else -> goto NEXT fi };
  atomic { k = reg[d]; if :: k == 0 -> goto WORD :: else -> k-- fi };
#ifdef MUTANT_ID_CHECK_EARLY
  atomic { if :: id[d] != ID(1,REAP) -> goto NEXT :: else fi };
#endif
#ifdef MUTANT_NO_DONE_REAP
  atomic { o = own[k]; if :: (O_ST(o) != MINE && O_ST(o) != TAKEN) || O_WHO(o) != d -> goto WORD :: else fi };
#else
  atomic { o = own[k]; if :: O_ST(o) == FREE || (O_ST(o) != DONE && O_WHO(o) != d) -> goto WORD :: else fi };
#endif
#ifdef MUTANT_REAP_BY_HOLDER
  atomic { if :: C_ATT(cons) != d -> goto DECIDE :: else fi };
#endif
SCAN:
  atomic { if :: S_REF(slot[j]) == k+1 -> found = true :: else fi; j++; if :: j < C -> goto SCAN :: else fi };
  if :: found -> goto WORD :: else fi;
DECIDE:
#if !defined(MUTANT_NO_ID_CHECK) && !defined(MUTANT_ID_CHECK_EARLY)
  atomic { if :: id[d] != ID(1,REAP) -> goto NEXT :: else fi };
#endif
  atomic { if :: own[k] == o -> assert(dead[d] || O_ST(o) != MINE); set_free(k, o) :: else fi };
WORD:
  k = 0; j = 0; o = 0; found = false;
#ifndef MUTANT_NO_CONS_CLEAR
  atomic { c = cons };
  if
  :: C_ATT(c) == d ->
       atomic { if :: id[d] != ID(1,REAP) -> goto NEXT :: else fi };
       atomic { if :: cons == c -> assert(dead[d]); cons = CONS(C_VER(c)+1, NONE) :: else fi }
  :: else
  fi;
#endif
  c = 0;
  atomic { if :: id[d] == ID(1,REAP) -> id[d] = ID(1,VACANT) :: else fi; d = 0 };
  if :: leaves -> goto END :: goto NEXT fi;
END:
  atomic { reapers--; d = 0; k = 0; j = 0; c = 0; o = 0; found = false }
}

init { byte z; byte y;
  atomic {
    z = 0; do :: z < NA -> id[z] = ID(1,LIVE); z++ :: else -> break od; z = 0;
    cons = CONS(0,NONE);
    run sender(0, 0, N0, D0); run sender(1, 2, N1, D1);
#if SREUSE
    run next_sender();
#endif
    run consumer(2, R2, false, D2); run consumer(3, R3, STEAL, D3);
    run reaper(false);
#if NREAP > 1
    run reaper(true);
#endif
  };
  atomic { consumers == 0 && senders == 0 && reapers == 0 ->
    z = 0; do :: z < NCH -> assert(REFS(z) <= 1); assert((O_ST(own[z]) == FREE) == (REFS(z) == 0)); z++ :: else -> break od;
    z = 0; do :: z < 6 ->
      if :: committed[z] ->
           y = 0;
           if :: REFS(0) == 1 && pay[0] == z && O_ST(own[0]) != DONE -> y++ :: else fi;
           if :: REFS(1) == 1 && pay[1] == z && O_ST(own[1]) != DONE -> y++ :: else fi;
#if NCH > 2
           if :: REFS(2) == 1 && pay[2] == z && O_ST(own[2]) != DONE -> y++ :: else fi;
#endif
           assert(acked[z]+y == 1)
         :: else fi; z++ :: else -> break od;
    assert(C_ATT(cons) == NONE || !dead[C_ATT(cons)]);
    assert(head <= tail+1);
#if !D2 && !D3
    if :: S_REF(slot[AT(head)]) != 0 && S_LAP(slot[AT(head)]) == LAP(head) -> assert(O_ST(own[S_REF(slot[AT(head)])-1]) != DONE) :: else fi;
#endif
    z = 0; y = 0
  }
}
