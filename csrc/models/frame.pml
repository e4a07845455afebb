/* frame.pml: frames of several messages, each acked by a bit of its own in the chunk.
 *
 * MODELS   take (authority, R4), lease_start, skip_acked, cfn_inbox_hand_out and the ack of one message of csrc/msg/inbox.c: part words
 *          {own version at the commit | acked bits}, the bit by CAS of the exact word after a look at the lease, the whole frame by
 *          its bits, own -> DONE by CAS; take over after death, give back with unacked leases, steal from a living holder; re-use
 *          of the chunk for the next frame.  Slot and own are loaded in one step, and R5 to R7 are one step of whoever made DONE or
 *          passes over it: consumer.pml has them apart.  Taking over from a dead holder is one CAS of the consumer word: the
 *          reaper's part is in consumer.pml too.  A frame that is acked as a whole goes from own to DONE without bits: that is
 *          the ack of a frame of one, in consumer.pml.
 * ACTORS   a sender (NF frames of F messages, lives), readers 2 and 3 (die with D2, D3; 3 steals with STEAL), reader 4, which begins
 *          when the others are gone and reads everything that is left.
 * DIES     whoever has D = 1, at every step; everybody may be stopped for any time at any step.
 * PROPERTY 1. At most one hand-out of a message is without the redelivered flag.
 *          2. A message whose ack said OK before a reader took the frame is not handed out by that reader; one whose ack says OK
 *             later (steal) is handed out only with the flag.
 *          3. A bit is set only in the frame it was handed out from, while that frame is leased; an ack that set it does not say
 *             FENCED, and only the ack of a reader that was stolen from does.
 *          4. A frame becomes DONE only when a bit was set for each of its messages, is freed once, and its reader closes the lease
 *             with the last of its own acks.
 *          5. At the end every message of every frame was acked, every chunk is FREE and in no slot; nobody is stuck.
 * BOUNDS   C slots, NCH chunks, F messages in a frame, PM of them in one part word (PM = F: one word; PM = 1: a word for each),
 *          one lease at a time.
 * MUTANTS  MUTANT_NO_LEASE_CHECK    ack of a part: own is not looked at; MUTANT_LEASE_FIRST before the part word is loaded
 *          MUTANT_BIT_STORE         the bit is stored, not swapped
 *          MUTANT_COUNT_DONE        DONE by the number of acks instead of by the bits
 *          MUTANT_ALREADY_INVALID   an ack that finds its bit set does not look whether the frame is whole
 *          MUTANT_WHOLE_FENCED      an ack whose bit was the last, and whose DONE a thief made, says FENCED
 *          MUTANT_WHOLE_FIRST       the other part words are looked at before the bit is set (PM = 1)
 *          MUTANT_DONE_STORE        DONE is stored, not swapped
 *          MUTANT_NO_RESET          part words are not reset for the next frame
 *          MUTANT_RESET_NO_VER      ... are reset to 0, without a version; MUTANT_RESET_LATE after the commit
 *          MUTANT_IGNORE_BITS       the next reader hands out everything
 *          MUTANT_NO_LATE_SKIP      bits are looked at only when the frame is taken, not before each hand-out
 *          MUTANT_NO_TAKER_DONE     a reader that finds a frame whole passes on without making it DONE
 *          MUTANT_SKIP_UNBOUNDED    the first skip of a taker is not bounded by the number of messages (frame of the largest size)
 *          MUTANT_NO_STILL_MINE     hand-out without a last look at own
 *          MUTANT_SEEN_AFTER        seen is raised after that look
 *          MUTANT_SEEN_FRAME        seen is raised once for the frame, with the first hand-out, to that message's place
 */
#include "words.h"
#ifndef C
#define C 1
#endif
#ifndef NCH
#define NCH 1
#endif
#ifndef F
#define F 2
#endif
#ifndef PM
#define PM F
#endif
#ifndef NF
#define NF 2
#endif
#ifndef D2
#define D2 0
#endif
#ifndef D3
#define D3 0
#endif
#ifndef STEAL
#define STEAL 1
#endif
#define NA 5
#define NP (F/PM)

#define ALL         ((1<<F)-1)
#define PART(v,b)   ((v)*8+(b))
#define P_VER(x)    ((x)/8)
#define P_BITS(x)   ((x)%8)
#define WORD(k,i)   part[(k)*NP+(i)/PM]
#define BIT(i)      (1<<(i))
#define ACKED(k,i)  (WORD(k,i) & BIT(i))          /* bit i of its word: the model keeps the index in it */

