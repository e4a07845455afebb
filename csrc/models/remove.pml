/* remove.pml: removal of a mailbox and re-use of its record under another name.
 *
 * MODELS   one mailbox record with one lane of C slots.  The old mailbox is OPEN; holders of its consumer word receive (leases,
 *          at most one unacked each), may give back, and remove it: OPEN -> REMOVING, rlap agreed, every slot to {rlap,0},
 *          cursors, FREE, consumer word given back.  A remover that dies, or whose word is stolen, is succeeded by the other
 *          holder.  A creator re-uses the record (FREE -> MINE, fence of the consumer word, PEND, OPEN) and consumes the new
 *          mailbox.  Senders of the old mailbox hold its exact OPEN word and may use it at any time, also long after; senders
 *          of the new one hold the new OPEN word.  Directory steps are one CAS of the mailbox word.
 *          With STALE there is one process more: a remover of an earlier removal of the same record, stopped before it looked
 *          at rlap, and continued at any time.
 * ACTORS   old sender (attachment 0, N0 messages), new sender (1, N1), holders (2 and 3), creator and new consumer (4), reaper.
 * DIES     old sender (D0), holders (D2, D3), at every step.  Everybody may be stopped for any time at any step.  With STEAL,
 *          holder 3 may take the consumer word from a living holder 2 (operator's steal).
 * PROPERTY 1. A message committed with the old OPEN word is handed out only by a holder of the old mailbox, or dropped.
 *          2. A commit with the old OPEN word happens only while the mailbox is the old one (OPEN or REMOVING).
 *          3. A committed message of the new sender is acked exactly once, by the new consumer.
 *          4. At the end every chunk is FREE exactly if no slot names it, no chunk is in two slots, no chunk is freed while a
 *             slot names it, none is freed twice (versions), and nobody is stuck.
 *          5. Nobody but the new consumer holds the new mailbox's consumer word (NO_FENCE, TAKER_*).
 *          6. The lap of a slot never falls, nor do head, tail and seen.
 * BOUNDS   C slots, NCH chunks, N0, N1, RECVS handed out per old holder.
 * MUTANTS  MUTANT_NO_MID_CHECK      sender: no look at the mailbox word after the slot load
 *          MUTANT_MID_CHECK_EARLY   sender: that look comes before the slot load
 *          MUTANT_NO_SLOT_RECHECK   remover: slot not loaded again after own
 *          MUTANT_NO_AUTH           remover: no look at consumer word and mailbox word before it acts.  Survives alone if no holder
 *                                   receives: the agreed lap is the authority (slots of a later mailbox are at rlap or above, so
 *                                   a late remover skips them).  Fails together with AGREE_BLIND and STALE
 *          MUTANT_NO_AUTH_CONS      ... not at the consumer word: takes a lease from a holder that is not fenced (needs RECVS)
 *          MUTANT_NO_AUTH_MID       ... not at the mailbox word; survives, as NO_AUTH
 *          MUTANT_AUTH_EARLY        ... before own is loaded instead of last; survives, because a taker looks at the mailbox word
 *                                   again after its take and then receives no more, so that one look after REMOVING is enough
 *          MUTANT_NO_AGREE          every remover uses its own lap(tail)+2.  Survives alone (a remover moves the cursors only after it
 *                                   saw every slot at its lap or above, so nothing can stand below); fails with NO_AUTH
 *          MUTANT_AGREE_BLIND       rlap is set without a look at the mailbox word with STALE.
 *                                   Survives alone, fails with NO_AUTH
 *          MUTANT_LAP0              rlap = lap(tail)
 *          MUTANT_LAP1              rlap = lap(tail)+1; survives: with tail loaded after REMOVING no slot can get a lap above
 *                                   lap(tail)+1, and one that has it is empty already
 *          MUTANT_NO_FENCE          creator does not change the consumer word
 *          MUTANT_DONE_REOWNED      remover re-owns a DONE chunk before it empties the slot; survives as long as the loser
 *                                   of the slot CAS frees what it owns (see LOOK_AGAIN), but would turn "acked" into "dropped"
 *          MUTANT_LOOK_AGAIN        remover that lost the slot CAS after it had re-owned the chunk only looks again
 *          MUTANT_SLOT_FIRST        remover empties the slot before it owns the chunk
 *          MUTANT_TAKER_NO_MID      taker of the consumer word does not look at the mailbox word
 *          MUTANT_TAKER_MID_FIRST   ... looks before it loads the consumer word
 *          MUTANT_FREE_INEXACT      REMOVING -> FREE without the version
 *          MUTANT_CURSOR_STORE      head, tail, seen stored, not CAS-max
 *          MUTANT_NO_REGISTER       remover does not announce the chunk it takes out
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
#ifndef D0
#define D0 0
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
#ifndef RECVS
#define RECVS 1
#endif
#ifndef H3
#define H3 1                /* 0: no holder 3 */
#endif
#ifndef STALE
#define STALE 0
#endif
#define NA 6
#define STALE_REM MID(1,MB_REMOVING)    /* the mailbox word of an earlier removal of this record */

