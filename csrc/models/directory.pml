/* directory.pml: the name directory, its one intent word, and the creation of records under it.
 *
 * MODELS   claim of a record (announce, FREE -> MINE, name, PEND), insert, remove and finish of csrc/agent/directory.c with a step
 *          for each word that is loaded or swapped (a record's name is read with the word that leads to it); what insert and remove
 *          report; lookup; the freeing of a FAIL and of a removed record; the reaper's help of the directory and its
 *          reap_creation; re-use of records and of a dead creator's attachment.  Both names have the same place in the table: every
 *          probe begins at word 0.
 * ACTORS   creators 0 and 1 (attachments 0 and 1, N0 and N1 creations of name 0 each), remover (attachment 2, removes one OPEN
 *          record that it found at any time before; none with REM=0, two with REM=2, as after a steal), NREAP reapers (the second
 *          may leave after any pass), a new process in attachment 0 (REUSE), a lookup of name 0 (FINDER).
 * DIES     creators (D0, D1) and remover (D2) at every step, also within finish; everybody may be stopped for any time.
 * PROPERTY 1. At most one record of a name is OPEN.
 *          2. What insert says is true: "taken" exactly if the record became FAIL, which it does only while another record of the
 *             name is OPEN; also when the creator slept through the record's removal and its next lives.
 *          3. When remove says OK the record is no longer that OPEN word, and unless it lives again no directory word names it.
 *          4. A record that is freed is named by no directory word. Nobody frees or rewrites the record of a living creator.
 *          5. At rest: no intent, every record FREE or OPEN, each OPEN one named by exactly one directory word, no word names
 *             another.
 *          6. A lookup finds a record that is OPEN and named throughout.
 * BOUNDS   NREC records, NS directory words, PRE = 1: record 0 has name 1 from the start, in word 0 (remover removes any name);
 *          PRE = 2: word 0 was used before (tomb).
 * MUTANTS  MUTANT_NO_LAST_LOOK      finish: the intent word is not looked at again before the CASes
 *          MUTANT_LOOK_EARLY        ... is looked at before the probe instead of after it
 *          MUTANT_BESIDE            insert works without the intent word
 *          MUTANT_INTENT_STORE      insert stores the intent instead of swapping it
 *          MUTANT_STATE_FIRST       finish: the record's state before the directory word
 *          MUTANT_INTENT_FIRST      finish: the intent is cleared before the record's state
 *          MUTANT_REMOVE_EARLY      remover looks at the record before it loads an empty intent
 *          MUTANT_REMOVE_BLIND      remover does not look at the record under the intent at all
 *          MUTANT_REAP_BLIND        reap_creation does not ask the directory about a PEND record
 *          MUTANT_REAP_NO_HELP      reaper does not help the directory before it looks at what the dead one had
 *          MUTANT_REAP_NO_ID        reap_creation: attachment word not looked at before the CAS
 *          MUTANT_NO_REGISTER       the record is not announced; MUTANT_REGISTER_LATE after the CAS that takes it
 *          MUTANT_STATE_ONLY        insert judges by the state instead of by FAIL(pend+1)
 *          MUTANT_ONE_FINISH        insert and remove do not look whether their intent is still there after finish
 *          MUTANT_DIR_NO_VER        directory word swapped without its version
 *          MUTANT_STATE_NO_VER      record's state swapped without its version
 *          MUTANT_TOMB_ZERO         remove overwrites the word with "never used"
 *          MUTANT_FREE_BLIND        the creator of a FAIL record frees it without comparing the word
 */
#include "words.h"
#ifndef NREC
#define NREC 2
#endif
#ifndef NS
#define NS 2
#endif
#ifndef N0
#define N0 1
#endif
#ifndef N1
#define N1 1
#endif
#ifndef D0
#define D0 1
#endif
#ifndef D1
#define D1 0
#endif
#ifndef D2
#define D2 0
#endif
#ifndef REM
#define REM 1
#endif
#ifndef NREAP
#define NREAP 1
#endif
#ifndef REUSE
#define REUSE 0
#endif
#ifndef PRE
#define PRE 0
#endif
#ifndef FINDER
#define FINDER 0
#endif
#define NA 4

