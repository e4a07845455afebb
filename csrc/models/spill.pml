/* spill.pml: one blob that goes to disk and comes back, against who looks at it, deletes it, collects.
 *
 * MODELS   the blob's state word {version | DEAD, LIVE, CHECK, SPILLING, SPILLED}, the reader's ledger cell, the index word {version | none,
 *          this blob, the one it was read back into}, the files by version, written beside and renamed (evict_one, write_out, cfn_recall,
 *          hold, cfn_heap_hold, cfn_bus_object_delete, the collector's look at what is SPILLED without a name).
 * ACTORS   NSPILL spillers (each may take over what another is at, or a collector has in CHECK), reader (ledger; READS times: rescues what is SPILLING, reads SPILLED from its file), recaller (moves the
 *          name to a blob of its own), deleter, collector.
 * DIES     the first spiller at every step, and is reaped after that; all may be stopped at any step for any time.
 * PROPERTY 1. Pages that somebody looks at are the blob's (it is neither SPILLED nor DEAD) until they let go.  2. What the index names is
 *          not DEAD, and if it is SPILLED its file is there.  3. Who finds no file finds another word, too.  4. After all have ended,
 *          one collection and a sweep: without a name it is DEAD, and there is a file only of what is SPILLED.
 * BOUNDS   one blob, NSPILL spillers, READS.
 * MUTANTS  MUTANT_NO_RESCUE     the reader takes one that is SPILLING as it is
 *          MUTANT_NO_LEDGER     the spiller does not look at the holders
 *          MUTANT_LEDGER_FIRST  ... looks at them before it says SPILLING
 *          MUTANT_NO_LAST_NAME  ... does not look at the name again (and nobody collects)
 *          MUTANT_STORE         ... says SPILLED by a store
 *          MUTANT_KEEP_LATE     ... renames the file after it says SPILLED
 *          MUTANT_DROP_FIRST    the recaller ends the old one before the name has moved
 *          MUTANT_BLIND_DROP    the collector ends what is SPILLED, named or not
 *          MUTANT_NO_REREAD     the reader takes a missing file for a lost one
 */
#define B_DEAD     0
#define B_LIVE     2
#define B_CHECK    3
#define B_SPILLING 4
#define B_SPILLED  5
#define ST(v,s)  ((v)*8+(s))
#define S_VER(w) ((w)/8)
#define S_ST(w)  ((w)%8)
#define N(v,b)   ((v)*4+(b)) /* b: 0 none, 1 this one, 2 the other */
#define N_VER(w) ((w)/4)
#define N_B(w)   ((w)%4)
#ifndef NSPILL
#define NSPILL 2
#endif
#ifndef READS
#define READS 2
#endif
#define BIT(v) (1 << (v))

byte st = ST(0, B_LIVE), idx = N(0, 1); bool ledger; short files, news;
/* ghosts */
bool reading; byte procs = 4 + NSPILL;

inline make(word) {
  st = word;
  assert(!reading || (S_ST(word) != B_DEAD && S_ST(word) != B_SPILLED));
  assert(N_B(idx) != 1 || S_ST(word) != B_DEAD);
#ifndef MUTANT_KEEP_LATE
  assert(N_B(idx) != 1 || S_ST(word) != B_SPILLED || (files & BIT(S_VER(word))))
#endif
}
inline drop(v) { assert(N_B(idx) != 1 || st != ST(v, B_SPILLED)); files = files & ~BIT(v) }
/* One that is SPILLED by `w` and has no name. */
#define DROP_SPILLED(w) \
  atomic { if :: st == w -> make(ST(S_VER(w)+1, B_DEAD)) :: else -> w = 0 fi }; \
  atomic { if :: w != 0 -> drop(S_VER(w)) :: else fi }
#define STEP(...)  if :: atomic { true; __VA_ARGS__ } :: atomic { mortal -> dead = true; goto DIE } fi

proctype spiller(bool mortal)
{ byte w = 0; bool held = false, dead = false, mine = false;
#ifdef MUTANT_LEDGER_FIRST
  STEP( held = ledger );
#endif
  STEP( w = st; if :: S_ST(w) != B_LIVE && S_ST(w) != B_CHECK && S_ST(w) != B_SPILLING -> goto DIE :: else fi );
  STEP( if :: st == w -> w = ST(S_VER(w)+1, B_SPILLING); make(w); mine = true :: else -> goto DIE fi );
#if !defined(MUTANT_NO_LEDGER) && !defined(MUTANT_LEDGER_FIRST)
  STEP( held = ledger );
#endif
  STEP( if :: held || N_B(idx) != 1 -> goto BACK :: else fi );
  STEP( news = news | BIT(S_VER(w)) );
  STEP( if :: st != w -> news = news & ~BIT(S_VER(w)); goto DIE :: else fi );
#ifndef MUTANT_KEEP_LATE
  STEP( news = news & ~BIT(S_VER(w)); files = files | BIT(S_VER(w)+1) );
#endif
#ifdef MUTANT_STORE
  STEP( w = ST(S_VER(w)+1, B_SPILLED); make(w) );
#else
  STEP( if :: st == w -> w = ST(S_VER(w)+1, B_SPILLED); make(w) :: else -> drop(S_VER(w)+1); goto DIE fi );
#endif
#ifdef MUTANT_KEEP_LATE
  STEP( news = news & ~BIT(S_VER(w)-1); files = files | BIT(S_VER(w)) );
#endif
#ifndef MUTANT_NO_LAST_NAME
  STEP( if :: N_B(idx) == 1 -> goto DIE :: else fi );
  STEP( if :: st == w -> make(ST(S_VER(w)+1, B_DEAD)) :: else -> goto DIE fi );
  STEP( drop(S_VER(w)) );
#endif
  goto DIE;
BACK:
  STEP( if :: st == w -> make(ST(S_VER(w)+1, B_LIVE)) :: else fi );
DIE:
  atomic { /* the reaper of a dead one: its ledger names the blob */
    if :: dead && mine && S_ST(st) == B_SPILLING && st == w -> make(ST(S_VER(w)+1, B_LIVE)) :: else fi;
    w = 0; held = false; procs-- }
}

