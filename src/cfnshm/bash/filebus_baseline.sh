#!/usr/bin/env bash
# What cfnshm replaces: a message bus of files under /dev/shm, as agent scripts have it. One file per
# message, JSON built by hand, a counter file per sender under flock, temporary file and mv, ids made
# of the second and $RANDOM % 1000, an inbox that is polled, read whole and then cleared.
#
#   filebus_baseline.sh run --coordinators C --workers W [--dir DIR]
#       C coordinators hand a task to W workers each, which answer; one JSON line with what arrived.
#   filebus_baseline.sh rate --messages N [--dir DIR]
#       one process sends N messages and reads them; one JSON line.
#
# It is meant to be faithful and not to be good: `delivered` below `expected` is what such a bus does
# (two messages to one inbox in the same second have the same id once in a thousand, and clearing the
# inbox after it was read removes what came between). Nothing here is slowed down on purpose; each
# message costs the forks that the tools cost (date, flock, mv, cat, rm).
#
# DIR must not exist or be empty; it is deleted at the end. Needs flock, date, mv, mktemp.
set -euo pipefail

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

# ---- the bus ----

init_message_bus() { # AGENT
  mkdir -p "$base/$1/inbox" "$base/$1/outbox"
  echo 0 >"$base/$1/sequence"
}

next_sequence() { # AGENT
  (
    flock 9
    local n
    n=$(cat "$base/$1/sequence")
    echo $((n + 1)) >"$base/$1/sequence"
    echo $((n + 1))
  ) 9>"$base/$1/sequence.lock"
}

send_message() { # FROM TO TYPE PAYLOAD; prints the id
  local id sequence temporary
  [[ -d $base/$2/inbox ]] || return 1
  id=msg-$(date +%s)-$((RANDOM % 1000))
  sequence=$(next_sequence "$1")
  temporary=$base/$1/outbox/$id.tmp
  cat >"$temporary" <<MESSAGE
{"msg_id":"$id","from":"$1","to":"$2","type":"$3","sequence":$sequence,"timestamp":"$(date -u +%FT%TZ)","payload":$4}
MESSAGE
  cp "$temporary" "$base/$1/outbox/$id.json"
  mv "$temporary" "$base/$2/inbox/$id.json"
  echo "$id"
}