/* mailbox word {ver | st | who}; who = creating attachment while MINE, PEND, FAIL */
#define MB_FAIL     5
#define REC(v,s,w)  ((v)*32+(s)*4+(w))
#define R_VER(x)    ((x)/32)
#define R_ST(x)     (((x)/4)%8)
#define R_WHO(x)    ((x)%4)
#define R_NEXT(x,s,w) REC(R_VER(x)+1,s,w)
/* directory word {ver | record+1}; 0 = never used */
#define TOMB        7
#define DIR(v,x)    ((v)*8+(x))
#define D_VER(x)    ((x)/8)
#define D_VAL(x)    ((x)%8)
/* intent {ver | remove | record+1} */
#define INT(v,r,x)  ((v)*8+(r)*4+(x))
#define I_VER(x)    ((x)/8)
#define I_REMOVE(x) (((x)/4)%2)
#define I_REC(x)    ((x)%4)
#define NIL         9

short mid[NREC]; byte dir[NS]; byte name[NREC]; byte intent;
byte id[NA]; byte reg[NA]; bool dead[NA];
/* ghosts */
byte result[NA]; byte busy = 2+REM+FINDER, reapers = NREAP; bool new_started;
#define OPENED 1
#define FAILED 2

#if NREC == 2
#define OPEN_OTHER(i) (R_ST(mid[1-(i)]) == MB_OPEN && name[1-(i)] == name[i])
#define NONE_FREE (R_ST(mid[0]) != MB_FREE && R_ST(mid[1]) != MB_FREE)
#else
#define OPEN_OTHER(i) ((R_ST(mid[((i)+1)%3]) == MB_OPEN && name[((i)+1)%3] == name[i]) || (R_ST(mid[((i)+2)%3]) == MB_OPEN && name[((i)+2)%3] == name[i]))
#define NONE_FREE (R_ST(mid[0]) != MB_FREE && R_ST(mid[1]) != MB_FREE && R_ST(mid[2]) != MB_FREE)
#endif
#if NS == 2
#define NAMES(i) ((D_VAL(dir[0]) == (i)+1) + (D_VAL(dir[1]) == (i)+1))
#else
#define NAMES(i) ((D_VAL(dir[0]) == (i)+1) + (D_VAL(dir[1]) == (i)+1) + (D_VAL(dir[2]) == (i)+1))
#endif
#ifdef MUTANT_DIR_NO_VER
#define SAME_DIR(x,y) (D_VAL(x) == D_VAL(y))
#else
#define SAME_DIR(x,y) ((x) == (y))
#endif
#ifdef MUTANT_STATE_NO_VER
#define SAME_REC(x,y) ((x)%32 == (y)%32)
#else
#define SAME_REC(x,y) ((x) == (y))
#endif
#ifdef MUTANT_TOMB_ZERO
#define GONE 0
#else
#define GONE TOMB
#endif

inline set_free(i, word) { assert(NAMES(i) == 0); mid[i] = R_NEXT(word, MB_FREE, 0) }

#define FINISH_VARS byte it = 0, ret = 0, rec = 0, nm = 0, n = 0, d = 0, at = NIL, room = NIL, aw = 0, rw = 0; short was = 0; bool taken = false

inline dir_step() {
  if
  :: I_REMOVE(it) && at != NIL ->
       STEP( if :: SAME_DIR(dir[at], aw) -> dir[at] = DIR(D_VER(dir[at])+1, GONE) :: else fi )
  :: !I_REMOVE(it) && R_ST(was) == MB_PEND && at == NIL && !taken && room != NIL ->
       STEP( if :: SAME_DIR(dir[room], rw) -> dir[room] = DIR(D_VER(dir[room])+1, rec+1) :: else fi )
  :: else
  fi
}
inline state_step() {
  if
  :: I_REMOVE(it) && R_ST(was) == MB_OPEN ->
       STEP( if :: SAME_REC(mid[rec], was) -> mid[rec] = R_NEXT(mid[rec], MB_REMOVING, 0) :: else fi )
  :: !I_REMOVE(it) && R_ST(was) == MB_PEND && at == NIL && (taken || room == NIL) ->
       STEP( if :: SAME_REC(mid[rec], was) -> assert(OPEN_OTHER(rec)); result[R_WHO(was)] = FAILED;
                     mid[rec] = R_NEXT(mid[rec], MB_FAIL, R_WHO(was)) :: else fi )
  :: !I_REMOVE(it) && R_ST(was) == MB_PEND && (at != NIL || (!taken && room != NIL)) ->
       STEP( if :: SAME_REC(mid[rec], was) -> assert(!OPEN_OTHER(rec)); result[R_WHO(was)] = OPENED;
                     mid[rec] = R_NEXT(mid[rec], MB_OPEN, 0) :: else fi )
  :: else
  fi
}
inline intent_step() { STEP( if :: intent == it -> intent = INT(I_VER(it)+1, 0, 0); assert(I_VER(intent) < 30) :: else fi ) }

