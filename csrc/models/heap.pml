/* heap.pml: one blob and all who may hold it, against collectors that free what nobody holds.
 *
 * MODELS   the blob's state word {version | DEAD, FILL, LIVE, CHECK}, ledger cells, a ref that names it, put (announce, claim, fill,
 *          publish, name, let go), read (hold, rescue, look at the ref again), delete, collect (mark, ledgers, then refs, decide),
 *          the next use of the blob.
 * ACTORS   putter (ledger 0; names the blob by the ref, then lets go), reader (ledger 1; READS times), deleter (takes the ref's
 *          value away), NCOL collectors, filler (ledger 2; uses the blob anew when it is free, without naming it).
 * DIES     the putter at every step, and its ledger is emptied by a reaper after that; all may be stopped at any step for any time.
 * PROPERTY 1. What the reader has verified stays as it was put while it holds it.  2. A blob that the ref names is never free.
 *          3. After all have ended and one more collection, what nobody holds is free.
 * BOUNDS   one blob, NCOL collectors, READS.
 * MUTANTS  MUTANT_REFS_FIRST     the collector looks at refs before ledgers
 *          MUTANT_NO_RESCUE      the reader takes a blob in CHECK for good without making it LIVE
 *          MUTANT_NO_REF_CHECK   the reader does not look at the ref again
 *          MUTANT_CHECK_EARLY    ... looks at it before it holds
 *          MUTANT_LET_GO_EARLY   the putter lets go before the ref has it
 *          MUTANT_LATE_LEDGER    the putter announces when it has published
 *          MUTANT_DECIDE_STORE   the collector frees by a store
 *          MUTANT_NO_LEDGERS     the collector looks at refs alone
 */
#define B_DEAD  0
#define B_FILL  1
#define B_LIVE  2
#define B_CHECK 3
#define B_FILL2 4 /* by the filler: the word says whose it is */
#define ST(v,s)  ((v)*8+(s))
#define S_VER(w) ((w)/8)
#define S_ST(w)  ((w)%8)
#define R(v,b)   ((v)*2+(b))
#define R_VER(w) ((w)/2)
#define R_BLOB(w) ((w)%2)
#ifndef NCOL
#define NCOL 2
#endif
#ifndef READS
#define READS 1
#endif

byte st, ref; bool ledger[3]; byte content;
/* ghosts */
bool dead, reading; byte procs = 4 + NCOL;

inline make(word) { st = word; assert(S_ST(word) != B_DEAD || (R_BLOB(ref) == 0 && !reading)) }
#define STEP(...)  if :: atomic { true; __VA_ARGS__ } :: atomic { mortal -> dead = true; goto DIE } fi

proctype putter(bool mortal)
{ byte w = 0, r = 0;
#ifndef MUTANT_LATE_LEDGER
  STEP( ledger[0] = true );
#endif
  STEP( w = st );
  STEP( if :: st == w && S_ST(w) == B_DEAD -> w = ST(S_VER(w)+1, B_FILL); st = w :: else -> ledger[0] = false; goto DIE fi );
  STEP( content = 1 );
  STEP( assert(st == w); w = ST(S_VER(w)+1, B_LIVE); st = w );
#ifdef MUTANT_LATE_LEDGER
  STEP( ledger[0] = true );
#endif
  STEP( r = ref );
#ifdef MUTANT_LET_GO_EARLY
  STEP( ledger[0] = false );
#endif
  STEP( assert(ref == r); ref = R(R_VER(r)+1, 1); assert(S_ST(st) == B_LIVE || S_ST(st) == B_CHECK); assert(content == 1) );
#ifndef MUTANT_LET_GO_EARLY
  STEP( ledger[0] = false );
#endif
DIE:
  atomic { w = 0; r = 0; if :: dead -> run reaper() :: else -> procs-- fi }
}

proctype reaper()
{ byte w = 0;
  atomic { w = st };
  atomic { if :: S_ST(w) == B_FILL && st == w -> make(ST(S_VER(w)+1, B_DEAD)) :: else fi };
  atomic { ledger[0] = false; procs--; w = 0 }
}

