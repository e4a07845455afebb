/* lease.pml: a lease (a lock, a leadership): holders that are killed at any step, helping reapers, a thief, the attachment's next
 * life.
 *
 * MODELS   the lease word {version | nobody, attachment, DIED}, the bus's one counter of versions, the word that says that an
 *          attachment may hold leases, take (load, draw, CAS), give back, bury by reapers, re-use of the attachment.
 * ACTORS   holder 1 (attachment 2, life 1, takes and gives back R1 times), holder 2 (attachment 1, lives; STEAL: takes it also from
 *          the living), NREAP reapers, holder 3 (attachment 2, life 2, started when the attachment became VACANT).
 * DIES     holder 1 at every step; all others may be stopped at any step for any time.
 * PROPERTY 1. One holds it at a time; who takes it from a dead one is told.  2. Successive holders have growing versions.  3. A late
 *          reaper of life 1 takes nothing from life 2.  4. Whoever was robbed is told, and takes nothing from who robbed it.
 *          5. Nobody waits for ever.
 * BOUNDS   R1, R2 turns of the holders, NREAP reapers.
 * MUTANTS  MUTANT_NO_ID_CHECK     reaper buries without looking at the attachment word again
 *          MUTANT_ID_CHECK_EARLY  ... looks at it before it reads the lease word
 *          MUTANT_TAKE_STORE      take is a store
 *          MUTANT_GIVE_STORE      giving back is a store
 *          MUTANT_BURY_STORE      burying is a store
 *          MUTANT_DRAW_EARLY      the version is drawn before the word is loaded
 *          MUTANT_FLAG_LATE       the attachment says that it may hold leases after it took one
 *          MUTANT_NO_BURY         reapers leave leases alone
 */
#include "words.h"
#ifndef R1
#define R1 2
#endif
#ifndef R2
#define R2 1
#endif
#ifndef NREAP
#define NREAP 2
#endif
#ifndef STEAL
#define STEAL 0
#endif
#ifdef MUTANT_TAKE_STORE
#define CHANGED(w) false
#else
#define CHANGED(w) (word != w)
#endif
#define NOBODY 0
#define DEAD 7
#define W(v,k) ((v)*8 + (k))
#define W_VER(w) ((w) / 8)
#define W_WHO(w) ((w) % 8)

short word; byte version, last;
byte id2; bool leases2, dead[3], started;
/* ghosts */
byte inside; byte reapers = NREAP, procs = 2;

proctype holder(byte att; byte turns; bool mortal; bool steals)
{ short w = 0, mine = 0; byte v = 0;
NEXT:
  if :: turns == 0 -> goto DIE :: else -> turns-- fi;
TAKE:
#ifdef MUTANT_DRAW_EARLY
  STEP( version++; v = version );
#endif
  STEP( w = word );
  if
  :: W_WHO(w) != NOBODY && W_WHO(w) != DEAD && !steals ->
       if                                                       /* held: sleeps until it changes */
       :: atomic { word != w -> w = 0; v = 0; goto TAKE }
       :: atomic { mortal -> dead[att] = true; goto DIE }
       fi
  :: else
  fi;
#ifndef MUTANT_FLAG_LATE
  STEP( if :: att == 2 -> leases2 = true :: else fi );
#endif
#ifndef MUTANT_DRAW_EARLY
  STEP( version++; v = version );
#endif
  STEP( if :: CHANGED(w) -> w = 0; v = 0; goto TAKE :: else fi; mine = W(v, att); word = mine;
        assert(inside == NOBODY || W_WHO(w) == DEAD || steals);  /* alone, or told of the dead one, or by force */
        assert(v > last); last = v; inside = att; w = 0 );
#ifdef MUTANT_FLAG_LATE
  STEP( if :: att == 2 -> leases2 = true :: else fi );
#endif
  STEP( assert(word == mine || STEAL) );                         /* holds it */
  STEP( version++; v = version );
#ifdef MUTANT_GIVE_STORE
  STEP( assert(!steals || word == mine); word = W(v, NOBODY); inside = NOBODY );
#else
  STEP( if :: word == mine -> word = W(v, NOBODY); inside = NOBODY
           :: else -> assert(STEAL && !steals)                   /* robbed, and told so */
        fi );
#endif
  atomic { mine = 0; v = 0; goto NEXT };
DIE:
  atomic { procs--; w = 0; mine = 0; v = 0; turns = 0 }
}

proctype reaper()
{ short w = 0;
  if
  :: atomic { dead[2] }
  :: atomic { procs == 0 && !dead[2] -> goto END }
  fi;
  atomic { if :: id2 == ID(1,LIVE) -> id2 = ID(1,REAP) :: id2 == ID(1,REAP) :: else -> goto END fi };
#ifdef MUTANT_ID_CHECK_EARLY
  atomic { if :: id2 != ID(1,REAP) -> goto END :: else fi };
#endif
#ifndef MUTANT_NO_BURY
  atomic { if :: !leases2 -> goto VACATE :: else fi };
  atomic { w = word; if :: W_WHO(w) != 2 -> goto VACATE :: else fi };
#if !defined(MUTANT_NO_ID_CHECK) && !defined(MUTANT_ID_CHECK_EARLY)
  atomic { if :: id2 != ID(1,REAP) -> goto END :: else fi };
#endif
#ifdef MUTANT_BURY_STORE
  atomic { word = W(W_VER(w), DEAD) };
#else
  atomic { if :: word == w -> word = W(W_VER(w), DEAD) :: else fi };
#endif
#endif
VACATE:
  w = 0;
  atomic { if :: id2 == ID(1,REAP) -> id2 = ID(2,LIVE); started = true; leases2 = false; procs++; run holder(2, 1, false, false)
              :: else fi };
END:
  atomic { reapers--; w = 0 }
}

init { byte z;
  atomic {
    id2 = ID(1,LIVE);
    run holder(2, R1, true, false); run holder(1, R2, false, STEAL);
    z = 0; do :: z < NREAP -> run reaper(); z++ :: else -> break od; z = 0 };
  atomic { procs == 0 && reapers == 0 -> assert(W_WHO(word) == NOBODY || W_WHO(word) == DEAD) }
}
