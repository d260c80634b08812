#!/usr/bin/env bash
# A broker for a run on several hosts: Valkey or Redis with a password, a file of its own on disk, and no eviction.
#   bash deploy/hosts/broker.sh FOLDER [PORT] [MEMORY_MB]
# FOLDER/url then has its address with the password, for this user alone: export REDIS_URL=$(cat FOLDER/url). The others
# reach this host as BROKER_HOST, else as `hostname -f` says. It listens on all addresses without TLS: keep it inside a
# network that you trust. SIGTERM ends it; started again it has its data.
set -euo pipefail
folder=${1:?usage: bash deploy/hosts/broker.sh FOLDER [PORT] [MEMORY_MB]} port=${2:-6379} memory_mb=${3:-4096}
python=$(cd -P "$(dirname "$0")/../.." && pwd)/.venv/bin/python
[ -x "$python" ] || python=python3
host=${BROKER_HOST:-$(hostname -f)} && [ -n "$host" ] || {
  echo "this host does not know its name: set BROKER_HOST to the name or address by which the others reach it" >&2; exit 2
}
server=$("$python" -c 'from common.server import find_server; print(find_server()[0])')

umask 077
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ ! -s "$folder/password" ]; then
  "$python" -c 'import secrets; print(secrets.token_urlsafe(24))' >"$folder/password"
fi
password=$(cat "$folder/password")
cat >"$folder/broker.conf" <<CONF
port $port
bind * -::*
requirepass $password
maxmemory ${memory_mb}mb
maxmemory-policy noeviction
appendonly yes
save ""
dir "$folder"
CONF
echo "redis://:$password@$host:$port/0" >"$folder/url"
exec "$server" "$folder/broker.conf"
