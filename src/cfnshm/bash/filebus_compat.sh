# shellcheck shell=bash
# The function names of the file-per-message bus, on cfnshm. Source this file instead of the old one:
#
#   init_message_bus_system              init_message_bus AGENT
#   send_message FROM TO TYPE PAYLOAD    prints the msg_id
#   receive_messages AGENT               prints a JSON array, oldest first; takes nothing
#   message_count AGENT                  prints how many messages wait
#   clear_inbox AGENT                    removes what receive_messages has shown
#   cleanup_message_bus AGENT            cleanup_message_bus_system
#
# What is different from files, on purpose:
#   - Nothing is evicted. A full inbox (1,024 messages) makes send_message wait CFNSHM_SEND_TIMEOUT
#     seconds (30) and then fail with 3; the old bus threw the oldest message away.
#   - clear_inbox does not remove a message that came after receive_messages had looked.
#   - Failures have the exit statuses of the command (cfnshm --help) and a line on stderr: an inbox
#     that cannot be read is never "[]", an agent that was never initialised is 5.
#   - `sequence` grows along the inbox. Each shell command is a sender of its own, with a counter of
#     its own that would be 1 in every message.
#
# How clear_inbox knows what was shown: receive_messages mostly runs in `$(...)`, where a variable
# that it sets is lost, so it leaves a note in a file, one per shell ($$, which subshells inherit)
# and agent. Its states:
#   no file, or "none"    nothing was shown since the last clear: clear_inbox removes what is there
#                         at the call, as a script wants that empties its inbox at the start
#   "shown ID... end"     these are removed, and nothing else; without IDs (the inbox was seen empty)
#                         nothing at all is removed
#   anything else         receive_messages failed in the middle: nothing is removed
# The notes are in ${TMPDIR:-/tmp}, private, and go with cleanup_message_bus(_system).
#
# An agent should have one reading shell, as before; a second one loses nothing either, since it
# looks (`cfnshm inbox`) without taking, but both are shown the same messages.
#
# Needs bash 4 and `cfnshm` in PATH. The bus is CFNSHM_BUS, else it is named after the old variable
# CFN_MESSAGE_BASE_DIR, so that scripts with different base directories stay apart.

