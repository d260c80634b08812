#!/bin/sh
# Starts a server with the arguments given: as the primary if the Sentinels name it, else as a replica of who they name.
# Before there are Sentinels the first pod is the primary.
set -eu
primary="" tls="" ca=${CA:-/etc/tls/ca.crt}
if [ -f "$ca" ]; then tls="--tls --cacert $ca"; fi
for sentinel in $SENTINELS; do
  primary=$(timeout 5 valkey-cli $tls -h "$sentinel" -p 26379 sentinel get-master-addr-by-name hero | head -n 1) || true
  if [ -n "$primary" ]; then break; fi
done
primary=${primary:-$FIRST}
echo "the primary is $primary, this is $OWN"
umask 077
{
  echo "replica-announce-ip $OWN"
  echo "masteruser hero-admin"
  echo "masterauth $PASSWORD"
  if [ "$primary" != "$OWN" ]; then echo "replicaof $primary 6379"; fi
} >"${CONFIG:-/tmp/valkey.conf}"
unset PASSWORD
exec valkey-server "${CONFIG:-/tmp/valkey.conf}" "$@"
