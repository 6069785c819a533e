#!/usr/bin/env bash
# A function must survive a panic: it is an answer of 500, or an order that is kept as it came. cargo-lambda builds with
# `panic = "abort"` unless the profile says otherwise. Only the runtime that unwinds contains this message.
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