short own[NCH]; byte slot[C]; byte frm[NCH]; short part[NCH*NP];
byte tail, head, seen, cons;
bool dead[NA];
/* ghosts, a bit for each message of a frame */
byte fresh[NF]; byte handed[NF]; byte oks[NF]; byte bits[NF]; byte freed[NF]; bool sending = true; byte readers = 3;

#if C == 1
#define REFS(k) ((S_REF(slot[0]) == k+1))
#else
#define REFS(k) ((S_REF(slot[0]) == k+1) + (S_REF(slot[1]) == k+1))
#endif
#define THERE(p) (S_LAP(slot[AT(p)]) > LAP(p) || (S_LAP(slot[AT(p)]) == LAP(p) && S_REF(slot[AT(p)]) != 0))
#define DONE_AT(p) (S_LAP(slot[AT(p)]) == LAP(p) && S_REF(slot[AT(p)]) != 0 && O_ST(own[S_REF(slot[AT(p)])-1]) == DONE)

/* R5, R6, R7 over the DONE prefix */
inline move_head() {
  do
  :: DONE_AT(head) ->
       k = S_REF(slot[AT(head)])-1; freed[frm[k]]++; assert(freed[frm[k]] == 1); assert(REFS(k) == 1);
       slot[AT(head)] = SLOT(LAP(head)+1, 0); own[k] = O_NEXT(own[k], FREE, 0); head++
  :: else -> break
  od;
  k = 0
}
inline set_done(word) { assert(O_ST(own[k]) == TAKEN); assert(bits[frm[k]] == ALL); own[k] = O_NEXT(word, DONE, att) }

proctype sender()
{ byte k = 0, f = 0, t = 0;
NEXT:
  if :: f >= NF -> goto END :: else fi;
  if
  :: atomic { O_ST(own[0]) == FREE && slot[AT(t)] == SLOT(LAP(t), 0) -> k = 0 }
#if NCH > 1
  :: atomic { O_ST(own[1]) == FREE && slot[AT(t)] == SLOT(LAP(t), 0) -> k = 1 }
#endif
  fi;
  atomic { own[k] = O_NEXT(own[k], MINE, 0) };
  atomic { frm[k] = f };
#if !defined(MUTANT_NO_RESET) && !defined(MUTANT_RESET_LATE)
#ifdef MUTANT_RESET_NO_VER
#define FRESH 0
#else
#define FRESH PART(O_VER(own[k]), 0)
#endif
  atomic { part[k*NP] = FRESH };
#if NP > 1
  atomic { part[k*NP+1] = FRESH };
#endif
#if NP > 2
  atomic { part[k*NP+2] = FRESH };
#endif
#endif
  atomic { assert(slot[AT(t)] == SLOT(LAP(t), 0)); slot[AT(t)] = SLOT(LAP(t), k+1); t++; tail = t };
#ifdef MUTANT_RESET_LATE
  atomic { part[k*NP] = PART(O_VER(own[k]), 0) };
#endif
  f++; k = 0; goto NEXT;
END:
  atomic { sending = false; k = 0; f = 0; t = 0 }
}

