/* space.pml: senders that wait for room in a full lane.
 *
 * MODELS   a lane of C slots, full at the start, its consumer word, and the mailbox's space event (event.pml).  A sender that
 *          finds the lane full arms the event, looks again, sleeps.  A consumer receives, acks, moves the head (R5 empties the
 *          slot) and rings.  Each chunk is used once, therefore own words need no version here.
 *          RULE of the model (RING_RULE): the holder rings (a) after it took the consumer word, (b) at the end of every head
 *          move, whoever won R5, (c) before it goes idle.  Mutants show what each part is for.
 * ACTORS   consumer X (attachment 0, holds the word at the start), taker Y (1), NS senders of one message each.
 * DIES     X at every step (XDIES; it may as well be stopped there for ever), senders at every step (SDIES).  Sleeping senders
 *          may be stopped and continued.  With STEAL, Y may take the word from a living X (stopped at any step).
 * PROPERTY 1. No sender sleeps while the lane has room, nobody rings any more, and the holder of the consumer word is idle (has
 *             handed out and acked everything there is).
 *          2. Each message is acked at most once.
 * BOUNDS   C, NS.
 * MUTANTS  MUTANT_WINNER_RINGS      only the winner of R5 and a taker ring.  Fails with STEAL, survives without: a holder that was
 *                                   stolen from may make R5 late and die before its ring
 *          MUTANT_NO_IDLE_RING      (a) and (b) without (c); fails with STEAL: the new holder's cursor passes a slot that the old
 *                                   one has just emptied, and runs no head move at all
 *          MUTANT_NO_TAKE_RING      only the winner of R5 rings, not even a taker
 *          MUTANT_NO_MOVE_RING      (a) and (c) only; survives
 *          MUTANT_ONLY_IDLE_RING    (c) only; survives.  So (c) is what safety needs; (a) and (b) keep a sender from waiting until
 *                                   a busy consumer has nothing left to do
 *          MUTANT_RING_BEFORE_R5    the ring comes before the slot is emptied (neither (b) nor (c))
 *          MUTANT_ONLY_IDLE_RING    only (c)
 *          MUTANT_RING_NOBODY       nobody rings
 *          MUTANT_TAKE_RING_FIRST   the ring of the taker comes before it took the word, and neither (b) by losers nor (c)
 *          MUTANT_WAKE_ONE          futex_wake(1)
 *          MUTANT_NO_RECHECK        a sender does not look again after arming
 *          MUTANT_CLEAR_FIRST       no WAKING
 */
#include "words.h"
#ifndef C
#define C 1
#endif
#ifndef NS
#define NS 2
#endif
#ifndef XDIES
#define XDIES 1
#endif
#ifndef SDIES
#define SDIES 0
#endif
#ifndef STEAL
#define STEAL 0
#endif
#define NCH (C+NS)
#define O1(s,w) OWN(0,s,w)

/* which parts of the rule are on */
#if defined(MUTANT_RING_NOBODY)
#define RULE_A 0
#define RULE_WIN 0
#define RULE_LOSE 0
#define RULE_C 0
#elif defined(MUTANT_WINNER_RINGS)
#define RULE_A 1
#define RULE_WIN 1
#define RULE_LOSE 0
#define RULE_C 0
#elif defined(MUTANT_NO_TAKE_RING)
#define RULE_A 0
#define RULE_WIN 1
#define RULE_LOSE 0
#define RULE_C 0
#elif defined(MUTANT_NO_IDLE_RING)
#define RULE_A 1
#define RULE_WIN 1
#define RULE_LOSE 1
#define RULE_C 0
#elif defined(MUTANT_NO_MOVE_RING)
#define RULE_A 1
#define RULE_WIN 0
#define RULE_LOSE 0
#define RULE_C 1
#elif defined(MUTANT_RING_BEFORE_R5) || defined(MUTANT_TAKE_RING_FIRST)
#define RULE_A 1
#define RULE_WIN 1
#define RULE_LOSE 0
#define RULE_C 0
#elif defined(MUTANT_ONLY_IDLE_RING)
#define RULE_A 0
#define RULE_WIN 0
#define RULE_LOSE 0
#define RULE_C 1
#else
#define RULE_A 1
#define RULE_WIN 1
#define RULE_LOSE 1
#define RULE_C 1
#endif

short own[NCH]; byte slot[C]; byte tail, head, cons;
byte word; bool asleep[NS]; bool dead[2+NS];
/* ghosts */
bool acked[NCH]; bool idle[2]; bool gone[2]; bool send_end[NS];

