#!/bin/sh
# Starts a Sentinel with the arguments given. What it learned it keeps in its file, which is made once. Anybody may ask it
# who the primary is; anything else is for hero-admin.
set -eu
file=${CONFIG:-/data/sentinel.conf}
if [ ! -s "$file" ]; then
  umask 077
  {
    echo "sentinel resolve-hostnames yes"
    echo "sentinel announce-hostnames yes"
    echo "sentinel announce-ip $OWN"
    echo "sentinel monitor hero $FIRST 6379 2"
    echo "sentinel down-after-milliseconds hero ${DOWN_AFTER_MS:-10000}"
    echo "sentinel failover-timeout hero ${FAILOVER_TIMEOUT_MS:-30000}"
    echo "sentinel auth-user hero hero-admin"
    echo "sentinel auth-pass hero $PASSWORD"
    echo "sentinel sentinel-user hero-admin"
    echo "sentinel sentinel-pass $PASSWORD"
    echo "user default on nopass &* -@all +@connection +info +subscribe +psubscribe +unsubscribe +punsubscribe" \
      "+sentinel|masters +sentinel|master +sentinel|get-master-addr-by-name +sentinel|replicas +sentinel|slaves +sentinel|sentinels"
    grep '^user hero-admin ' "$USERS"
  } >"$file.new"
  mv "$file.new" "$file"
fi
unset PASSWORD
exec valkey-server "$file" "$@" --sentinel