#define OLD_OPEN  MID(3,MB_OPEN)
#define OLD_REM   MID(4,MB_REMOVING)
#define NEW_FREE  MID(5,MB_FREE)
#define NEW_MINE  MID(6,MB_MINE)
#define NEW_PEND  MID(7,MB_PEND)
#define NEW_OPEN  MID(8,MB_OPEN)

short own[NCH]; byte slot[C]; byte pay[NCH];
byte tail, head, seen, mid, cons; short rlap;
byte id[NA]; byte reg[NA]; bool dead[NA];
/* ghosts */
bool committed[4]; byte acked[4]; byte senders = 2, holders = 1+H3+STALE, busy = 5+H3+STALE; bool create_done;

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

inline set_slot(i, new) { assert(S_LAP(new) >= S_LAP(slot[i])); slot[i] = new }
inline set_free(k, word) { assert(own[k] == word); assert(REFS(k) == 0); own[k] = O_NEXT(word, FREE, 0) }

/* messages of sender att are 2*att, 2*att+1; expect = the exact OPEN word of its mailbox */
proctype sender(byte att; byte n; byte expect; bool mortal)
{ byte k = 0, t = 0, w = 0, s = 0; short o = 0;
  if
  :: atomic { att == 0 || mid == expect -> skip }              /* it looked the mailbox up */
  :: atomic { att != 0 && create_done && mid != expect -> goto DIE }
  fi;
NEXT:
  if :: s >= n -> goto DIE :: else fi;
PICK:                                                           /* any chunk that is FREE */
  if
  :: atomic { O_ST(own[0]) == FREE -> k = 0; o = own[0] }
#if NCH > 1
  :: atomic { O_ST(own[1]) == FREE -> k = 1; o = own[1] }
#endif
  :: atomic { NONE_FREE && holders == 0 && (att == 0 || create_done) -> goto DIE }    /* nobody left to free one */
  fi;
  STEP( reg[att] = k+1 );                                       /* announced first */
  STEP( if :: own[k] == o -> o = O_NEXT(o, MINE, att); own[k] = o :: else -> k = 0; o = 0; goto PICK fi );
  STEP( assert(own[k] == o); pay[k] = att*2+s );                /* plain store */
TAIL:
#ifdef MUTANT_MID_CHECK_EARLY
  STEP( if :: mid != expect -> goto DROP :: else fi );
#endif
  STEP( t = tail );
  STEP( w = slot[AT(t)];
        if :: S_LAP(w) == LAP(t) && S_REF(w) == 0
           :: (S_LAP(w) == LAP(t) && S_REF(w) != 0) || S_LAP(w) > LAP(t) -> goto HELP
           :: else -> goto FULL
        fi );
#if !defined(MUTANT_NO_MID_CHECK) && !defined(MUTANT_MID_CHECK_EARLY)
  STEP( if :: mid != expect -> goto DROP :: else fi );         /* AFTER the slot */
#endif
  STEP( if :: slot[AT(t)] == w ->                               /* commit */
             assert(own[k] == o); assert(REFS(k) == 0);
             assert(mid == expect || (att == 0 && mid == OLD_REM));
             slot[AT(t)] = SLOT(LAP(t), k+1); committed[att*2+s] = true
           :: else -> goto TAIL fi );
  STEP( if :: tail == t -> tail = t+1 :: else fi );
  STEP( reg[att] = 0; s++; k = 0; t = 0; w = 0; o = 0; goto NEXT );
HELP:
  STEP( if :: tail == t -> tail = t+1 :: else fi; goto TAIL );
FULL:                                                           /* wait until something changed */
  if
  :: atomic { mid != expect -> goto DROP }
  :: atomic { tail != t || S_LAP(slot[AT(t)]) >= LAP(t) -> goto TAIL }
  :: atomic { att == 0 || create_done -> goto DROP }           /* gives up */
  :: atomic { mortal -> dead[att] = true; goto DIE }
  fi;
DROP:
  STEP( set_free(k, o) );
  STEP( reg[att] = 0 );
DIE:
  atomic { senders--; busy--; k = 0; t = 0; w = 0; s = 0; o = 0 }
}