proctype reader()
{ byte r = 0, w = 0, n = READS;
NEXT:
  if :: n == 0 -> goto END :: else -> n-- fi;
  atomic { r = ref };
  if :: R_BLOB(r) == 0 -> goto NEXT :: else fi;
#ifdef MUTANT_CHECK_EARLY
  atomic { if :: ref != r -> goto NEXT :: else fi };
#endif
  atomic { ledger[1] = true };
LOOK:
  atomic { w = st };
  if
  :: S_ST(w) == B_LIVE
#ifdef MUTANT_NO_RESCUE
  :: S_ST(w) == B_CHECK
#else
  :: S_ST(w) == B_CHECK -> atomic { if :: st == w -> make(ST(S_VER(w)+1, B_LIVE)) :: else -> goto LOOK fi }
#endif
  :: else -> goto DROP
  fi;
#if !defined(MUTANT_NO_REF_CHECK) && !defined(MUTANT_CHECK_EARLY)
  atomic { if :: ref != r -> goto DROP :: else -> reading = true fi };
#else
  atomic { reading = true };
#endif
  atomic { assert(content == 1) };
  atomic { assert(content == 1); reading = false };
DROP:
  atomic { ledger[1] = false; goto NEXT };
END:
  atomic { procs--; r = 0; w = 0 }
}

proctype deleter()
{ byte r = 0;
  atomic { r = ref };
  atomic { if :: R_BLOB(r) == 1 && ref == r -> ref = R(R_VER(r)+1, 0) :: else fi; procs--; r = 0 }
}

proctype filler()
{ byte w = 0;
  atomic { w = st; if :: S_ST(w) != B_DEAD -> goto END :: else fi };
  atomic { ledger[2] = true };
  atomic { if :: st == w -> w = ST(S_VER(w)+1, B_FILL2); st = w :: else -> ledger[2] = false; goto END fi };
  atomic { content = 2 };
  atomic { assert(st == w); w = ST(S_VER(w)+1, B_LIVE); st = w };
  atomic { ledger[2] = false };
END:
  atomic { procs--; w = 0 }
}

#define DECIDE(w) if :: found -> make(ST(S_VER(w)+1, B_LIVE)) :: else -> make(ST(S_VER(w)+1, B_DEAD)) fi

proctype collector()
{ byte w = 0, i = 0; bool found = false;
  atomic { w = st };
  if
  :: S_ST(w) == B_LIVE -> atomic { if :: st == w -> w = ST(S_VER(w)+1, B_CHECK); st = w :: else -> goto END fi }
  :: S_ST(w) == B_CHECK                                        /* another left it: all is looked at after this load */
  :: else -> goto END
  fi;
#ifdef MUTANT_REFS_FIRST
  atomic { if :: R_BLOB(ref) == 1 -> found = true :: else fi };
#endif
#ifndef MUTANT_NO_LEDGERS
LEDGERS:
  atomic { if :: ledger[i] -> found = true :: else fi; i++; if :: i < 3 -> goto LEDGERS :: else fi };
#endif
#ifndef MUTANT_REFS_FIRST
  atomic { if :: R_BLOB(ref) == 1 -> found = true :: else fi };
#endif
#ifdef MUTANT_DECIDE_STORE
  atomic { DECIDE(w) };
#else
  atomic { if :: st == w -> DECIDE(w) :: else fi };
#endif
END:
  atomic { procs--; w = 0; i = 0; found = false }
}

init { byte z;
  atomic {
    run putter(true); run reader(); run deleter(); run filler();
    z = 0; do :: z < NCOL -> run collector(); z++ :: else -> break od; z = 0 };
  atomic { procs == 0 -> procs++; run collector() };
  atomic { procs == 0 -> assert(!ledger[0] && !ledger[1] && !ledger[2]); assert(S_ST(st) == B_DEAD || R_BLOB(ref) == 1) }
}
