#!/bin/sh
# Says once, before a cold build, how long it will take and why.
set -eu
if ! ls "$CARGO_TARGET_DIR"/release/build/librocksdb-sys-*/out/librocksdb.a >/dev/null 2>&1; then
    cat >&2 <<TEXT
The first build takes about 20 to 25 minutes on 2 cores (less on more): RocksDB, the storage engine, is compiled from
its C++ source, once. It is kept in $CARGO_TARGET_DIR, so later builds take a minute or two.
TEXT
fi