/* a process that consumes the old mailbox and then removes it; b = messages it may be handed */
proctype holder(byte att; byte b; bool steal; bool mortal; bool stale)
{ byte c = 0, me = 0, m = 0, w = 0, k = 0, cur = 0, i = 0, lk = 0; short o = 0, lease = 0;
  if :: stale -> m = STALE_REM; me = CONS(0,att); goto AGREE :: else fi;
TAKE:
#ifdef MUTANT_TAKER_MID_FIRST
  STEP( m = mid; if :: m == OLD_OPEN || m == OLD_REM :: else -> goto DIE fi );
#endif
  STEP( c = cons; if :: C_ATT(c) != NONE && !dead[C_ATT(c)] && !steal -> goto BUSY :: else fi );
#if !defined(MUTANT_TAKER_MID_FIRST) && !defined(MUTANT_TAKER_NO_MID)
  STEP( m = mid; if :: m == OLD_OPEN || m == OLD_REM :: else -> goto DIE fi );
#endif
  STEP( if :: cons == c -> assert(mid != NEW_OPEN); me = CONS(C_VER(c)+1, att); cons = me; c = 0 :: else -> c = 0; goto TAKE fi );
  goto TOOK;
BUSY:
  if :: atomic { cons != c || dead[C_ATT(c)] -> c = 0; goto TAKE } :: atomic { goto DIE } fi;
TOOK:
  STEP( cur = head );
LOOP:
  STEP( m = mid; if :: m == OLD_REM -> goto AGREE :: m == OLD_OPEN :: else -> goto GIVE fi );    /* the holder keeps looking at mid */
  if
  :: atomic { b > 0 && lease == 0 -> goto RECV }
  :: atomic { lease != 0 -> o = lease; k = lk; lease = 0; lk = 0; goto ACK }
  :: atomic { goto GIVE }
  :: atomic { goto REMOVE }
  fi;

RECV:
  STEP( w = slot[AT(cur)];                                      /* R2 */
        if :: S_LAP(w) > LAP(cur) -> cur++; w = 0; goto RECV
           :: S_LAP(w) < LAP(cur) || (S_LAP(w) == LAP(cur) && S_REF(w) == 0) -> w = 0; b = 0; goto LOOP
           :: else -> k = S_REF(w)-1
        fi );
  STEP( o = own[k]; i = pay[k] );                               /* R3; the copy counts only if R4 succeeds */
  STEP( if :: slot[AT(cur)] != w -> w = 0; k = 0; o = 0; i = 0; goto RECV :: else fi;
        assert(O_ST(o) != FREE);
        if :: O_ST(o) == DONE -> cur++; w = 0; k = 0; o = 0; i = 0; goto RECV :: else fi );
  STEP( if :: cons != me -> goto DIE :: else fi );              /* authority last */
  STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, att); own[k] = o; assert(committed[i] && i < 2 && acked[i] == 0); w = 0; i = 0
           :: else -> w = 0; k = 0; o = 0; i = 0; goto RECV fi );    /* R4 */
  STEP( MAX_INTO(seen, cur+1) );
  STEP( if :: own[k] == o -> lease = o; lk = k; cur++; b--; k = 0; o = 0; goto LOOP
           :: else -> assert(cons != me); goto DIE fi );

ACK:
  STEP( if :: own[k] == o -> acked[pay[k]]++; assert(acked[pay[k]] == 1); own[k] = O_NEXT(o, DONE, att); k = 0; o = 0
           :: else -> assert(cons != me); goto DIE fi );
ADV:
  STEP( i = head );
ADV2:
  STEP( w = slot[AT(i)];
        if :: S_LAP(w) > LAP(i) -> goto ADVHEAD
           :: S_LAP(w) < LAP(i) || (S_LAP(w) == LAP(i) && S_REF(w) == 0) -> w = 0; i = 0; goto LOOP
           :: else -> k = S_REF(w)-1 fi );
  STEP( o = own[k]; if :: O_ST(o) != DONE -> w = 0; i = 0; k = 0; o = 0; goto LOOP :: else fi );
  STEP( reg[att] = k+1 );
  STEP( if :: slot[AT(i)] == w -> set_slot(AT(i), SLOT(S_LAP(w)+1, 0)) :: else -> k = 0; o = 0; goto ADV2 fi );   /* R5 */