proctype reader()
{ byte n = READS, i = 0, w = 0;
NEXT:
  if :: n == 0 -> goto END :: else -> n-- fi;
AGAIN:
  atomic { i = idx };
  if :: N_B(i) != 1 -> goto NEXT :: else fi;   /* not there, or in memory, where nobody takes it away in this model */
  atomic { w = st };
  if
  :: S_ST(w) == B_SPILLED ->
    atomic { if
      :: (files & BIT(S_VER(w))) -> goto NEXT  /* it is open: the bytes are there whatever happens to the name */
      :: else fi };
#ifdef MUTANT_NO_REREAD
    assert(false);
#else
    atomic { assert(idx != i || st != w); goto AGAIN };
#endif
  :: else
  fi;
  atomic { ledger = true };
LOOK:
  atomic { w = st };
  if
  :: S_ST(w) == B_LIVE
#ifdef MUTANT_NO_RESCUE
  :: S_ST(w) == B_SPILLING
  :: S_ST(w) == B_CHECK -> atomic { if :: st == w -> make(ST(S_VER(w)+1, B_LIVE)) :: else -> goto LOOK fi }
#else
  :: S_ST(w) == B_CHECK || S_ST(w) == B_SPILLING -> atomic { if :: st == w -> make(ST(S_VER(w)+1, B_LIVE)) :: else -> goto LOOK fi }
#endif
  :: else -> goto DROP
  fi;
  atomic { if :: idx != i -> goto DROP :: else -> reading = true; assert(S_ST(st) != B_DEAD && S_ST(st) != B_SPILLED) fi };
  atomic { assert(S_ST(st) != B_DEAD && S_ST(st) != B_SPILLED); reading = false; ledger = false; goto NEXT };
DROP:
  atomic { ledger = false; goto AGAIN };
END:
  atomic { procs--; i = 0; w = 0 }
}

proctype recaller()
{ byte i = 0, w = 0;
  atomic { i = idx; if :: N_B(i) != 1 -> goto END :: else fi };
  atomic { w = st; if :: S_ST(w) != B_SPILLED -> goto END :: else fi };
  atomic { if :: (files & BIT(S_VER(w))) == 0 -> assert(idx != i || st != w); goto END :: else fi };
#ifdef MUTANT_DROP_FIRST
  DROP_SPILLED(w);
#endif
  atomic { if :: idx == i -> idx = N(N_VER(i)+1, 2) :: else -> goto END fi };
#ifndef MUTANT_DROP_FIRST
  DROP_SPILLED(w);
#endif
END:
  atomic { procs--; i = 0; w = 0 }
}

proctype deleter()
{ byte i = 0, w = 0;
  atomic { i = idx };
  atomic { if :: N_B(i) != 0 && idx == i -> idx = N(N_VER(i)+1, 0) :: else -> goto END fi };
  if :: N_B(i) != 1 -> goto END :: else fi;
  atomic { w = st; if :: S_ST(w) != B_SPILLED -> goto END :: else fi };
  DROP_SPILLED(w);
END:
  atomic { procs--; i = 0; w = 0 }
}

proctype collector()
{ byte w = 0; bool found = false;
  atomic { w = st };
  if
  :: S_ST(w) == B_SPILLED ->
#ifndef MUTANT_BLIND_DROP
    atomic { if :: N_B(idx) == 1 -> goto END :: else fi };
#endif
    DROP_SPILLED(w); goto END
  :: S_ST(w) == B_LIVE -> atomic { if :: st == w -> w = ST(S_VER(w)+1, B_CHECK); st = w :: else -> goto END fi }
  :: S_ST(w) == B_CHECK
  :: else -> goto END
  fi;
  atomic { found = ledger };
  atomic { found = found || N_B(idx) == 1 };
  atomic { if :: st == w -> if :: found -> make(ST(S_VER(w)+1, B_LIVE)) :: else -> make(ST(S_VER(w)+1, B_DEAD)) fi :: else fi };
END:
  atomic { procs--; w = 0; found = false }
}

init { byte z;
  atomic {
    z = 0; do :: z < NSPILL -> run spiller(z == 0); z++ :: else -> break od; z = 0;
    run reader(); run recaller(); run deleter(); run collector() };
#ifndef MUTANT_NO_LAST_NAME
  atomic { procs == 0 -> procs++; run collector() };
#endif
  atomic { procs == 0 -> /* a sweep: files of versions that are over */
    news = 0;
    if :: S_ST(st) == B_SPILLED -> assert(N_B(idx) == 1 && (files & BIT(S_VER(st)))) :: else fi;
    assert(N_B(idx) == 1 || S_ST(st) == B_DEAD) }
}
