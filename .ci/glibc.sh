#!/usr/bin/env bash
# Checks that no given binary needs a newer glibc than 2.34, the one of Lambda's runtime provided.al2023.
set -euo pipefail

newest_allowed=2.34
(($#)) || { echo "usage: .ci/glibc.sh BINARY..." >&2; exit 2; }

status=0
for binary in "$@"; do
    # All versions that the dynamic linker would look for; a static binary has none.
    versions=$(readelf --wide --version-info "$binary")
    needed=$(grep -o 'GLIBC_[0-9.]*' <<<"$versions" | cut -d_ -f2 | sort --version-sort | tail -n 1 || true)
    if [[ $(printf '%s\n' "${needed:-0}" $newest_allowed | sort --version-sort | tail -n 1) != "$newest_allowed" ]]; then
        echo "$binary needs glibc $needed, newer than $newest_allowed" >&2
        status=1
    else
        echo "$binary needs glibc ${needed:-none}"
    fi
done
exit $status