ADVHEAD:
  STEP( MAX_INTO(head, i+1); i++; w = 0; if :: o == 0 -> goto ADV2 :: else fi );                     /* R6 */
  STEP( if :: own[k] == o -> set_free(k, o) :: else fi; k = 0; o = 0 );                              /* R7 */
  STEP( reg[att] = 0; goto ADV2 );

REMOVE:
  STEP( if :: cons != me -> goto DIE :: else fi );
  STEP( if :: mid == OLD_OPEN -> mid = OLD_REM :: mid == OLD_REM :: else -> goto GIVE fi; m = OLD_REM );
AGREE:
  lease = 0; lk = 0; b = 0; cur = 0;
#ifdef MUTANT_NO_AGREE
  STEP( i = LAP(tail)+2; cur = i; i = 0 );
#else
  STEP( o = rlap; if :: R_TAG(o) == M_VER(m) -> cur = R_LAP(o); o = 0; goto SLOTS :: else fi );
#ifdef MUTANT_LAP0
  STEP( cur = LAP(tail) );
#else
#ifdef MUTANT_LAP1
  STEP( cur = LAP(tail)+1 );
#else
  STEP( cur = LAP(tail)+2 );
#endif
#endif
#ifndef MUTANT_AGREE_BLIND
  STEP( if :: mid != m -> goto GIVE :: else fi );               /* a remover of an earlier removal must not set rlap */
#endif
  STEP( if :: rlap == o -> rlap = RLAP(M_VER(m), cur) :: else -> o = 0; goto AGREE fi; o = 0 );
#endif
SLOTS:                                                          /* cur = the lap */
  i = 0;
SLOT1:
  w = 0; k = 0; o = 0;
  if :: i >= C -> goto CURSORS :: else fi;
  STEP( w = slot[i]; if :: S_LAP(w) >= cur -> i++; goto SLOT1 :: else fi );
#ifdef MUTANT_AUTH_EARLY
  STEP( if :: cons != me -> goto GIVE :: else fi );
  STEP( if :: mid != m -> goto GIVE :: else fi );
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
#if !defined(MUTANT_NO_AUTH) && !defined(MUTANT_AUTH_EARLY) && !defined(MUTANT_NO_AUTH_CONS)
  STEP( if :: cons != me -> goto GIVE :: else fi );
#endif
#if !defined(MUTANT_NO_AUTH) && !defined(MUTANT_AUTH_EARLY) && !defined(MUTANT_NO_AUTH_MID)
  STEP( if :: mid != m -> goto GIVE :: else fi );
#endif
  if
  :: S_REF(w) == 0 ->
       STEP( if :: slot[i] == w -> set_slot(i, SLOT(cur, 0)) :: else fi; goto SLOT1 )
  :: else
  fi;
#ifdef MUTANT_NO_SLOT_RECHECK
  if :: O_ST(o) == FREE -> goto SLOT1 :: else fi;
#endif
#ifndef MUTANT_NO_REGISTER
  STEP( reg[att] = k+1 );
#endif
#ifdef MUTANT_SLOT_FIRST
  STEP( if :: slot[i] == w -> set_slot(i, SLOT(cur, 0)) :: else -> goto SLOT1 fi );
  if
  :: O_ST(o) != DONE ->
       STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, att); own[k] = o :: else -> goto SLOT1 fi )
  :: else
  fi;
#else
#ifdef MUTANT_DONE_REOWNED
  if
  :: true ->
#else
  if
  :: O_ST(o) != DONE ->
#endif
       STEP( if :: own[k] == o -> o = O_NEXT(o, TAKEN, att); own[k] = o :: else -> goto SLOT1 fi );
       /* whoever else empties this slot has lost the chunk to us: free it in either case */
#ifdef MUTANT_LOOK_AGAIN
       STEP( if :: slot[i] == w -> set_slot(i, SLOT(cur, 0)) :: else -> goto SLOT1 fi )
#else
       STEP( if :: slot[i] == w -> set_slot(i, SLOT(cur, 0)) :: else fi )
