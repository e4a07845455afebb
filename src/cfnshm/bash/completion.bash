# shellcheck shell=bash
# Bash completion for cfnshm: verbs, options, and the names of agents, buses and waiting messages.
# Source it, or put it under the name `cfnshm` into ~/.local/share/bash-completion/completions/.
# It asks the bus by one call of the native command, and says nothing when there is none.

# The names of the agents. Arguments: --bus and --dir as they stand on the line.
_cfnshm_agents() {
  local line
  while IFS= read -r line; do
    # Every agent's line begins {"name":"NAME", and a name has no quotes; an error's does not.
    [[ $line == '{"name":"'* ]] || continue
    line=${line#'{"name":"'}
    printf '%s\n' "${line%%\"*}"
  done < <(cfnshm list --json "$@" 2>/dev/null)
}

_cfnshm_buses() { # DIR
  local path
  for path in "$1/cfnshm.$UID."*; do
    [[ ! -d $path ]] || printf '%s\n' "${path#"$1/cfnshm.$UID."}"
  done
}

# The ids of what waits for AGENT. The rest: --bus and --dir.
_cfnshm_messages() {
  local line
  while IFS= read -r line; do
    [[ $line == '{"msg_id":"'* ]] || continue
    line=${line#'{"msg_id":"'}
    printf '%s\n' "${line%%\"*}"
  done < <(cfnshm inbox --json "$@" 2>/dev/null)
}

# The keys of the named values. The rest: --bus and --dir. Those with blanks cannot be completed.
_cfnshm_keys() {
  local line
  while IFS= read -r line; do
    [[ $line == *[[:space:]]* ]] || printf '%s\n' "$line"
  done < <(cfnshm state list "$@" 2>/dev/null)
}

# The names of the locks or elections that are held. The rest: --bus and --dir.
_cfnshm_names() {
  local line
  while IFS= read -r line; do
    [[ $line == '{"name":"'* ]] || continue
    line=${line#'{"name":"'}
    line=${line%%\"*}
    [[ $line == *[[:space:]\\]* ]] || printf '%s\n' "$line"
  done < <(cfnshm "$1" --json "${@:2}" 2>/dev/null)
}

_cfnshm() {
  local verbs='register unregister send recv ack request reply broadcast inbox list status whoami
    destroy wait put get delete state lock elect semaphore barrier
    pause resume inject stop signal control checkpoint restore teams swarm buses bench demo doctor version help'
  local common='--bus --as --dir --json --timeout --help'
  # Bash breaks words at ':' and '@', which names may contain, so the words are taken from the line.
  # Quotes are not looked at: no word that matters here has a blank in it.
  local line=${COMP_LINE:0:COMP_POINT} cur='' verb='' option='' choices='' word bus='' as='' dir=''
  local -i positional=0
  local -a words=() on=()
  COMPREPLY=()
  [[ $line == *[[:space:]] ]] || cur=${line##*[[:space:]]}
  line=${line%"$cur"}
  read -r -a words <<<"$line" || true

  # What stands before the current word: the verb, how many arguments, an option without its value.
  for word in "${words[@]:1}"; do
    if [[ -n $option ]]; then
      case $option in
        --bus) bus=$word ;;
        --as) as=$word ;;
        --dir) dir=$word ;;
      esac
      option=''
    elif [[ -z $verb ]]; then
      verb=$word
    else
      case $word in
        --bus=*) bus=${word#*=} ;;
        --as=*) as=${word#*=} ;;
        --dir=*) dir=${word#*=} ;;
        --bus | --as | --dir | --timeout | --priority | --type | --team | --capabilities | --tags | \
          --topology | --restart | --coordinators | --depth | --tasks | --task-timeout | --memory | --logs | \
          --lines | --instruction | --status | --agents | --size | --count | --version | --reason | --note | --keep | --swarm | --cut)
          option=$word ;;
        --*) ;;
        *) positional+=1 ;;
      esac
    fi
  done
  if [[ -z $option && $cur == --*=* ]]; then
    option=${cur%%=*}
    cur=${cur#*=}
  fi
  [[ -z $bus ]] || on+=("--bus=$bus")
  [[ -z $dir ]] || on+=("--dir=$dir")

  if [[ -n $option ]]; then
    case $option in
      --as) choices=$(_cfnshm_agents "${on[@]}") ;;
      --bus) choices=$(_cfnshm_buses "${dir:-${CFNSHM_DIR:-/dev/shm}}") ;;
      --priority) choices='control high normal low' ;;
      --topology) choices='auto flat mesh hybrid tree' ;;
      --restart) choices='never on-failure always' ;;
      --timeout) choices='0 1 10 60 forever' ;;
      --dir)
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -d -- "$cur")
        return ;;
    esac
  elif [[ -z $verb ]]; then
    choices="$verbs --help --version"
  elif [[ $cur == -* ]]; then
    choices=$common
    case $verb in
      register) choices+=' --type --team --capabilities --tags --status --agents --size --spill' ;;
      unregister | destroy) choices+=' --force' ;;
      send) choices+=' --priority --type --body-json --raw --wait' ;;
      recv) choices+=' --count --all --follow --shell --raw --hold --priority --steal' ;;
      request) choices+=' --priority --type --body-json --raw --shell' ;;
      reply) choices+=' --type --body-json --raw' ;;
      broadcast) choices+=' --team --priority --type --body-json --raw' ;;
      inbox) choices+=' --total --priority' ;;
      list) choices+=' --team --type' ;;
      ack | whoami | status | wait | put | get | delete) ;;
      state) choices+=' --body-json --raw --version' ;;
      lock) choices+=' --intact --steal' ;;
      elect) choices+=' --steal' ;;
      semaphore) ;;
      barrier) choices+=' --go-on' ;;
      buses) choices='--dir --json --prune --help' ;;
      doctor) choices='--bus --dir --json --repair --remove --help' ;;
      demo) choices='--coordinators --workers --no-baseline --json --help' ;;
      version) choices='--json --help' ;;
      pause | stop) choices+=' --team --reason' ;;
      resume | inject) choices+=' --team' ;;
      teams) ;;
      signal) choices+=' --team' ;;
      control) ;;
      checkpoint) choices+=' --note --keep --sync --list --swarm' ;;
      restore) choices+=' --cut' ;;
      swarm) choices+=' --agents --tasks --topology --coordinators --depth --task-timeout --restart --memory --logs --quiet
        --follow --lines --instruction --kill' ;;
      *) choices='' ;;
    esac
  else
    case $verb/$positional in
      send/0 | request/0 | unregister/0 | inbox/0 | pause/0 | resume/0 | inject/0 | stop/0) choices=$(_cfnshm_agents "${on[@]}") ;;
      wait/*) choices=$(_cfnshm_agents "${on[@]}") ;;
      destroy/0 | doctor/0) choices=$(_cfnshm_buses "${dir:-${CFNSHM_DIR:-/dev/shm}}") ;;
      help/0) choices=$verbs ;;
      lock/0 | elect/0) choices=$(_cfnshm_names "$verb" "${on[@]}") ;;
      barrier/1) choices='reset abort delete' ;;
      swarm/0) choices='run status health logs events aside pause resume stop' ;;
      swarm/*) choices=$(_cfnshm_agents "${on[@]}") ;;
      state/0) choices='list get set delete incr wait' ;;
      state/1) choices=$(_cfnshm_keys "${on[@]}") ;;
      put/0)
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur")
        return ;;
      ack/*)
        as=${as:-${CFNSHM_AGENT:-}}
        [[ -z $as ]] || choices=$(_cfnshm_messages "${on[@]}" -- "$as") ;;
    esac
  fi

  # All choices are names and options: nothing in them that -W would expand.
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$choices" -- "$cur")
  # Readline replaces only what follows the last break.
  local broken=''
  for word in : @ =; do
    if [[ $COMP_WORDBREAKS == *"$word"* && $cur == *"$word"* ]]; then
      word=${cur%"${cur##*"$word"}"}
      ((${#word} <= ${#broken})) || broken=$word
    fi
  done
  COMPREPLY=("${COMPREPLY[@]#"$broken"}")
}

complete -F _cfnshm cfnshm
