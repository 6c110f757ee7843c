#!/bin/sh
# As the official image: a data directory that is empty becomes a cluster that trusts its socket and takes the password in
# POSTGRES_PASSWORD from the network. Then the server starts. The kubelet makes folders of an fsGroup writable for the
# group, and a server does not start in such a one.
set -eu
mkdir -p "$PGDATA"
chmod 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --data-checksums --encoding=UTF8 --locale=C --auth-local=trust --auth-host=scram-sha-256 \
    --no-sync >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  if [ -n "${POSTGRES_PASSWORD:-}" ]; then
    echo "ALTER ROLE postgres PASSWORD '$POSTGRES_PASSWORD';" | postgres --single -j postgres >/dev/null
  fi
fi
exec postgres -c listen_addresses='*' "$@"