#endif
#ifndef MUTANT_DONE_REOWNED
  :: else ->                                                    /* DONE belongs to whoever empties the slot */
       STEP( if :: slot[i] == w -> set_slot(i, SLOT(cur, 0)) :: else -> goto SLOT1 fi )
#endif
  fi;
#endif
  STEP( if :: own[k] == o -> set_free(k, o) :: else fi );
  STEP( reg[att] = 0; goto SLOT1 );
CURSORS:
#ifdef MUTANT_CURSOR_STORE
  STEP( assert(head <= cur*C); head = cur*C );
  STEP( assert(tail <= cur*C); tail = cur*C );
  STEP( assert(seen <= cur*C); seen = cur*C );
#else
  STEP( MAX_INTO(head, cur*C) );
  STEP( MAX_INTO(tail, cur*C) );
  STEP( MAX_INTO(seen, cur*C) );
#endif
#ifdef MUTANT_FREE_INEXACT
  STEP( if :: M_ST(mid) == MB_REMOVING || mid == NEW_OPEN -> assert(mid == m); mid = NEW_FREE :: else fi );
#else
  STEP( if :: mid == m -> mid = NEW_FREE :: else fi );
#endif
GIVE:
  STEP( if :: cons == me -> cons = CONS(C_VER(me)+1, NONE) :: else fi );
DIE:
  atomic { holders--; busy--; c = 0; me = 0; m = 0; w = 0; k = 0; cur = 0; i = 0; lk = 0; o = 0; lease = 0; b = 0 }
}

/* re-uses the record, then consumes the new mailbox until the new sender is done */
proctype creator(byte att; bool mortal)
{ byte c = 0, me = 0, w = 0, k = 0, cur = 0, i = 0; short o = 0;
  if
  :: atomic { mid == NEW_FREE -> skip }
  :: atomic { holders == 0 && mid != NEW_FREE -> goto DIE }     /* nobody removed it */
  fi;
  STEP( assert(mid == NEW_FREE); mid = NEW_MINE );
#ifndef MUTANT_NO_FENCE
FENCE:
  STEP( c = cons );
  STEP( if :: cons == c -> cons = CONS(C_VER(c)+1, NONE) :: else -> goto FENCE fi );
#endif
  STEP( mid = NEW_PEND );
  STEP( mid = NEW_OPEN );
TAKE:
  STEP( c = cons );
  if
  :: C_ATT(c) == NONE
  :: C_ATT(c) != NONE && dead[C_ATT(c)]
  :: C_ATT(c) != NONE && !dead[C_ATT(c)] -> assert(false)       /* busy: a holder of the old mailbox may stay stopped for ever */
  fi;
  STEP( assert(mid == NEW_OPEN) );
  STEP( if :: cons == c -> me = CONS(C_VER(c)+1, att); cons = me; c = 0 :: else -> c = 0; goto TAKE fi );
  STEP( cur = head );
RECV:
  if
  :: atomic { senders == 0 && S_LAP(slot[AT(cur)]) == LAP(cur) && S_REF(slot[AT(cur)]) == 0 -> goto GIVE }
  :: atomic { S_LAP(slot[AT(cur)]) > LAP(cur) || (S_LAP(slot[AT(cur)]) == LAP(cur) && S_REF(slot[AT(cur)]) != 0) -> skip }
  fi;
  STEP( w = slot[AT(cur)];
        if :: S_LAP(w) > LAP(cur) -> cur++; w = 0; goto RECV
           :: S_LAP(w) < LAP(cur) || (S_LAP(w) == LAP(cur) && S_REF(w) == 0) -> w = 0; goto RECV
           :: else -> k = S_REF(w)-1
        fi );
  STEP( o = own[k]; i = pay[k] );
  STEP( if :: slot[AT(cur)] != w -> w = 0; k = 0; o = 0; i = 0; goto RECV :: else fi;
        assert(O_ST(o) != FREE && O_ST(o) != DONE) );
  STEP( assert(cons == me) );
  STEP( assert(own[k] == o); o = O_NEXT(o, TAKEN, att); own[k] = o; assert(committed[i] && i >= 2 && acked[i] == 0); w = 0; i = 0 );
  STEP( MAX_INTO(seen, cur+1); cur++ );
  STEP( assert(own[k] == o); acked[pay[k]]++; own[k] = O_NEXT(o, DONE, att); k = 0; o = 0 );
  STEP( i = head );
ADV2:
  STEP( w = slot[AT(i)];
        if :: S_LAP(w) > LAP(i) -> goto ADVHEAD
           :: S_LAP(w) < LAP(i) || (S_LAP(w) == LAP(i) && S_REF(w) == 0) -> w = 0; i = 0; goto RECV
           :: else -> k = S_REF(w)-1 fi );
  STEP( o = own[k]; if :: O_ST(o) != DONE -> w = 0; i = 0; k = 0; o = 0; goto RECV :: else fi );
  STEP( reg[att] = k+1 );
  STEP( if :: slot[AT(i)] == w -> set_slot(AT(i), SLOT(S_LAP(w)+1, 0)) :: else -> k = 0; o = 0; goto ADV2 fi );
ADVHEAD:
  STEP( MAX_INTO(head, i+1); i++; w = 0; if :: o == 0 -> goto ADV2 :: else fi );
  STEP( if :: own[k] == o -> set_free(k, o) :: else fi; k = 0; o = 0 );
  STEP( reg[att] = 0; goto ADV2 );
GIVE:
  STEP( assert(cons == me); cons = CONS(C_VER(me)+1, NONE) );
DIE:
  atomic { create_done = true; busy--; c = 0; me = 0; w = 0; k = 0; cur = 0; i = 0; o = 0 }
}