#undef SLOT
#undef S_LAP
#undef S_REF
#define SLOT(l,r) ((l)*8+(r))
#define S_LAP(x)  ((x)/8)
#define S_REF(x)  ((x)%8)
#define FULL_AT(t)  (S_LAP(slot[AT(t)]) < LAP(t))
#define ROOM        (!FULL_AT(tail))
#if NS == 1
#define SLEEPER   (asleep[0])
#define SETTLED   (send_end[0] || asleep[0])
#elif NS == 2
#define SLEEPER   (asleep[0] || asleep[1])
#define SETTLED   ((send_end[0] || asleep[0]) && (send_end[1] || asleep[1]))
#else
#define SLEEPER   (asleep[0] || asleep[1] || asleep[2])
#define SETTLED   ((send_end[0] || asleep[0]) && (send_end[1] || asleep[1]) && (send_end[2] || asleep[2]))
#endif
#define HOLDER    C_ATT(cons)

proctype sender(byte i; bool mortal)
{ byte t = 0, w = 0, b = 0;
#define att (2+i)
TAIL:
  STEP( t = tail );
  STEP( w = slot[AT(t)];
        if :: S_LAP(w) == LAP(t) && S_REF(w) == 0
           :: (S_LAP(w) == LAP(t) && S_REF(w) != 0) || S_LAP(w) > LAP(t) -> goto HELP
           :: else -> if :: b == 0 -> goto ARM :: else -> goto SLEEP fi
        fi );
  STEP( if :: slot[AT(t)] == w -> slot[AT(t)] = SLOT(LAP(t), C+i+1); own[C+i] = O1(MINE,0) :: else -> goto TAIL fi );
  STEP( if :: tail == t -> tail = t+1 :: else fi; goto DIE );
HELP:
  STEP( if :: tail == t -> tail = t+1 :: else fi; goto TAIL );
ARM:
  STEP( b = word | E_WAIT; word = b );
#ifndef MUTANT_NO_RECHECK
  goto TAIL;                                    /* looks again with b set, then sleeps if still full */
#endif
SLEEP:
  STEP( if :: word == b -> asleep[i] = true :: else -> b = 0; goto TAIL fi );
ASLEEP:
  if
  :: atomic { !asleep[i] -> b = 0; goto TAIL }
  :: atomic { asleep[i] && !(idle[0] && idle[1]) -> asleep[i] = false; goto SLEEP }      /* SIGSTOP, SIGCONT */
  :: atomic { asleep[i] && mortal -> dead[att] = true; asleep[i] = false; goto DIE }
  :: atomic { asleep[i] && ((gone[0]||idle[0]) && (gone[1]||idle[1])) -> asleep[i] = false; goto DIE }   /* lets the model end */
  fi;
DIE:
  atomic { send_end[i] = true; t = 0; w = 0; b = 0 }
#undef att
}

#ifdef MUTANT_WAKE_ONE
#define WAKE if :: asleep[0] -> asleep[0] = false :: asleep[NS-1] -> asleep[NS-1] = false :: else fi
#elif NS == 1
#define WAKE asleep[0] = false
#elif NS == 2
#define WAKE asleep[0] = false; asleep[1] = false
#else
#define WAKE asleep[0] = false; asleep[1] = false; asleep[2] = false
#endif

