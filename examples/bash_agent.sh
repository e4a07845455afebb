#!/usr/bin/env bash
# An agent in bash: answers each request with its text in capitals; ends on a control message of type
# "stop". CFNSHM_AGENT is its name, CFNSHM_BUS the bus. Try it: examples/bash_talk.sh
set -euo pipefail
cfnshm register "${CFNSHM_AGENT:?is the name of the agent}" --type shout

# The assignment keeps the exit status of recv, which eval "$(...)" alone would lose. --hold: a message
# is over when it is acked, so one that this script dies over comes again at the next start.
while message=$(cfnshm recv --shell --hold); do
  eval "$message" # CFN_ID CFN_FROM CFN_TYPE CFN_PRIORITY CFN_REQUEST CFN_REPLY CFN_BODY ...
  if [[ $CFN_PRIORITY/$CFN_TYPE == control/stop ]]; then
    cfnshm ack "$CFN_ID"
    exit 0
  elif [[ -n $CFN_REQUEST ]]; then # two agents that answered every message would never end
    # Who asked may be gone by now (exit status 5): no reason to end.
    printf '%s' "${CFN_BODY^^}" | cfnshm reply "$CFN_REPLY" - || true
  fi
  cfnshm ack "$CFN_ID"
done
exit 1 # recv has said why on stderr
