# shellcheck shell=bash disable=SC2034,SC2154  # what is used there or comes from there; both are checked with this in them
# What start.sh and slurm.sh share; sourced with $here, the project's folder, and $config.
[ -r "$config" ] || { echo "$config: there is no such file here" >&2; exit 2; }
run=$("$here/.venv/bin/python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["run"]["folder"])' \
  "$config") || { echo "$config: is there no run.folder in it?" >&2; exit 2; }
if [ -f "$run/run.json" ]; then  # begun by `hero up`, say: it goes on under its own id
  id=$("$here/.venv/bin/python" -c 'import pathlib, sys
from deploy.run_folder import id_in
print(id_in(pathlib.Path(sys.argv[1])))' "$run")
else
  id=$(basename "$run" | tr -c 'A-Za-z0-9_.\n-' -)
fi
# Beside the run's folder, which has to be empty when the run begins: the logs of all processes, and the broker.
beside=$run-hosts
mkdir -p "$beside"
rm -f "$beside/broker/url"

# await_broker PID: until it answers; its address is exported then: no list of processes shows it.
await_broker() {
  local deadline=$((SECONDS + 300))
  until [ -s "$beside/broker/url" ] && answers; do
    kill -0 "$1" 2>/dev/null || { echo "the broker did not start; see the logs in $beside" >&2; exit 6; }
    [ "$SECONDS" -lt "$deadline" ] || { echo "the broker does not answer; see the logs in $beside" >&2; exit 6; }
    sleep 0.2
  done
  REDIS_URL=$(cat "$beside/broker/url")
  export REDIS_URL
}
# It is on this host. That somebody listens there is not enough: another server may have the port.
answers() {
  "$here/.venv/bin/python" -c 'import re, sys
from common.address import client_of
client_of(re.sub("@.*:", "@127.0.0.1:", open(sys.argv[1]).read().strip())).ping()' "$beside/broker/url" 2>/dev/null
}
