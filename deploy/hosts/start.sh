#!/usr/bin/env bash
# A run on several hosts by ssh: broker and learner here, actors and scorers there, until it is over or Ctrl-C.
#   bash deploy/hosts/start.sh my.toml --actors gpu1,gpu2 --scorers cpu1,cpu1,cpu2 [--folder DIR] [--port 6379]
# A host that is named twice gets two. Each must have this project, installed, in the same folder as here or in --folder;
# my.toml must be there too and set run.folder. What dies is not started again: the same command does that, and goes on.
set -euo pipefail
set -m  # a Ctrl-C is for this script: it ends the others in their order
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
here=$(cd "$(dirname "$0")/../.." && pwd)
actors="" scorers="" folder=$here port=6379 config=""
while [ $# -gt 0 ]; do
  case $1 in
    --actors) actors=$2; shift 2 ;;
    --scorers) scorers=$2; shift 2 ;;
    --folder) folder=$2; shift 2 ;;
    --port) port=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "$1: there is no such option" >&2; usage >&2; exit 2 ;;
    *) config=$1; shift ;;
  esac
done
if [ -z "$config" ] || [ -z "$actors" ] || [ -z "$scorers" ]; then usage >&2; exit 2; fi
# shellcheck source=deploy/hosts/shared.sh
. "$here/deploy/hosts/shared.sh"
learner="" writers=() workers=() broker=""
# The learner first, then the workers, who hand back what they have, then the broker.
finish() {
  trap - EXIT
  set +m  # it would tell of each that is ended here
  if [ -n "$learner" ]; then kill "$learner" 2>/dev/null || true; wait "$learner" || true; fi
  kill "${writers[@]}" 2>/dev/null || true
  for worker in "${workers[@]}"; do wait "$worker" || true; done
  if [ -n "$broker" ]; then kill "$broker" 2>/dev/null || true; wait "$broker" || true; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

bash "$here/deploy/hosts/broker.sh" "$beside/broker" "$port" >"$beside/broker.log" 2>&1 &
broker=$!
await_broker "$broker"

# What runs on the other host: the address comes on its input, where no list of processes shows it; it ends with that.
# shellcheck disable=SC2016  # it is expanded there
there='IFS= read -r REDIS_URL && export REDIS_URL && cd "$0" || exit 2
exec 3<&0
.venv/bin/hero "$@" </dev/null 3<&- & worker=$!
{ cat <&3 >/dev/null; kill "$worker" 2>/dev/null; } & watch=$!
wait "$worker"; code=$?
kill "$watch" 2>/dev/null
exit "$code"'
there=${there//$'\n'/; }  # one line: not every shell there reads how bash quotes more
# start HOST ROLE NUMBER ARGUMENT...
start() {
  local host=$1 role=$2 log=$beside/$2-$3-$1.log words=$beside/$2-$3-$1.in
  shift 3
  rm -f "$words" && mkfifo -m 600 "$words"
  { echo "$REDIS_URL"; exec sleep infinity; } >"$words" &
  writers+=($!)
  ssh -o BatchMode=yes -o ServerAliveInterval=15 "$host" sh -c "$(printf '%q ' "$there" "$folder" "$role" "$@")" \
    <"$words" >"$log" 2>&1 &
  workers+=($!)
  echo "$role on $host: $log"
}
number=0
for host in ${actors//,/ }; do start "$host" actor $((number += 1)) --run.id "$id"; done
for host in ${scorers//,/ }; do start "$host" scorer $((number += 1)) "$config" --run.id "$id"; done
echo "look at it: REDIS_URL=\$(cat $beside/broker/url) $here/.venv/bin/hero top"

"$here/.venv/bin/hero" learner "$config" --run.id "$id" &
learner=$!
code=0
wait "$learner" || code=$?
learner=""
exit "$code"
