/* A mapped file that is cut short: whoever touches what is gone gets SIGBUS, and dies of it. A guarded mapping
 * turns to zeroed memory of this process instead, and says so; the calls of its owner end in an error.
 *
 * The signal handler is installed with the first guard and passes on every fault that is not in a guarded
 * mapping. CFNSHM_SIGBUS=off leaves the signal alone.
 */
#ifndef CFN_BASE_GUARD_H
#define CFN_BASE_GUARD_H

#include <stddef.h>

#include "base/atomics.h"

/* Guards [base, base+bytes). Returns the word that becomes 1 when the mapping is lost; never NULL (without a
 * guard, because of the variable or because there are too many, a word that stays 0). */
const cfn_a32 *cfn_guard_begin(void *base, size_t bytes);
/* Before the mapping is removed. */
void cfn_guard_end(const void *base);

#endif
