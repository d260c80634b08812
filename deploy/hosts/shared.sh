# shellcheck shell=bash disable=SC2034,SC2154  # what is used there or comes from there; both are checked with this in them
# What start.sh and slurm.sh share; sourced with $here, the project's folder, and $config.
run=$("$here/.venv/bin/python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["run"]["folder"])' \
  "$config") || { echo "$config: is there no run.folder in it?" >&2; exit 2; }
id=$(basename "$run" | tr -c 'A-Za-z0-9_.\n-' -)
# Beside the run's folder, which has to be empty when the run begins: the logs of all processes, and the broker.
beside=$run-hosts
mkdir -p "$beside"
rm -f "$beside/broker/url"

# await_broker PID: until it has said its address, which is exported: no list of processes shows it then.
await_broker() {
  until [ -s "$beside/broker/url" ]; do
    kill -0 "$1" 2>/dev/null || { echo "the broker did not start; see the logs in $beside" >&2; exit 6; }
    sleep 0.2
  done
  REDIS_URL=$(cat "$beside/broker/url")
  export REDIS_URL
}