#define TO_REAP(d) (dead[d] && id[d] != ID(1,VACANT))
/* one helper; two helpers at once are modelled in takeover.pml and consumer.pml */
proctype reaper()
{ byte d = 0, k = 0, w = 0; short o = 0; byte c = 0; bool found = false;
NEXT:
  if
  :: atomic { TO_REAP(0) -> d = 0 }
  :: atomic { TO_REAP(2) -> d = 2 }
  :: atomic { TO_REAP(3) -> d = 3 }
  :: atomic { busy == 1 && !TO_REAP(0) && !TO_REAP(2) && !TO_REAP(3) -> goto END }
  fi;
  atomic { if :: id[d] == ID(1,LIVE) -> id[d] = ID(1,REAP) :: else fi };
  atomic { k = reg[d]; if :: k == 0 -> goto WORD :: else -> k-- fi };
  atomic { o = own[k]; if :: O_ST(o) == FREE || (O_ST(o) != DONE && O_WHO(o) != d) -> goto WORD :: else fi };
  w = 0; found = false;
SCAN:
  atomic { if :: S_REF(slot[w]) == k+1 -> found = true :: else fi; w++; if :: w < C -> goto SCAN :: else fi };
  if :: found -> goto WORD :: else fi;
  atomic { if :: id[d] != ID(1,REAP) -> goto NEXT :: else fi };
  atomic { if :: own[k] == o -> set_free(k, o) :: else fi };
WORD:
  k = 0; w = 0; o = 0; found = false;
  atomic { c = cons };
  if
  :: C_ATT(c) == d ->
       atomic { if :: id[d] != ID(1,REAP) -> goto NEXT :: else fi };
       atomic { if :: cons == c -> cons = CONS(C_VER(c)+1, NONE) :: else fi }
  :: else
  fi;
  c = 0;
  atomic { if :: id[d] == ID(1,REAP) -> id[d] = ID(1,VACANT) :: else fi; d = 0; goto NEXT };
END:
  atomic { busy-- }
}

init { byte z;
  atomic {
    z = 0; do :: z < NA -> id[z] = ID(1,LIVE); z++ :: else -> break od; z = 0;
    mid = OLD_OPEN; cons = CONS(1,NONE); rlap = RLAP(M_VER(STALE_REM), 0);
    run sender(0, N0, OLD_OPEN, D0);
    run sender(1, N1, NEW_OPEN, false);
    run holder(2, RECVS, false, D2, false);
#if H3
    run holder(3, RECVS, STEAL, D3, false);
#endif
#if STALE
    run holder(5, 0, false, false, true);
#endif
    run creator(4, false);
    run reaper()
  };
  atomic { busy == 0 ->
    z = 0; do :: z < NCH -> assert(REFS(z) <= 1); assert((O_ST(own[z]) == FREE) == (REFS(z) == 0));
                            if :: mid >= NEW_FREE -> assert(REFS(z) == 0) :: else fi; z++ :: else -> break od;
    z = 2; do :: z < 4 -> assert(acked[z] == (committed[z] -> 1 : 0)); z++ :: else -> break od
  }
}
