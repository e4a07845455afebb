/* event.pml: the event word, one mechanism for doorbell, space wait, receipts and class waits.
 *
 * MODELS   the futex word {count | WAKING | WAIT}.
 *            waiter: b = fetch_or(WAIT)|WAIT; re-check the condition; futex_wait(word == b); loop.  It never clears anything.
 *            ringer (after making the condition true): load; neither WAIT nor WAKING: return; CAS to {count+1, WAKING} (failure:
 *            load again); futex_wake(all); while the count is still count+1: CAS WAKING away, leaving a WAIT set since.
 *          futex_wait compares and queues in one step.  SIGSTOP takes a waiter out of the queue (a wake passes it by) and at
 *          SIGCONT the kernel compares the word again.
 * ACTORS   NW waiters, NR ringers of ROUNDS rings each.  The condition of the waiters is "a message is unread"; waiters take
 *          messages away, so it also becomes false again.
 * DIES     every ringer, before every step (or it is stopped there for ever).  Waiters may be stopped anywhere and for ever;
 *          asleep they may be stopped and continued any number of times.
 * PROPERTY 1. When all ringers have ended or died, no waiter is asleep while a message of a COMPLETED ring is unread, whatever
 *             the other waiters do (they may be stopped for ever).
 *          2. A sleeping waiter implies WAIT or WAKING.
 * BOUNDS   NW, NR, ROUNDS.
 * MUTANTS  MUTANT_NO_COUNT          the ring does not change the count
 *          MUTANT_CLEAR_FIRST       no WAKING: WAIT is cleared, then the wake is made
 *          MUTANT_IGNORE_WAKING     a ringer that sees WAKING without WAIT returns
 *          MUTANT_NO_RECHECK        the waiter does not look again after arming
 *          MUTANT_CLEAR_ANDNOT      WAKING is cleared by fetch_and instead of by CAS of the exact word
 *          MUTANT_CLEAR_BEFORE_WAKE WAKING is cleared before the wake
 *          MUTANT_WAITER_CLEARS     a woken waiter clears WAIT
 *          MUTANT_WAKE_ONE          futex_wake(1) instead of all
 *          MUTANT_RING_FIRST        the ring comes before the condition is made true
 *          MUTANT_NO_REARM          a woken waiter whose condition is still false waits on the new word without WAIT
 */
#include "words.h"
#ifndef NW
#define NW 2
#endif
#ifndef NR
#define NR 3
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#define NM (NR*ROUNDS)

byte word;
bool asleep[NW];
bool msg[NM];             /* unread */
bool dead[NR];
/* ghosts */
bool complete[NM];
byte ended;

#if NM == 2
#define UNREAD   (msg[0] || msg[1])
#define LOST_MSG ((msg[0] && complete[0]) || (msg[1] && complete[1]))
#elif NM == 3
#define UNREAD   (msg[0] || msg[1] || msg[2])
#define LOST_MSG ((msg[0] && complete[0]) || (msg[1] && complete[1]) || (msg[2] && complete[2]))
#elif NM == 4
#define UNREAD   (msg[0] || msg[1] || msg[2] || msg[3])
#define LOST_MSG ((msg[0] && complete[0]) || (msg[1] && complete[1]) || (msg[2] && complete[2]) || (msg[3] && complete[3]))
#else
#define UNREAD   (msg[0] || msg[1] || msg[2] || msg[3] || msg[4] || msg[5])
#define LOST_MSG ((msg[0] && complete[0]) || (msg[1] && complete[1]) || (msg[2] && complete[2]) || \
                  (msg[3] && complete[3]) || (msg[4] && complete[4]) || (msg[5] && complete[5]))
#endif
#if NW == 1
#define ASLEEP   (asleep[0])
#elif NW == 2
#define ASLEEP   (asleep[0] || asleep[1])
#else
#define ASLEEP   (asleep[0] || asleep[1] || asleep[2])
#endif

