#!/usr/bin/env bash
# Checks that the given binaries unwind when they panic: a function answers 500 or quarantines the delivery then.
# cargo-lambda builds with `panic = "abort"` unless the profile sets `panic`. Only a binary that unwinds contains this
# message of the standard library.
set -euo pipefail

message="Rust cannot catch foreign exceptions"
(($#)) || { echo "usage: .ci/unwinding.sh BINARY..." >&2; exit 2; }

status=0
for binary in "$@"; do
    if grep --quiet --text "$message" "$binary"; then
        echo "$binary unwinds"
    else
        echo "$binary aborts when it panics; set panic = \"unwind\" in the release profile" >&2
        status=1
    fi
done
exit $status