proctype reader(byte att; bool steal; bool last; bool mortal)
{ byte c = 0, me = 0, w = 0, k = 0, cur = 0;
  byte f = 0, nxt = 0, idx = 0, fol = 0, j = 0, out = 0, pos = 0, sb = 0, before = 0, old = 0;      /* out = handed out, not acked yet */
  short o = 0, l = 0, pw = 0; bool isfresh = false, already = false, mine = false;
#ifdef MUTANT_COUNT_DONE
  byte left = 0;
#endif
  if :: last -> atomic { readers == 1 -> skip } :: else fi;
TAKE:
  STEP( c = cons; if :: C_ATT(c) != NONE && !dead[C_ATT(c)] && !steal -> goto BUSY :: else fi );
  STEP( if :: cons == c -> me = CONS(C_VER(c)+1, att); cons = me; c = 0 :: else -> c = 0; goto TAKE fi );
  goto TOOK;
BUSY:
  if :: atomic { cons != c || dead[C_ATT(c)] -> c = 0; goto TAKE } :: atomic { goto DIE } fi;
TOOK:
  STEP( cur = head );
LOOP:
  if
  :: atomic { l == 0 && THERE(cur) -> goto RECV }
  :: atomic { l != 0 && nxt < F -> goto HAND }
  :: atomic { (out & BIT(0)) -> idx = 0; out = out & ~BIT(0); goto ACK }
  :: atomic { (out & BIT(1)) -> idx = 1; out = out & ~BIT(1); goto ACK }
#if F > 2
  :: atomic { (out & BIT(2)) -> idx = 2; out = out & ~BIT(2); goto ACK }
#endif
  :: atomic { !last && cons == me -> cons = CONS(C_VER(me)+1, NONE); goto DIE }     /* gives back, even with unacked leases */
  :: atomic { cons != me -> assert(!last); goto DIE }                              /* finds itself fenced */
  :: atomic { last && l == 0 && !sending && cur == tail -> cons = CONS(C_VER(me)+1, NONE); goto DIE }
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;

RECV:
  STEP( w = slot[AT(cur)];                                                    /* R2, R3 */
        if :: S_LAP(w) > LAP(cur) -> cur++; w = 0; goto LOOP
           :: S_LAP(w) < LAP(cur) || (S_LAP(w) == LAP(cur) && S_REF(w) == 0) -> w = 0; goto LOOP
           :: else -> k = S_REF(w)-1; w = 0; o = own[k]
        fi;
        assert(O_ST(o) != FREE);
        if :: O_ST(o) == DONE -> cur++; o = 0; k = 0; goto MOVE :: else fi );
  STEP( if :: cons != me -> goto DIE :: else fi );                            /* authority last */
  STEP( if :: own[k] == o -> l = O_NEXT(o, TAKEN, att); own[k] = l; o = 0     /* R4 */
           :: else -> o = 0; k = 0; goto LOOP fi;
        f = frm[k]; pos = cur; cur++; old = oks[f]; isfresh = true; nxt = 0; out = 0; j = 0 );
#ifdef MUTANT_COUNT_DONE
  STEP( left = F; j = 0; do :: j < F -> if :: ACKED(k,j) -> left-- :: else fi; j++ :: else -> break od; j = 0 );
#endif
#ifdef MUTANT_IGNORE_BITS
  goto LOOP;
#endif
START:
  STEP( if :: ACKED(k,j) -> j++; if :: j < F -> goto START :: else -> j = 0; goto WHOLE fi :: else -> j = 0 fi );
FIRST:
#ifdef MUTANT_SKIP_UNBOUNDED
  STEP( if :: ACKED(k,nxt%F) -> nxt++; assert(nxt <= 2*F); goto FIRST :: else -> goto LOOP fi );
#else
  STEP( if :: ACKED(k,nxt) -> nxt++; if :: nxt < F -> goto FIRST :: else -> goto LATE fi :: else -> goto LOOP fi );
#endif

HAND:                                                                         /* skip_acked */
#if !defined(MUTANT_NO_LATE_SKIP) && !defined(MUTANT_IGNORE_BITS)
  STEP( if :: ACKED(k,nxt) -> nxt++; if :: nxt < F -> goto HAND :: else fi :: else -> goto GIVE fi );
#else
  goto GIVE;
#endif
LATE:
  STEP( if :: ACKED(k,j) -> j++; if :: j < F -> goto LATE :: else -> j = 0; goto WHOLE fi
           :: else -> j = 0; assert(own[k] != l || out != 0); goto LOOP fi );
WHOLE:
#ifdef MUTANT_NO_TAKER_DONE
  STEP( l = 0; f = 0; nxt = 0; pos = 0; sb = 0; old = 0; goto LOOP );
#else
  STEP( if :: own[k] == l -> set_done(l) :: else -> assert(cons != me) fi;
        l = 0; f = 0; nxt = 0; pos = 0; sb = 0; old = 0; out = 0; goto MOVE );
#endif
GIVE:
  idx = nxt; fol = idx+1;
FOLLOW:
#ifndef MUTANT_IGNORE_BITS
  if
  :: fol < F -> STEP( if :: ACKED(k,fol) -> fol++; goto FOLLOW :: else fi )
  :: else
  fi;
#endif
#ifndef MUTANT_SEEN_AFTER
#ifdef MUTANT_SEEN_FRAME
  STEP( before = seen; if :: isfresh -> MAX_INTO(seen, pos*F+idx+1) :: else fi );
#else
  STEP( before = seen; MAX_INTO(seen, pos*F+idx+1) );
#endif
  if :: isfresh -> sb = before; isfresh = false :: else fi;
#endif
#ifdef MUTANT_SEEN_AFTER
  STEP( if :: own[k] != l -> assert(cons != me); goto DIE :: else fi );
  STEP( before = seen; MAX_INTO(seen, pos*F+idx+1) );
  if :: isfresh -> sb = before; isfresh = false :: else fi;
#endif
  STEP(
#if !defined(MUTANT_NO_STILL_MINE) && !defined(MUTANT_SEEN_AFTER)
        if :: own[k] != l -> assert(cons != me); goto DIE :: else fi;
#endif
        assert(!(old & BIT(idx)));
        if :: pos*F+idx < sb
           :: else -> assert(!(handed[f] & BIT(idx)) && !(oks[f] & BIT(idx)) && !(fresh[f] & BIT(idx))); fresh[f] = fresh[f] | BIT(idx) fi;
        handed[f] = handed[f] | BIT(idx); out = out | BIT(idx); nxt = fol; idx = 0; fol = 0; before = 0;
        goto LOOP );

ACK:
#ifdef MUTANT_LEASE_FIRST
  STEP( if :: own[k] != l -> goto FENCED :: else fi );
#endif
  STEP( pw = WORD(k,idx) );
#if !defined(MUTANT_NO_LEASE_CHECK) && !defined(MUTANT_LEASE_FIRST)
  STEP( if :: own[k] != l -> goto FENCED :: else fi );                        /* AFTER the load */
#endif
  already = (pw & BIT(idx)) != 0;
#ifdef MUTANT_WHOLE_FIRST
  STEP( j = 1; if :: WORD(k,1-idx) & BIT(1-idx) -> j = 2 :: else fi );
#endif
  if
  :: !already ->
#ifdef MUTANT_BIT_STORE
       STEP(
#else
       STEP( if :: WORD(k,idx) == pw :: else -> pw = 0; goto ACK fi;
#endif
             assert(frm[k] == f && O_ST(own[k]) == TAKEN && (handed[f] & BIT(idx)));
             bits[f] = bits[f] | BIT(idx); WORD(k,idx) = pw | BIT(idx); mine = true )
  :: else
  fi;
  pw = 0;
#ifdef MUTANT_ALREADY_INVALID
  if :: already -> goto NOT_WHOLE :: else fi;
#endif
#ifdef MUTANT_COUNT_DONE
  if :: !already -> left-- :: else fi;
  if :: left != 0 -> goto NOT_WHOLE :: else fi;
#else
#ifdef MUTANT_WHOLE_FIRST
  if :: j == 1 -> j = 0; goto NOT_WHOLE :: else -> j = 0 fi;
#else
BITS:
  STEP( if :: ACKED(k,j) -> j++; if :: j < F -> goto BITS :: else -> j = 0 fi :: else -> j = 0; goto NOT_WHOLE fi );
#endif
#endif
  STEP( if :: own[k] == l -> set_done(l)
#ifdef MUTANT_DONE_STORE
           :: else -> set_done(own[k])
#else
#ifdef MUTANT_WHOLE_FENCED
           :: else -> goto FENCED
#else
           :: else -> assert(cons != me); if :: !mine -> goto FENCED :: else fi
#endif
#endif
        fi;
        oks[f] = oks[f] | BIT(idx); mine = false; already = false;            /* says OK */
        idx = 0; l = 0; f = 0; nxt = 0; pos = 0; sb = 0; old = 0; out = 0; goto MOVE );
NOT_WHOLE:
  atomic { if :: !already -> oks[f] = oks[f] | BIT(idx)                       /* says OK */
              :: else                                                         /* says INVALID: acked before */
           fi;
           assert(!(nxt == F && out == 0 && own[k] == l));                    /* that was the last of it: the lease must be over */
           idx = 0; already = false; mine = false; goto LOOP };
FENCED:
  atomic { assert(!mine); assert(cons != me); goto DIE };
MOVE:
  STEP( move_head(); goto LOOP );
DIE:
  atomic { readers--; c = 0; me = 0; w = 0; k = 0; cur = 0; f = 0; nxt = 0; idx = 0; fol = 0; j = 0; out = 0; pos = 0; sb = 0; before = 0;
           old = 0; o = 0; l = 0; pw = 0; isfresh = false; already = false; mine = false }
}

init { byte z;
  atomic {
    cons = CONS(0,NONE);
    run sender();
    run reader(2, false, false, D2); run reader(3, STEAL, false, D3); run reader(4, false, true, false)
  };
  atomic { readers == 0 && !sending ->
    z = 0; do :: z < NCH -> assert(O_ST(own[z]) == FREE && REFS(z) == 0); z++ :: else -> break od;
    z = 0; do :: z < NF -> assert(bits[z] == ALL && handed[z] == ALL && freed[z] == 1); z++ :: else -> break od;
    z = 0 }
}