proctype ringer(byte att; bool mortal)
{ byte b = 0, r = 0;
NEXT:
#ifndef MUTANT_RING_FIRST
  STEP( msg[att*ROUNDS+r] = true );
#endif
LOAD:
  STEP( b = word;
#ifdef MUTANT_IGNORE_WAKING
        if :: (b & E_WAIT) == 0 -> goto RETURN :: else fi
#else
        if :: (b & (E_WAIT|E_WAKING)) == 0 -> goto RETURN :: else fi
#endif
  );
#ifdef MUTANT_NO_COUNT
  STEP( if :: word == b -> b = (b/4)*4 + E_WAKING; word = b :: else -> goto LOAD fi );
#else
#ifdef MUTANT_CLEAR_FIRST
  STEP( if :: word == b -> b = (b/4+1)*4; word = b :: else -> goto LOAD fi );
#else
  STEP( if :: word == b -> b = E_RUNG(b); word = b :: else -> goto LOAD fi );
#endif
#endif
#ifdef MUTANT_CLEAR_BEFORE_WAKE
  STEP( if :: word == b -> word = b - E_WAKING :: else fi );
#endif
  /* futex_wake */
#ifdef MUTANT_WAKE_ONE
  STEP( if :: asleep[0] -> asleep[0] = false :: asleep[1] -> asleep[1] = false :: else fi );
#else
  STEP( asleep[0] = false;
#if NW > 1
        asleep[1] = false;
#endif
#if NW > 2
        asleep[2] = false
#endif
  );
#endif
#ifdef MUTANT_CLEAR_ANDNOT
  STEP( word = word & (255 - E_WAKING) );
#else
#if !defined(MUTANT_CLEAR_FIRST) && !defined(MUTANT_CLEAR_BEFORE_WAKE)
  /* load, then CAS of that word: one step here. A WAIT that was set since stays; a newer ring's count does not match. */
  STEP( if :: word/4 == b/4 && (word & E_WAKING) != 0 -> word = word - E_WAKING :: else fi );
#endif
#endif
RETURN:
#ifdef MUTANT_RING_FIRST
  STEP( msg[att*ROUNDS+r] = true );
#endif
  atomic { complete[att*ROUNDS+r] = true; r++; b = 0; if :: r < ROUNDS -> goto NEXT :: else fi };
DIE:
  atomic { ended++; b = 0; r = 0 }
}

proctype waiter(byte i)
{ byte b = 0;
endL:                                          /* a waiter never ends: it sleeps, or it is stopped */
  atomic { b = 0;                              /* take one unread message, if there is one */
    if :: msg[0] -> msg[0] = false; goto endL
       :: msg[1] -> msg[1] = false; goto endL
#if NM > 2
       :: msg[2] -> msg[2] = false; goto endL
#endif
#if NM > 3
       :: msg[3] -> msg[3] = false; goto endL
#endif
#if NM > 4
       :: msg[4] -> msg[4] = false; goto endL
       :: msg[5] -> msg[5] = false; goto endL
#endif
       :: else
    fi };
ARM:
#ifdef MUTANT_NO_REARM
  atomic { if :: (word & (E_WAIT|E_WAKING)) != 0 -> b = word :: else -> b = word | E_WAIT; word = b fi };
#else
  atomic { b = word | E_WAIT; word = b };      /* fetch_or */
#endif
#ifndef MUTANT_NO_RECHECK
  atomic { if :: UNREAD -> goto endL :: else fi };
#endif
SLEEP:
  atomic { if :: word == b -> asleep[i] = true :: else -> goto endL fi };    /* futex_wait: compare and queue */
endS:
  if
  :: atomic { !asleep[i] ->
#ifdef MUTANT_WAITER_CLEARS
       word = word & (255 - E_WAIT);
#endif
       goto endL }
  :: atomic { asleep[i] -> asleep[i] = false; goto SLEEP }                  /* SIGSTOP, later SIGCONT: compares again */
  fi
}

active proctype monitor()
{
endM:
  if
  :: atomic { ended == NR && ASLEEP && LOST_MSG -> assert(false) }
  :: atomic { ASLEEP && (word & (E_WAIT|E_WAKING)) == 0 -> assert(false) }
  fi
}

init { byte z = 0;
  atomic {
    do :: z < NW -> run waiter(z); z++ :: else -> break od; z = 0;
    do :: z < NR -> run ringer(z, true); z++ :: else -> break od; z = 0
  } }
