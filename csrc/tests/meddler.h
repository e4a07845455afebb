/* Tests over the simulated seam without its scheduler: one process runs, and what another one does between two of its
 * instructions is a function of the test, called before the operation that it comes just before. So a swap is lost, a word
 * changes at every look, or a process is judged dead in the middle, without a second process and without luck. */
#ifndef CFN_TESTS_MEDDLER_H
#define CFN_TESTS_MEDDLER_H

#include "sim/ledger.h"
#include "tests/harness.h"

/* A bus of the simulator as it was made, nobody attached, and nobody meddles. */
void m_fresh(bool spills);

/* Such a bus with an agent "a" (where it is), which process 0 has as bus[0]; process 1 looks on as bus[1]. */
void m_two(cfn_address_t *a);
/* Nobody meddles any more: agents come and go on bus[0], the dead are reaped, nothing is damaged and nothing held. */
void m_whole(void);

/* Before each operation `how` (sim_meddler_t) of the core's function `where` on `word` (NULL: any), but the first `after`
 * of them, and at most `times` times: `what`. One rule at a time. */
enum { M_ALWAYS = 1 << 30 };
typedef void m_act_t(cfn_a64 *word);
void m_meddle(const char *where, char how, const volatile void *word, int after, int times, m_act_t *what);
/* The rule ends: how often it was followed, which is never 0. */
int m_end(void);

/* What is done to a word: the same, and one version on, for versions that begin at bit 16, 20, 24 or 0. */
void m_next16(cfn_a64 *word);
void m_next20(cfn_a64 *word);
void m_next24(cfn_a64 *word);
void m_next(cfn_a64 *word);

void m_main(void); /* first of all */

#endif