proctype consumer(byte att; bool mortal; bool steal)
{ byte c = 0, me = 0, h = 0, w = 0, k = 0, cur = 0, b = 0; short o = 0;
  byte back = 0;            /* where the ring returns to */
  bool moved = false, won = false;
  if :: att == 0 -> me = CONS(1,0); goto TOOK :: else fi;
TAKE:
#ifdef MUTANT_TAKE_RING_FIRST
  back = 3; goto RING;
RUNG3:
#endif
  if
  :: atomic { C_ATT(cons) == NONE || dead[C_ATT(cons)] || steal -> c = cons }
  :: atomic { gone[0] && !dead[0] -> goto DIE }                /* X stopped for ever, nothing to take */
  :: atomic { idle[0] -> goto DIE }
  fi;
  STEP( if :: cons == c -> me = CONS(C_VER(c)+1, att); cons = me; c = 0 :: else -> c = 0; goto TAKE fi );
#ifndef MUTANT_TAKE_RING_FIRST
  if :: RULE_A == 1 -> back = 1; goto RING :: else fi;
#endif
TOOK:
  STEP( cur = head );
RECV:
  STEP( w = slot[AT(cur)];
        if :: S_LAP(w) > LAP(cur) -> cur++; w = 0; goto RECV
           :: S_LAP(w) < LAP(cur) || (S_LAP(w) == LAP(cur) && S_REF(w) == 0) -> w = 0; goto EMPTY
           :: else -> k = S_REF(w)-1
        fi );
  STEP( o = own[k] );
  STEP( if :: slot[AT(cur)] != w -> w = 0; k = 0; o = 0; goto RECV :: else fi;
        if :: O_ST(o) == DONE -> cur++; w = 0; k = 0; o = 0; goto ADV :: else fi );     /* a skip runs the head move */
  STEP( if :: cons != me -> goto LEAVE :: else fi );
  STEP( if :: own[k] == o -> o = O1(TAKEN,att); own[k] = o; cur++; w = 0 :: else -> w = 0; k = 0; o = 0; goto RECV fi );
  STEP( if :: own[k] == o -> own[k] = O1(DONE,att); assert(!acked[k]); acked[k] = true; k = 0; o = 0 :: else -> goto LEAVE fi );
ADV:
  STEP( h = head );
ADV2:
  STEP( w = slot[AT(h)];
        if :: S_LAP(w) > LAP(h) -> won = false; goto ADVHEAD
           :: S_LAP(w) < LAP(h) || (S_LAP(w) == LAP(h) && S_REF(w) == 0) -> w = 0; goto ADVEND
           :: else -> k = S_REF(w)-1 fi );
  STEP( o = own[k]; if :: O_ST(o) != DONE -> w = 0; k = 0; o = 0; goto ADVEND :: else fi );
#ifdef MUTANT_RING_BEFORE_R5
  back = 4; goto RING;
RUNG4:
#endif
  STEP( if :: slot[AT(h)] == w -> slot[AT(h)] = SLOT(S_LAP(w)+1, 0); won = true :: else -> k = 0; o = 0; goto ADV2 fi );  /* R5 */
ADVHEAD:
  STEP( MAX_INTO(head, h+1); h++; w = 0; k = 0; o = 0;
        if :: RULE_LOSE == 1 || (won && RULE_WIN == 1) -> moved = true :: else fi; won = false; goto ADV2 );           /* R6; R7 left out */
ADVEND:
  h = 0;
#ifdef MUTANT_RING_BEFORE_R5
  moved = false; goto RECV;
#endif
  if :: moved -> moved = false; back = 0; goto RING :: else -> goto RECV fi;

RING:
  STEP( b = word; if :: (b & (E_WAIT|E_WAKING)) == 0 -> goto RUNG :: else fi );
#ifdef MUTANT_CLEAR_FIRST
  STEP( if :: word == b -> b = (b/4+1)*4; word = b :: else -> goto RING fi );
  STEP( WAKE );
#else
  STEP( if :: word == b -> b = E_RUNG(b); word = b :: else -> goto RING fi );
  STEP( WAKE );
  STEP( if :: word == b -> word = b - E_WAKING :: else fi );
#endif
RUNG:
  b = 0;
  if
  :: back == 0 -> goto RECV
  :: back == 1 -> back = 0; goto TOOK
  :: back == 2 -> back = 0; goto IDLE
#ifdef MUTANT_TAKE_RING_FIRST
  :: back == 3 -> back = 0; goto RUNG3
#endif
#ifdef MUTANT_RING_BEFORE_R5
  :: back == 4 -> back = 0; goto RUNG4
#endif
  fi;

EMPTY:
  if :: RULE_C == 1 -> back = 2; goto RING :: else fi;
IDLE:                                            /* sleeps on its doorbell until there is something at its cursor */
  atomic { idle[att] = true };
  if
  :: atomic { cons != me -> idle[att] = false; goto LEAVE }
  :: atomic { S_LAP(slot[AT(cur)]) > LAP(cur) || (S_LAP(slot[AT(cur)]) == LAP(cur) && S_REF(slot[AT(cur)]) != 0) -> idle[att] = false; goto RECV }
  :: atomic { SETTLED && !SLEEPER && (gone[1-att] || idle[1-att]) -> goto DIE }   /* nothing left to come */
  :: atomic { mortal -> dead[att] = true; idle[att] = false; goto DIE }
  fi;
LEAVE:
  skip;
DIE:
  atomic { gone[att] = true; c = 0; me = 0; h = 0; w = 0; k = 0; cur = 0; b = 0; o = 0; back = 0; moved = false; won = false }
}

/* the other consumer rings no more (gone or idle), the holder is idle or left idle, all other senders are settled */
active proctype monitor()
{
endM:
  atomic { SLEEPER && SETTLED && ROOM && HOLDER != NONE && idle[HOLDER] && (gone[1-HOLDER] || idle[1-HOLDER]) -> assert(false) }
}

init { byte z;
  atomic {
    z = 0; do :: z < C -> slot[z] = SLOT(0, z+1); own[z] = O1(MINE,0); z++ :: else -> break od; z = 0;
    tail = C; cons = CONS(1,0);
    run consumer(0, XDIES, false);
    run consumer(1, false, STEAL);
    z = 0; do :: z < NS -> run sender(z, SDIES); z++ :: else -> break od; z = 0
  } }