# Prints the messages as a JSON array; takes nothing.
receive_messages() { # AGENT
  local file separator=''
  printf '['
  for file in "$base/$1/inbox"/*.json; do
    [[ -e $file ]] || continue
    printf '%s' "$separator"
    cat "$file"
    separator=,
  done
  printf ']\n'
}

message_count() { # AGENT
  find "$base/$1/inbox" -name '*.json' | wc -l
}

clear_inbox() { # AGENT
  rm -f "$base/$1/inbox"/*.json
}

# ---- the work ----

worker() { # COORDINATOR NAME
  local messages
  init_message_bus "$2"
  : >"$base/ready.$2"
  while [[ $(message_count "$2") -eq 0 ]]; do
    [[ ! -e $base/stop ]] || return 0
    sleep 0.05
  done
  messages=$(receive_messages "$2")
  clear_inbox "$2"
  [[ $messages == *'"type":"task"'* ]] || return 0
  send_message "$2" "$1" result "{\"worker\":\"$2\",\"status\":\"completed\"}" >/dev/null
}

# Ends when all workers answered, or when nothing came for $quiet seconds: without that end a lost
# message would mean waiting for ever.
coordinator() { # NAME WORKERS
  local w messages rest quiet=2 last collected=0
  for ((w = 1; w <= $2; w++)); do
    send_message "$1" "$1-w$w" task "{\"task\":\"part $w\",\"of\":$2}" >/dev/null
  done
  last=$(milliseconds)
  while ((collected < $2)) && (($(milliseconds) - last < quiet * 1000)); do
    [[ ! -e $base/stop ]] || return 0
    if [[ $(message_count "$1") -gt 0 ]]; then
      messages=$(receive_messages "$1")
      clear_inbox "$1"
      rest=${messages//'"type":"result"'/}
      collected=$((collected + (${#messages} - ${#rest}) / 15))
      last=$(milliseconds)
    else
      sleep 0.05
    fi
  done
  echo "$collected $last" >"$base/$1/collected"
}

milliseconds() {
  local now=${EPOCHREALTIME/[.,]/}
  echo "${now:0:-3}"
}

seconds_between() { # FROM_MS TO_MS
  local d=$(($2 - $1))
  printf '%d.%03d' $((d / 1000)) $((d % 1000))
}

# ---- subcommands ----

# All processes look at the file and end by themselves, so that none leaves a child behind.
clean() {
  : >"$base/stop"
  wait
  rm -rf "$base"
}

run() {
  local c w n started ready ended t end=0 delivered=0
  local -a coordinator_pids=()
  started=$(milliseconds)
  for ((c = 1; c <= coordinators; c++)); do
    init_message_bus "coord$c"
    for ((w = 1; w <= workers; w++)); do
      worker "coord$c" "coord$c-w$w" &
    done
  done
  # Bounded: a worker that could not start must not hang the measurement.
  for ((n = 0; n < 1200; n++)); do
    [[ $(find "$base" -maxdepth 1 -name 'ready.*' | wc -l) -lt $((coordinators * workers)) ]] || break
    sleep 0.05
  done
  ready=$(milliseconds)
  for ((c = 1; c <= coordinators; c++)); do
    coordinator "coord$c" "$workers" &
    coordinator_pids+=($!)
  done
  wait "${coordinator_pids[@]}"
  ended=$ready
  for ((c = 1; c <= coordinators; c++)); do
    read -r n t <"$base/coord$c/collected"
    delivered=$((delivered + n))
    # The quiet time at the end is not the bus's fault: time stops at the last answer.
    if ((t > ended)); then ended=$t; fi
  done
  end=$((ended > ready ? ended - ready : 1))
  # Each round trip is a task and a result; what is not answered is not counted.
  printf '{"agents":%d,"expected":%d,"delivered":%d,"seconds_coordination":%s,"seconds_with_start":%s,"messages_per_second":%d}\n' \
    $((1 + coordinators * (1 + workers))) $((coordinators * workers)) "$delivered" \
    "$(seconds_between "$ready" "$ended")" "$(seconds_between "$started" "$ended")" \
    $((delivered * 2 * 1000 / end))
}

rate() {
  local i begun sent ended text rest delivered
  init_message_bus sender
  init_message_bus receiver
  begun=$(milliseconds)
  for ((i = 0; i < messages; i++)); do
    send_message sender receiver task "{\"n\":$i}" >/dev/null
  done
  sent=$(milliseconds)
  text=$(receive_messages receiver)
  clear_inbox receiver
  ended=$(milliseconds)
  rest=${text//'"msg_id"'/}
  delivered=$(((${#text} - ${#rest}) / 8))
  ((ended > begun)) || ended=$((begun + 1))
  printf '{"messages":%d,"delivered":%d,"seconds_send":%s,"seconds_receive":%s,"messages_per_second":%d}\n' \
    "$messages" "$delivered" "$(seconds_between "$begun" "$sent")" \
    "$(seconds_between "$sent" "$ended")" $((delivered * 1000 / (ended - begun)))
}

[[ $# -gt 0 ]] || usage
command=$1
shift
base='' coordinators=3 workers=10 messages=100
while (($#)); do
  [[ $# -ge 2 ]] || usage
  case $1 in
    --dir) base=$2 ;;
    --coordinators) coordinators=$2 ;;
    --workers) workers=$2 ;;
    --messages) messages=$2 ;;
    *) usage ;;
  esac
  shift 2
done
for number in "$coordinators" "$workers" "$messages"; do
  [[ $number =~ ^[1-9][0-9]{0,5}$ ]] || usage
done
[[ $command == run || $command == rate ]] || usage

if [[ -z $base ]]; then
  base=$(mktemp -d /dev/shm/filebus.XXXXXX)
else
  # Only a directory of its own is deleted afterwards.
  mkdir -p "$base"
  if [[ -n $(ls -A "$base") ]]; then
    echo "filebus_baseline: $base is not empty" >&2
    exit 2
  fi
fi
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$command"
