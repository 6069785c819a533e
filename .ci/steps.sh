# Sourced by run and full: prints a step, and defines the steps that take more than one command.

export CARGO_INCREMENTAL=0
export SAM_CLI_TELEMETRY=0
# Keeps sam from asking the instance metadata service for credentials; it needs none.
export AWS_EC2_METADATA_DISABLED=true
# `sam validate` demands a region, although it makes no call.
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}"

# Prints the name of a step, runs it, and prints how long it took.
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

# Starts a command whose result a later step waits for: in_background NAME COMMAND...
declare -A running=()
in_background() {
    local name=$1
    shift
    "$@" >"$scratch/$name.log" 2>&1 &
    running[$name]=$!
    started+=($!)
}

# Waits for a command in the background, and prints the end of its output: all of it if the command has failed.
result_of() {
    if ! wait "${running[$1]}"; then
        cat "$scratch/$1.log" >&2
        fail "$1 failed; its output is above"
    fi
    tail -n 3 "$scratch/$1.log"
}

# Stops every started process, the last one first.
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

# Waits up to two minutes until a command succeeds, as long as the process `pid` runs; otherwise prints the process's
# log.
wait_for() {
    local what=$1 pid=$2 log=$3
    shift 3
    for _ in {1..600}; do
        if "$@" >/dev/null 2>&1; then return; fi
        if ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.2
    done
    tail -n 40 "$log" >&2
    fail "$what did not start"
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

# Only local files are looked at: a page that is not reachable fails no build.
check_links() {
    git ls-files -z '*.md' | xargs -0 lychee --offline --include-fragments --no-progress --root-dir "$PWD"
    .ci/references.py
}

# moto and the AWS CLI have their own virtual environment, as ministack has.
test_against_moto() {
    python3 -m venv target/ci/moto
    target/ci/moto/bin/pip install --quiet --disable-pip-version-check --requirement tests/moto/requirements.txt
    MOTO_SERVER=$PWD/target/ci/moto/bin/moto_server tests/moto/run "$@"
}

# Ignored rules: WS1000 does not evaluate conditions (tracing is a parameter); WS1004 finds only log groups that have
# Lambda's default names; ES6000 demands a dead-letter queue for each dead-letter queue, ES7000 one for the e-mail
# subscription. W1030 is ignored in the template too, but these options replace that setting.
check_template() {
    sam validate --lint
    cfn-lint template.yaml --append-rules cfn_lint_serverless.rules --ignore-checks W1030 WS1000 WS1004 ES6000 ES7000
    # A copy with one more provider, which the test writes.
    cargo test --locked --workspace --test contracts a_sixth_provider
    sam validate --lint --template-file "${CARGO_TARGET_DIR:-target}/tmp/sixth-provider.yaml"
}

# ministack has its own virtual environment: its dependencies conflict with those of sam.
check_deployment() {
    python3 -m venv target/ci/ministack
    target/ci/ministack/bin/pip install --quiet --disable-pip-version-check --requirement tests/deploy/requirements.txt
    # The AWS CLI is installed with moto.
    PATH=$PWD/target/ci/moto/bin:$PATH target/ci/ministack/bin/python tests/deploy/deploy.py
}

# The advisory database is a Git repository, which not every network can reach.
advisories() {
    if timeout 120 cargo deny fetch db >"$scratch/advisories.log" 2>&1; then
        cargo deny --locked check --disable-fetch advisories
    else
        grep . "$scratch/advisories.log" | tail -n 1
        echo "skipped: advisory database not reachable"
    fi
}

# arm64 is the default of the template. The functions are only built, because this machine cannot run them. A missing
# target is skipped here, because cargo-lambda would download it.
build_for_arm64() {
    local target=aarch64-unknown-linux-gnu
    if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$target ]]; then
        echo "skipped: the toolchain has no $target (rustup target add $target)"
        return
    fi
    sam build --build-dir target/ci/arm64
    .ci/glibc.sh target/ci/arm64/*/bootstrap
}

# Starts a Docker daemon if none answers. It needs no packet filter: containers reach only the host, and Docker's proxy
# forwards ports.
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
    echo "the image of AWS cannot be pulled: using Debian instead, with the emulator that sam brings"
    debootstrap --variant=minbase bookworm "$scratch/debian" >"$scratch/debootstrap.log" 2>&1 ||
        { tail -n 20 "$scratch/debootstrap.log" >&2; fail "debootstrap failed"; }
    tar -C "$scratch/debian" -c . | docker import - "$image"
}

# Creates a bridge for this run. On Docker's default bridge, a container that a killed daemon left behind may still use
# an address that the new daemon assigns again.
make_bridge() {
    local network link
    # Removes the bridges of killed runs.
    for link in $(ip -brief link show type bridge | grep -o '^lambdas[0-9]*'); do
        [[ -d /proc/${link#lambdas} ]] || ip link delete "$link"
    done
    for network in 172.{30,31,29,28,27}.0; do
        if [[ -z $(ip -4 route show root "$network.0/16") ]]; then
            # Without a fixed MAC address the bridge takes that of a container, and changes it when that container
            # stops.
            ip link add name "lambdas$$" address 02:00:00:00:00:01 type bridge
            bridge=lambdas$$
            ip address add "$network.1/24" dev "$bridge"
            ip link set dev "$bridge" up
            return
        fi
    done
    fail "there is no free network for containers"
}

# Starts a local stack on free ports, because another one may be running. It listens only on 127.0.0.1, which a
# container cannot reach, so the ports that events/env.json names are forwarded from Docker's bridge.
start_local_stack() {
    local host log=$scratch/local.log
    endpoints=$scratch/endpoints.json
    cargo build --locked --workspace --bins
    "${CARGO_TARGET_DIR:-target}/debug/local" --port 0 --dynamodb-port 0 --sns-port 0 --snipcart-port 0 \
        --endpoints-file "$endpoints" >"$log" 2>&1 &
    started+=($!)
    wait_for "the local stack" $! "$log" test -s "$endpoints"
    host=$(docker network inspect bridge --format '{{with index .IPAM.Config 0}}{{or .Gateway .Subnet}}{{end}}')
    # A daemon that has just created its bridge reports only the network; the gateway is its first address.
    [[ $host != */* ]] || host=${host%.*}.1
    forward_port "$host" 8000 "$(port_of dynamodb)"
    forward_port "$host" 4566 "$(port_of sns)"
    forward_port "$host" 9001 "$(port_of snipcart_api)"
    QUEUE_URL=$(endpoint queue_url)
    export QUEUE_URL
}

endpoint() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$endpoints" "$1"
}

port_of() {
    python3 -c 'import sys, urllib.parse; print(urllib.parse.urlsplit(sys.argv[1]).port)' "$(endpoint "$1")"
}

forward_port() {
    echo "$1:$2 is forwarded to 127.0.0.1:$3"
    socat "TCP-LISTEN:$2,bind=$1,fork,reuseaddr" "TCP:127.0.0.1:$3" &
    started+=($!)
}