if [[ -z ${CFNSHM_BUS:-} && -n ${CFN_MESSAGE_BASE_DIR:-} ]]; then
  CFNSHM_BUS=${CFN_MESSAGE_BASE_DIR//[!A-Za-z0-9_:@-]/_}
  export CFNSHM_BUS=${CFNSHM_BUS:0:63}
fi

# The directory of the notes, in $_cfnshm_notes: one for each bus of this user.
_cfnshm_notes_directory() {
  local where=${CFNSHM_DIR:-/dev/shm}
  _cfnshm_notes=${TMPDIR:-/tmp}/cfnshm-shown.$UID.${where//\//%}.${CFNSHM_BUS:-default}
}

# Sets $_cfnshm_note for AGENT and makes sure that it can be written. Others may write to /tmp: only
# a directory of ours that is not a link is used.
_cfnshm_note_for() {
  local _cfnshm_notes
  _cfnshm_notes_directory
  [[ -d $_cfnshm_notes ]] || mkdir -m 700 -- "$_cfnshm_notes" 2>/dev/null || true
  if [[ ! -d $_cfnshm_notes || -L $_cfnshm_notes || ! -O $_cfnshm_notes ]]; then
    printf 'cfnshm: cannot keep notes in %s\n' "$_cfnshm_notes" >&2
    return 1
  fi
  _cfnshm_note=$_cfnshm_notes/$1,$$ # no agent's name has a comma
}

_cfnshm_usage() {
  printf 'usage: %s\n' "$1" >&2
  return 2
}

# What waits for AGENT, in $_cfnshm_lines: one JSON object a line. "/" cannot be in an agent's name and
# would lead the note out of its directory.
_cfnshm_look() {
  local status=0
  if [[ -z $1 || $1 == */* ]]; then
    printf "cfnshm: '%s' is not an agent's name\n" "$1" >&2
    return 2
  fi
  _cfnshm_lines=$(cfnshm inbox --json -- "$1") || status=$?
  if ((status)); then
    printf '%s\n' "$_cfnshm_lines" >&2 # what went wrong, and the remedy
    return "$status"
  fi
}

# The msg_id that a line of _cfnshm_look begins with, in $_cfnshm_id.
_cfnshm_id_of() {
  _cfnshm_id=${1#'{"msg_id":"'}
  _cfnshm_id=${_cfnshm_id%%\"*}
}

init_message_bus_system() {
  # The bus itself is made by the first init_message_bus.
  if ! command -v cfnshm >/dev/null; then
    printf 'init_message_bus_system: there is no cfnshm in PATH (pip install cfnshm)\n' >&2
    return 127
  fi
}

init_message_bus() {
  (($# == 1)) || { _cfnshm_usage 'init_message_bus AGENT'; return; }
  local _cfnshm_note
  cfnshm register -- "$1" || return
  # A note under this name can only be one of an earlier process with the same number.
  _cfnshm_note_for "$1" || return
  printf 'none' >|"$_cfnshm_note"
}

send_message() {
  (($# == 4)) || { _cfnshm_usage 'send_message FROM TO TYPE PAYLOAD_JSON'; return; }
  local LC_ALL=C payload=${4:-null} out status=0
  local -a send=(cfnshm send --json --body-json --as "$1" --type "$3"
    --timeout "${CFNSHM_SEND_TIMEOUT:-30}" -- "$2")
  # One message must stay one line at the receiver. Outside of strings JSON takes a space for a line
  # break, and inside of them a line break is not allowed.
  payload=${payload//[$'\r\n']/ }
  # The kernel takes arguments of up to 128 KiB, and "-" would be standard input.
  if ((${#payload} < 100000)) && [[ $payload != - ]]; then
    out=$("${send[@]}" "$payload") || status=$?
  else
    out=$(printf '%s' "$payload" | "${send[@]}" -) || status=$?
  fi
  if ((status)); then
    printf 'send_message: %s\n' "$out" >&2
    return "$status"
  fi
  if [[ $out =~ \"msg_id\":\"([^\"]*)\" ]]; then
    printf '%s\n' "${BASH_REMATCH[1]}"
  else
    # It was sent: to fail now would make the caller send it again.
    printf 'send_message: this cfnshm does not tell the msg_id of what it sends\n' >&2
  fi
}

receive_messages() {
  (($# == 1)) || { _cfnshm_usage 'receive_messages AGENT'; return; }
  local LC_ALL=C _cfnshm_note _cfnshm_id _cfnshm_lines line array='' ids=''
  _cfnshm_look "$1" || return
  _cfnshm_note_for "$1" || return
  # Up to the sequence number all is of a known form; the payload comes later.
  local head='^(\{"msg_id":"[^"]*","from":"[^"]*","to":"[^"]*","type":"([^"\\]|\\.)*","sequence":)[0-9]+'
  head+='(,"timestamp":"[^"]*","priority":"[a-z]*","position":([0-9]+))'
  while IFS= read -r line; do
    [[ -n $line ]] || continue
    _cfnshm_id_of "$line"
    ids+=" $_cfnshm_id"
    if [[ $line =~ $head ]]; then
      line=${BASH_REMATCH[1]}$((BASH_REMATCH[4] + 1))${BASH_REMATCH[3]}${line:${#BASH_REMATCH[0]}}
    fi
    array+=${array:+,}$line
  done <<<"$_cfnshm_lines"
  # Until all is printed the note says that the showing did not end.
  printf 'showing' >|"$_cfnshm_note" || return
  printf '[%s]\n' "$array" || return
  printf 'shown%s end' "$ids" >|"$_cfnshm_note"
}

message_count() {
  (($# == 1)) || { _cfnshm_usage 'message_count AGENT'; return; }
  cfnshm inbox --total -- "$1"
}

clear_inbox() {
  (($# == 1)) || { _cfnshm_usage 'clear_inbox AGENT'; return; }
  local _cfnshm_note _cfnshm_id _cfnshm_lines note=none line id status=0 IFS=$' \t\n'
  local -a ids=()
  _cfnshm_note_for "$1" || return
  if [[ -e $_cfnshm_note ]]; then note=$(<"$_cfnshm_note") || return; fi
  if [[ $note == none ]]; then
    _cfnshm_look "$1" || return
    while IFS= read -r line; do
      [[ -n $line ]] || continue
      _cfnshm_id_of "$line"
      ids+=("$_cfnshm_id")
    done <<<"$_cfnshm_lines"
  elif [[ $note == shown*' end' ]]; then
    note=${note#shown}
    read -r -a ids <<<"${note% end}"
  else
    printf "clear_inbox: the last receive_messages of '%s' did not end; nothing is removed\n" "$1" >&2
    return 1
  fi
  if ((${#ids[@]})); then
    cfnshm ack --as "$1" -- "${ids[@]}" 2>/dev/null || status=$?
    # 3: one of them is gone already (another shell cleared it), and the rest was not tried; any
    # other failure may be one of the first only, and shall be heard.
    if ((status)); then
      status=0
      for id in "${ids[@]}"; do
        cfnshm ack --as "$1" -- "$id" 2>/dev/null || status=$?
        ((status == 0 || status == 3)) || break
        status=0
      done
      if ((status)); then
        printf "clear_inbox: cannot remove message %s of '%s' (cfnshm ack: exit status %d)\n" \
          "$id" "$1" "$status" >&2
        return "$status"
      fi
    fi
  fi
  printf 'none' >|"$_cfnshm_note"
}

# "Already gone" is what a cleanup wants; a bus that is there and cannot be cleaned is an error.
_cfnshm_cleaned() {
  local status=0 out
  out=$("$@" --json) || status=$?
  if ((status)) && [[ $out != *'"code":"UNKNOWN_AGENT"'* && $out != *'"code":"NO_BUS"'* ]]; then
    printf '%s\n' "$out" >&2
    return "$status"
  fi
}

cleanup_message_bus() {
  (($# == 1)) || { _cfnshm_usage 'cleanup_message_bus AGENT'; return; }
  local _cfnshm_notes
  _cfnshm_cleaned cfnshm unregister --force "$1" || return
  _cfnshm_notes_directory
  # Of all shells: the agent is gone.
  [[ ! -d $_cfnshm_notes ]] || rm -f -- "$_cfnshm_notes/$1",*
}

cleanup_message_bus_system() {
  local _cfnshm_notes
  _cfnshm_cleaned cfnshm destroy --force || return
  _cfnshm_notes_directory
  [[ ! -d $_cfnshm_notes ]] || rm -rf -- "$_cfnshm_notes"
}
