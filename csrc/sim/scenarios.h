#ifndef CFN_SIM_SCENARIOS_H
#define CFN_SIM_SCENARIOS_H

#include "sim/sim.h"

extern const sim_scenario_t sim_scenarios[];
extern const int sim_scenario_count;

#endif
