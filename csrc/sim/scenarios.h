#ifndef CFN_SIM_SCENARIOS_H
#define CFN_SIM_SCENARIOS_H

#include "sim/sim.h"

extern const sim_scenario_t sim_message_scenarios[], sim_agent_scenarios[], sim_context_scenarios[], sim_spill_scenarios[],
    sim_sync_scenarios[];
extern const int sim_message_scenario_count, sim_agent_scenario_count, sim_context_scenario_count, sim_spill_scenario_count,
    sim_sync_scenario_count;

static inline int sim_scenario_count(void) {
  return sim_message_scenario_count + sim_agent_scenario_count + sim_context_scenario_count + sim_spill_scenario_count +
         sim_sync_scenario_count;
}
static inline const sim_scenario_t *sim_scenario(int i) {
  if (i < sim_message_scenario_count) return &sim_message_scenarios[i];
  i -= sim_message_scenario_count;
  if (i < sim_agent_scenario_count) return &sim_agent_scenarios[i];
  i -= sim_agent_scenario_count;
  if (i < sim_context_scenario_count) return &sim_context_scenarios[i];
  i -= sim_context_scenario_count;
  return i < sim_spill_scenario_count ? &sim_spill_scenarios[i] : &sim_sync_scenarios[i - sim_spill_scenario_count];
}

#endif
