/* The simulated kernel: byte locks, process life, and each process's own side of the region. */
#ifndef CFN_SIM_KERNEL_H
#define CFN_SIM_KERNEL_H

const char *kernel_bus_name(void);
void kernel_reset(void);   /* nobody holds anything */
void kernel_died(int p);   /* its locks are gone */

#endif
