/* The simulated kernel: byte locks, process life, and each process's own side of the region. */
#ifndef CFN_SIM_KERNEL_H
#define CFN_SIM_KERNEL_H

#include <stdbool.h>

const char *kernel_bus_name(void);
void kernel_reset(void);   /* nobody holds anything */
void kernel_died(int p);   /* its locks are gone */
void kernel_spills(bool spills); /* whether this run's bus has a place on disk; it has none until told */

#endif
