#!/usr/bin/env bash
# Checks the dependencies of each function: of this workspace only `shared` (and the providers for redrive and reconcile,
# which normalize their orders too), no crate of the local stack, and no TLS stack except rustls. deny.toml checks that
# there is one version of rustls and of hyper.
set -euo pipefail
cd "$(dirname "$0")/.."

only_local='dynoxide|dynoxide-rs|rustack-.*'
other_tls='aws-lc-rs|aws-lc-sys|aws-lc-fips-sys|openssl|openssl-sys|native-tls|boring|s2n-tls'

status=0
complain() {
    echo "$1" >&2
    status=1
}

for folder in functions/*/; do
    function=$(basename "$folder")
    # name version [path]
    tree=$(cargo tree --locked --package "$function" --prefix none --format '{p}' | sed 's/ (\*)$//' | sort --unique)
    allowed="shared|functions/$function"
    [[ $function != redrive && $function != reconcile ]] || allowed='shared|functions/[a-z]*'
    ours=$(sed -n "s|.*($PWD/\(.*\))|\1|p" <<<"$tree" | grep -vxE "$allowed" || true)
    [[ -z $ours ]] || complain "$function is built with another crate of the workspace: ${ours//$'\n'/, }"
    unwanted=$(cut -d' ' -f1,2 <<<"$tree" | grep -E "^($only_local|$other_tls) " || true)
    [[ -z $unwanted ]] || complain "$function is built with ${unwanted//$'\n'/, }"
    echo "$function: $(wc -l <<<"$tree") crates"
done

# A consumer uses the event types of `shared` without its feature `receiver`: then no AWS crate may come with them.
tree=$(cargo tree --locked --package shared --no-default-features --edges normal --prefix none --format '{p}' |
    sed 's/ (\*)$//' | sort --unique)
unwanted=$(cut -d' ' -f1,2 <<<"$tree" | grep -E '^(aws-|lambda|tokio|hyper|rustls)' || true)
[[ -z $unwanted ]] || complain "the event types of shared are built with ${unwanted//$'\n'/, }"
echo "shared, only the event types: $(wc -l <<<"$tree") crates"
exit $status
