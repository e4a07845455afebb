/* words.h: the shared-memory words as the models encode them, and how a step of a process is written.
 *
 * Included by every model.  The real words are 64 bits wide (32 for the event word); the fields keep their order, only the
 * widths shrink.  Version fields never wrap within the bounds of a model.
 *
 *   own   {ver | st | who}      state of a chunk; ver is bumped at EVERY transition
 *   slot  {lap | ref}           ring slot; ref 0 = empty, else chunk + 1
 *   cons  {ver | att or NONE}   consumer word of a mailbox
 *   id    {inc | st}            attachment word
 *   mid   {ver | st}            mailbox word; ver is bumped at EVERY transition
 *   rlap  {tag | lap}           lap that the slots get at removal; tag = ver of the REMOVING word
 *   event {count | WAKING | WAIT}  futex word
 */

/* chunk own word */
#define FREE      0
#define MINE      1
#define TAKEN     2
#define DONE      3
#define OWN(v,s,w)  ((v)*32+(s)*8+(w))
#define O_VER(x)    ((x)/32)
#define O_ST(x)     (((x)/8)%4)
#define O_WHO(x)    ((x)%8)
#define O_NEXT(x,s,w) OWN(O_VER(x)+1,s,w)

/* ring slot */
#define SLOT(l,r)   ((l)*4+(r))
#define S_LAP(x)    ((x)/4)
#define S_REF(x)    ((x)%4)
#define LAP(p)      ((p)/C)
#define AT(p)       ((p)%C)

/* consumer word */
#define NONE      7
#define CONS(v,a)   ((v)*8+(a))
#define C_VER(x)    ((x)/8)
#define C_ATT(x)    ((x)%8)

/* attachment word */
#define LIVE      1
#define REAP      2
#define VACANT    3
#define ID(i,s)     ((i)*4+(s))

/* mailbox word */
#define MB_FREE     0
#define MB_MINE     1
#define MB_PEND     2
#define MB_OPEN     3
#define MB_REMOVING 4
#define MID(v,s)    ((v)*8+(s))
#define M_VER(x)    ((x)/8)
#define M_ST(x)     ((x)%8)

/* removal lap word */
#define RLAP(t,l)   ((t)*16+(l))
#define R_TAG(x)    ((x)/16)
#define R_LAP(x)    ((x)%16)

/* event word */
#define E_WAIT    1
#define E_WAKING  2
#define E_RUNG(b)   (((b)/4+1)*4+E_WAKING)

/* One step of a process: at most one access to shared memory (ghost variables beside it are free), or death in its place.
 * Every process that uses STEP has the parameters `mortal` and `att` and a label DIE.  A process that is stopped, for a while or
 * for ever, needs nothing: it is simply not scheduled. */
#define STEP(...)  if :: atomic { true; __VA_ARGS__ } :: atomic { mortal -> dead[att] = true; goto DIE } fi

/* max by CAS loop: one step, since a failed CAS only repeats it */
#define MAX_INTO(x,v)  if :: (x) < (v) -> x = (v) :: else fi