/* finishes the intent `it`; goes on behind it, where the caller looks at `ret` */
inline finish() {
  skip;                                                         /* never reached: entered at FIN */
FIN:
  rec = I_REC(it)-1;
  STEP( was = mid[rec]; nm = name[rec] );                       /* names change only while MINE */
#ifdef MUTANT_LOOK_EARLY
  STEP( if :: intent != it -> goto FINISHED :: else fi );
#endif
PROBE:
  if :: n >= NS -> goto LAST :: else fi;
  STEP( d = dir[n];
        if
        :: D_VAL(d) == 0 -> if :: room == NIL -> room = n; rw = d :: else fi; d = 0; goto LAST
        :: D_VAL(d) == TOMB -> if :: room == NIL -> room = n; rw = d :: else fi; d = 0; n++; goto PROBE
        :: D_VAL(d) == rec+1 -> at = n; aw = d; d = 0; n++; goto PROBE
        :: else -> taken = taken || name[D_VAL(d)-1] == nm; d = 0; n++; goto PROBE
        fi );
LAST:
  n = 0; nm = 0;
#if !defined(MUTANT_NO_LAST_LOOK) && !defined(MUTANT_LOOK_EARLY)
  STEP( if :: intent != it -> goto FINISHED :: else fi );
#endif
#ifdef MUTANT_STATE_FIRST
  state_step(); dir_step(); intent_step();
#else
#ifdef MUTANT_INTENT_FIRST
  dir_step(); intent_step(); state_step();
#else
  dir_step(); state_step(); intent_step();
#endif
#endif
FINISHED:
  rec = 0; nm = 0; n = 0; at = NIL; room = NIL; aw = 0; rw = 0; was = 0; taken = false
}

/* creates name 0, x times */
proctype creator(byte att; byte x; bool mortal)
{ byte i = 0, mine = 0; short w = 0; FINISH_VARS;
CLAIM:
  if :: x == 0 -> goto DIE :: else fi;
  atomic { result[att] = 0;
  if
  :: R_ST(mid[0]) == MB_FREE -> i = 0; w = mid[0]
  :: R_ST(mid[1]) == MB_FREE -> i = 1; w = mid[1]
#if NREC > 2
  :: R_ST(mid[2]) == MB_FREE -> i = 2; w = mid[2]
#endif
  :: NONE_FREE -> x = 0; goto ENDED
  fi };
#if !defined(MUTANT_NO_REGISTER) && !defined(MUTANT_REGISTER_LATE)
  STEP( reg[att] = i+1 );
#endif
  STEP( if :: mid[i] == w -> w = R_NEXT(w, MB_MINE, att); mid[i] = w :: else -> i = 0; w = 0; goto CLAIM fi );
#ifdef MUTANT_REGISTER_LATE
  STEP( reg[att] = i+1 );
#endif
  STEP( assert(mid[i] == w); name[i] = 0 );
  STEP( assert(mid[i] == w); w = R_NEXT(w, MB_PEND, att); mid[i] = w );
INSERT:
#ifdef MUTANT_BESIDE
  it = INT(I_VER(intent)+1, 0, i+1);
  rec = i;
  STEP( intent = it );                                          /* so that finish goes on; nobody else's intent is respected */
#else
  STEP( it = intent; if :: I_REC(it) != 0 -> ret = 1; goto FIN :: else fi );
#ifdef MUTANT_INTENT_STORE
  STEP( it = INT(I_VER(it)+1, 0, i+1); intent = it );
#else
  STEP( if :: intent == it -> it = INT(I_VER(it)+1, 0, i+1); intent = it :: else -> it = 0; goto INSERT fi );
#endif
#endif
  mine = it; ret = 2; goto FIN;
AGAIN:
#ifndef MUTANT_ONE_FINISH
  STEP( if :: intent == mine -> it = mine; ret = 2; goto FIN :: else fi );
#endif
  mine = 0;
  STEP( assert(result[att] != 0);
#ifdef MUTANT_STATE_ONLY
        if :: R_ST(mid[i]) == MB_FAIL ->
#else
        if :: R_ST(mid[i]) == MB_FAIL && R_VER(mid[i]) == R_VER(w)+1 ->
#endif
               assert(result[att] == FAILED); w = R_NEXT(w, MB_FAIL, att)
           :: else -> assert(result[att] == OPENED); w = 0
        fi );
  if
  :: w != 0 ->
#ifdef MUTANT_FREE_BLIND
       STEP( assert(mid[i] == w); set_free(i, mid[i]) )
#else
       STEP( if :: mid[i] == w -> set_free(i, w) :: else -> assert(false) fi )
#endif
  :: else
  fi;
  STEP( reg[att] = 0; i = 0; w = 0; x--; goto CLAIM );
  finish();
  it = 0;
  if :: ret == 1 -> ret = 0; goto INSERT :: ret == 2 -> ret = 0; goto AGAIN fi;
ENDED:
  STEP( reg[att] = 0 );
DIE:
  atomic { busy--; i = 0; mine = 0; w = 0; x = 0; it = 0; ret = 0; rec = 0; nm = 0; n = 0; d = 0; at = NIL; room = NIL; aw = 0; rw = 0;
           was = 0; taken = false }
}

