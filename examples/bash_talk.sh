#!/usr/bin/env bash
# Starts bash_agent.sh on a bus of its own, asks it something, stops it, and ends the bus.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CFNSHM_BUS=talk-$$ CFNSHM_AGENT=asker
# Destroying the bus also ends an agent that is still waiting on it.
trap 'cfnshm destroy --force' EXIT

# An inbox may be there before its agent: what is sent now waits for it.
cfnshm register shouter
CFNSHM_AGENT=shouter bash "$here/bash_agent.sh" &

cfnshm request shouter "is \"anybody\" there? \$HOME stays as it is" --timeout 10
printf 'two\nlines, über' | cfnshm request shouter - --timeout 10

cfnshm send shouter stop --type stop --priority control
wait $!
echo "the agent ended by itself"
