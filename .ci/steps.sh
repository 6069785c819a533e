# Sourced by run and full: how a step is shown, and the steps that are more than one command.

export CARGO_INCREMENTAL=0
export SAM_CLI_TELEMETRY=0
# sam would ask for the credentials of a machine that it runs on, and needs none.
export AWS_EC2_METADATA_DISABLED=true
# `sam validate` asks for some region and calls none.
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}"

# A step's name, its output, its time.
step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "$@"
    printf -- '-- %s: %d s\n' "$name" $((SECONDS - start))
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Whatever was started is stopped, in reverse order.
started=()
bridge=
scratch=$(mktemp -d)
clean_up() {
    set +e
    local pid
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        pid=${started[i]}
        kill -TERM "$pid" 2>/dev/null || continue
        for _ in {1..100}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null
    done
    [[ -z $bridge ]] || ip link delete "$bridge"
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Waits up to two minutes for a condition that the process `pid` brings about; shows its log when it does not.
wait_for() {
    local what=$1 pid=$2 log=$3
    shift 3
    for _ in {1..600}; do
        if "$@" >/dev/null 2>&1; then return; fi
        if ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.2
    done
    tail -n 40 "$log" >&2
    fail "$what did not come up"
}

install_tools() {
    local packages=()
    command -v dockerd >/dev/null || packages+=(docker.io)
    command -v debootstrap >/dev/null || packages+=(debootstrap)
    command -v chromedriver >/dev/null || packages+=(chromium chromium-driver fonts-dejavu-core)
    command -v ip >/dev/null || packages+=(iproute2)
    command -v socat >/dev/null || packages+=(socat)
    command -v readelf >/dev/null || packages+=(binutils)
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
    if ((${#packages[@]})); then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    fi
    python3 -m venv target/ci/venv
    target/ci/venv/bin/pip install --quiet --disable-pip-version-check --requirement .ci/requirements.txt
    PATH=$PWD/target/ci/venv/bin:$PATH
    cargo --version
    sam --version
    cargo lambda --version
    cargo deny --version
}

# In an environment of its own, as ministack is.
ask_moto() {
    python3 -m venv target/ci/moto
    target/ci/moto/bin/pip install --quiet --disable-pip-version-check --requirement tests/moto/requirements.txt
    MOTO_SERVER=$PWD/target/ci/moto/bin/moto_server tests/moto/run "$@"
}

# Rules left out: WS1000 reads no condition (tracing is a parameter), WS1004 knows log groups by Lambda's own names only, ES6000
# wants a dead-letter queue for dead-letter queues, ES7000 one for a mail. W1030 as in the template, whose word these options replace.
check_template() {
    sam validate --lint
    cfn-lint template.yaml --append-rules cfn_lint_serverless.rules --ignore-checks W1030 WS1000 WS1004 ES6000 ES7000
}

# In an environment of its own: ministack and sam do not agree on what they are made of.
check_deployment() {
    python3 -m venv target/ci/ministack
    target/ci/ministack/bin/pip install --quiet --disable-pip-version-check --requirement tests/deploy/requirements.txt
    # The AWS CLI is moto's neighbour.
    PATH=$PWD/target/ci/moto/bin:$PATH target/ci/ministack/bin/python tests/deploy/deploy.py
}

# The database is a repository of its own, which is not reachable from everywhere.
advisories() {
    if timeout 120 cargo deny fetch db >"$scratch/advisories.log" 2>&1; then
        cargo deny --locked check --disable-fetch advisories
    else
        grep . "$scratch/advisories.log" | tail -n 1
        echo "skipped: advisory database not reachable"
    fi
}

# What is deployed by default. Built only: nothing here can run it. cargo-lambda would fetch a missing target unasked.
build_for_arm64() {
    local target=aarch64-unknown-linux-gnu
    if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$target ]]; then
        echo "skipped: the toolchain has no $target (rustup target add $target)"
        return
    fi
    sam build --build-dir target/ci/arm64
    .ci/glibc.sh target/ci/arm64/*/bootstrap
}

# A daemon of our own, where none answers. No packet filter: containers need the host only, and ports go through Docker's proxy.
start_docker() {
    local image=public.ecr.aws/lambda/provided:al2023-x86_64
    if ! docker version >/dev/null 2>&1; then
        export DOCKER_HOST=unix://$scratch/docker.sock
        make_bridge
        dockerd --host "$DOCKER_HOST" --bridge "$bridge" --data-root "$scratch/docker" --exec-root "$scratch/docker-run" \
            --pidfile "$scratch/docker.pid" --iptables=false --ip6tables=false >"$scratch/docker.log" 2>&1 &
        started+=($!)
        wait_for "the Docker daemon" $! "$scratch/docker.log" docker version
    fi
    docker version --format 'Docker {{.Server.Version}}'
    if docker image inspect "$image" >/dev/null 2>&1 || timeout 300 docker pull --quiet "$image" 2>/dev/null; then return; fi
    echo "AWS' image cannot be pulled: a Debian stands in for it, with the emulator that sam brings"
    debootstrap --variant=minbase bookworm "$scratch/debian" >"$scratch/debootstrap.log" 2>&1 ||
        { tail -n 20 "$scratch/debootstrap.log" >&2; fail "debootstrap failed"; }
    tar -C "$scratch/debian" -c . | docker import - "$image"
}

# On Docker's usual one, a container that a killed daemon left behind still answers for an address that is given out again.
make_bridge() {
    local network link
    # A killed run has not taken its own away.
    for link in $(ip -brief link show type bridge | grep -o '^lambdas[0-9]*'); do
        [[ -d /proc/${link#lambdas} ]] || ip link delete "$link"
    done
    for network in 172.{30,31,29,28,27}.0; do
        if [[ -z $(ip -4 route show root "$network.0/16") ]]; then
            # Without an address of its own it takes a container's, and changes it under the others when that one goes.
            ip link add name "lambdas$$" address 02:00:00:00:00:01 type bridge
            bridge=lambdas$$
            ip address add "$network.1/24" dev "$bridge"
            ip link set dev "$bridge" up
            return
        fi
    done
    fail "there is no free network for containers"
}

# On any free ports, beside a stack that may be running already. It listens on 127.0.0.1 only and a container comes from
# Docker's bridge, so the ports that events/env.json names are handed through from there.
start_local_stack() {
    local host log=$scratch/local.log
    cargo build --locked --workspace --bins
    "${CARGO_TARGET_DIR:-target}/debug/local" --port 0 --dynamodb-port 0 --sns-port 0 --snipcart-port 0 >"$log" 2>&1 &
    started+=($!)
    wait_for "the local stack" $! "$log" grep --quiet "Ctrl-C stops it" "$log"
    host=$(docker network inspect bridge --format '{{with index .IPAM.Config 0}}{{or .Gateway .Subnet}}{{end}}')
    # A daemon that has just made its bridge names the network alone: it takes the first address.
    [[ $host != */* ]] || host=${host%.*}.1
    hand_through "$host" 8000 "$(sed -n 's/.*AWS_ENDPOINT_URL_DYNAMODB=.*:\([0-9]*\)$/\1/p' "$log")"
    hand_through "$host" 4566 "$(sed -n 's/.*AWS_ENDPOINT_URL_SNS=.*:\([0-9]*\)$/\1/p' "$log")"
    hand_through "$host" 9001 "$(sed -n 's/^Snipcart.*:\([0-9]*\)\/api$/\1/p' "$log")"
    QUEUE_URL=$(sed -n 's/^ *queue \(http:.*\)/\1/p' "$log")
    export QUEUE_URL
}

hand_through() {
    echo "$1:$2 leads to 127.0.0.1:$3"
    socat "TCP-LISTEN:$2,bind=$1,fork,reuseaddr" "TCP:127.0.0.1:$3" &
    started+=($!)
}