proctype remover(byte att; bool mortal)
{ byte i = 0, mine = 0; short w = 0; FINISH_VARS;
  if                                                            /* what it has found, perhaps long ago */
  :: atomic { R_ST(mid[0]) == MB_OPEN -> i = 0; w = mid[0] }
  :: atomic { R_ST(mid[1]) == MB_OPEN -> i = 1; w = mid[1] }
#if NREC > 2
  :: atomic { R_ST(mid[2]) == MB_OPEN -> i = 2; w = mid[2] }
#endif
  :: atomic { busy <= REM -> goto DIE }
  fi;
REMOVE:
#ifdef MUTANT_REMOVE_EARLY
  STEP( if :: mid[i] != w -> goto DIE :: else fi );
#endif
  STEP( it = intent; if :: I_REC(it) != 0 -> ret = 1; goto FIN :: else fi );
#if !defined(MUTANT_REMOVE_EARLY) && !defined(MUTANT_REMOVE_BLIND)
  STEP( if :: mid[i] != w -> goto DIE :: else fi );             /* says STALE: nothing was done */
#endif
  STEP( if :: intent == it -> assert(mid[i] == w); it = INT(I_VER(it)+1, 1, i+1); intent = it :: else -> it = 0; goto REMOVE fi );
  mine = it; ret = 2; goto FIN;
AGAIN:
#ifdef MUTANT_ONE_FINISH
  STEP(
#else
  STEP( if :: intent == mine -> it = mine; ret = 2; goto FIN :: else fi;
#endif
        assert(mid[i] != w && R_VER(mid[i]) > R_VER(w));        /* says OK */
        assert(mid[i] != R_NEXT(w, MB_REMOVING, 0) || NAMES(i) == 0); mine = 0; w = R_NEXT(w, MB_REMOVING, 0) );
  STEP( if :: mid[i] == w -> set_free(i, w) :: else fi );       /* emptied: remove.pml */
  goto DIE;
  finish();
  it = 0;
  if :: ret == 1 -> ret = 0; goto REMOVE :: ret == 2 -> ret = 0; goto AGAIN fi;
DIE:
  atomic { busy--; i = 0; mine = 0; w = 0; it = 0; ret = 0; rec = 0; nm = 0; n = 0; d = 0; at = NIL; room = NIL; aw = 0; rw = 0; was = 0;
           taken = false }
}

#if FINDER
proctype finder()
{ byte n = 0, v = 0, gp = NIL, gd = 0; short w = 0, gw = 0;
  atomic {                                                      /* ghost: a record that is named and OPEN as the search begins */
    if
    :: D_VAL(dir[0]) != 0 && D_VAL(dir[0]) != TOMB && R_ST(mid[D_VAL(dir[0])-1]) == MB_OPEN && name[D_VAL(dir[0])-1] == 0 -> gp = 0
    :: D_VAL(dir[1]) != 0 && D_VAL(dir[1]) != TOMB && R_ST(mid[D_VAL(dir[1])-1]) == MB_OPEN && name[D_VAL(dir[1])-1] == 0 -> gp = 1
    :: else -> goto OVER
    fi;
    gd = dir[gp]; gw = mid[D_VAL(gd)-1] };
LOOK:
  atomic { if :: n >= NS || D_VAL(dir[n]) == 0 -> assert(dir[gp] != gd || mid[D_VAL(gd)-1] != gw); goto OVER
              :: else -> v = D_VAL(dir[n]) fi;
           n++; if :: v == TOMB -> goto LOOK :: else fi };
  atomic { w = mid[v-1]; if :: R_ST(w) != MB_OPEN -> goto LOOK :: else fi };
  atomic { if :: name[v-1] != 0 -> goto LOOK :: else fi };
  atomic { if :: mid[v-1] == w -> assert(name[v-1] == 0) :: else -> goto LOOK fi };
OVER:
  atomic { busy--; n = 0; v = 0; gp = 0; gd = 0; w = 0; gw = 0 }
}
#endif

#define TO_REAP(x) (dead[x] && (id[x] == ID(1,LIVE) || id[x] == ID(1,REAP)))
proctype reaper(bool leaves)
{ byte a = 0, i = 0; short w = 0; bool mortal = false; byte att = 0; FINISH_VARS;
NEXT:
  if
#if D0
  :: atomic { TO_REAP(0) -> a = 0 }
#endif
#if D1
  :: atomic { TO_REAP(1) -> a = 1 }
#endif
#if D2
  :: atomic { TO_REAP(2) -> a = 2 }
#endif
  :: atomic { busy == 0 && !TO_REAP(0) && !TO_REAP(1) && !TO_REAP(2) -> goto DIE }
  fi;
  atomic { if :: id[a] == ID(1,LIVE) -> id[a] = ID(1,REAP) :: id[a] == ID(1,REAP) :: else -> goto OVER fi };
#ifndef MUTANT_REAP_NO_HELP
  STEP( it = intent; if :: I_REC(it) != 0 -> ret = 1; goto FIN :: else fi );
CELL:
#endif
  STEP( i = reg[a]; if :: i == 0 -> goto VACATE :: else -> i-- fi );
LOOK:
  STEP( w = mid[i];
        if :: (R_ST(w) != MB_MINE && R_ST(w) != MB_PEND && R_ST(w) != MB_FAIL) || R_WHO(w) != a -> i = 0; w = 0; goto VACATE :: else fi );
#ifndef MUTANT_REAP_BLIND
  if
  :: R_ST(w) == MB_PEND -> STEP( it = intent; if :: I_REC(it) == i+1 -> w = 0; ret = 2; goto FIN :: else -> it = 0 fi )
  :: else
  fi;
#endif
#ifndef MUTANT_REAP_NO_ID
  STEP( if :: id[a] != ID(1,REAP) -> goto OVER :: else fi );
#endif
  STEP( if :: mid[i] == w -> assert(dead[a]); set_free(i, w) :: else fi; w = 0; goto LOOK );
  finish();
  it = 0;
  if
#ifndef MUTANT_REAP_NO_HELP
  :: ret == 1 -> ret = 0; goto CELL
#endif
  :: ret == 2 -> ret = 0; goto LOOK
  fi;
VACATE:
  if
  :: a == 2 ->                                                  /* a removal half done is finished: remove.pml */
       atomic { i = 0; do :: i < NREC -> if :: R_ST(mid[i]) == MB_REMOVING -> set_free(i, mid[i]) :: else fi; i++ :: else -> break od; i = 0 }
  :: else
  fi;
  atomic { if :: id[a] == ID(1,REAP) -> id[a] = ID(1,VACANT) :: else fi };
#if REUSE
  atomic { if :: a == 0 && id[0] == ID(1,VACANT) && !new_started ->
                   id[0] = ID(2,LIVE); dead[0] = false; reg[0] = 0; new_started = true; busy++; run creator(0, 1, false)
              :: else fi };
#endif
OVER:
  a = 0; i = 0; w = 0; it = 0;
  if :: leaves -> goto DIE :: goto NEXT fi;
DIE:
  atomic { reapers--; a = 0; i = 0; w = 0; it = 0; ret = 0 }
}

init { byte z;
  atomic {
    id[0] = ID(1,LIVE); id[1] = ID(1,LIVE); id[2] = ID(1,LIVE); id[3] = ID(1,LIVE);
#if PRE == 1
    mid[0] = REC(3,MB_OPEN,0); name[0] = 1; dir[0] = DIR(1,1);
#endif
#if PRE == 2
    dir[0] = DIR(2,TOMB);
#endif
    run creator(0, N0, D0); run creator(1, N1, D1);
#if REM
    run remover(2, D2);
#endif
#if REM > 1
    run remover(3, false);
#endif
#if FINDER
    run finder();
#endif
    run reaper(false);
#if NREAP > 1
    run reaper(true);
#endif
  };
  atomic { busy == 0 && reapers == 0 ->
    assert(I_REC(intent) == 0);
    z = 0; do :: z < NREC ->
      assert(R_ST(mid[z]) == MB_FREE || R_ST(mid[z]) == MB_OPEN);
      assert(NAMES(z) == (R_ST(mid[z]) == MB_OPEN));
      assert(R_ST(mid[z]) != MB_OPEN || !OPEN_OTHER(z)); z++
    :: else -> break od; z = 0 }
}
