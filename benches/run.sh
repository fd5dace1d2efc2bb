#!/bin/sh
# Measures side by side, in a private engine, and prints the results as docs/performance.md has them.
#
#   run.sh [--runs N] [--write]     N runs of each (default 5), medians; --write puts them into docs/performance.md
#
# 1. The same packages into an engine: `tarsup build` and `copy`, against `docker build` of an equivalent Dockerfile.
# 2. How long a slave has no answer for a client: `tarsup upgrade`, against `docker stop` and `docker start` of a
#    container that was created before, at the same address.
# Root on Debian, as tests/all.sh.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
help=2,9p choices=''
# shellcheck source=benches/lib.sh
. "$root/benches/lib.sh"
options "$@"
install_packages docker.io iptables iproute2 mmdebstrap jq ca-certificates >&2
begin bench
workshop
start_engine bench
in_engine() { sh "$root/tests/engine.sh" run bench -- "$@" </dev/null; }
docker() { in_engine docker "$@"; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

# ---- 1. packages into an engine

by_tarsup() { # VERSION [OPTION...]
    version=$1
    shift
    ln -sfn "pack/$version" "$work/build"
    in_engine tarsup build "$work/images/framework.yaml" --version "$version" "$@"
    in_engine tarsup copy "tars/framework:$version" "docker-daemon:tars/framework:$version"
}

# The Dockerfile that somebody would write: unpack, then one COPY a service, so that one changed service is one layer.
unpack() {
    context=$work/context
    rm -rf "$context"
    mkdir -p "$context"
    for package in "$work/pack/$1"/packages/*.tgz; do tar -xzf "$package" -C "$context"; done
    for service in "$context"/tars*; do
        name=$(basename "$service")
        if [ ! -d "$service/bin" ]; then
            mkdir "$service/bin"
            mv "$service/$name" "$service/bin/"
        fi
    done
    cp -R "$work/pack/$1/deploy/framework" "$context/deploy"
    cp "$work/bin/tars-init" "$context/"
    {
        echo 'FROM bench/base:1'
        for name in tarsAdminRegistry tarsregistry tarsconfig tarsnode tarsnotify tarsproperty tarsqueryproperty tarsquerystat \
            tarsstat tarslog tarspatch; do
            echo "COPY $name /usr/local/app/tars/$name"
        done
        echo 'COPY deploy /usr/local/tars/cpp/deploy/framework'
        echo 'COPY tars-init /usr/local/bin/tars-init'
        echo 'ENTRYPOINT ["/usr/local/bin/tars-init", "framework"]'
    } >"$context/Dockerfile"
}
by_docker() { # VERSION
    unpack "$1"
    in_engine env DOCKER_BUILDKIT="$buildkit" docker build -q -t "bench/framework:$1" "$work/context"
}
import_and_by_docker() {
    docker import "$(readlink -f "$work/base/framework.tar")" bench/base:1
    by_docker "$1"
}

# Newer command lines have BuildKit in a plugin of its own: without it the classic builder is measured, and named.
find_builder() {
    mkdir -p "$work/tiny"
    echo 'FROM scratch' >"$work/tiny/Dockerfile"
    echo 'COPY Dockerfile /' >>"$work/tiny/Dockerfile"
    buildkit=1 builder=BuildKit
    in_engine env DOCKER_BUILDKIT=1 docker build -q "$work/tiny" >/dev/null 2>&1 || buildkit=0 builder='the classic builder'
}

forget_all() {
    for image in $(docker images -q | sort -u); do docker rmi -f "$image" >/dev/null 2>&1 || true; done
    docker builder prune -af >/dev/null 2>&1 || true
    rm -rf "$TARSUP_STORE" "$TARSUP_CACHE"
    sync
}

find_builder
pack 3.0.17 >&2
pack 3.0.18 --from 3.0.17 --differ tarslog >&2
pack 3.0.19 --from 3.0.17 --differ tarsregistry >&2
for run in $(seq "$runs"); do
    note "images, run $run of $runs"
    forget_all
    took by_tarsup 3.0.17 >>"$work/tarsup-cold"
    took by_tarsup 3.0.18 --after tars/framework:3.0.17 >>"$work/tarsup-late"
    took by_tarsup 3.0.19 --after tars/framework:3.0.17 >>"$work/tarsup-early"
    forget_all
    took import_and_by_docker 3.0.17 >>"$work/docker-cold"
    took by_docker 3.0.18 >>"$work/docker-late"
    took by_docker 3.0.19 >>"$work/docker-early"
done

# ---- 2. a slave's answers

forget_all
for version in 3.0.17 3.0.18; do
    by_tarsup "$version" >>"$work/log" 2>&1
    in_engine tarsup build "$work/images/node.yaml" --version "$version" >>"$work/log" 2>&1
done
in_engine tarsup build "$work/images/database.yaml" >>"$work/log" 2>&1
in_engine tarsup copy tars/database:10.11 docker-daemon:tars/database:10.11 >>"$work/log" 2>&1
mkdir -p "$work/deploy"
# Database, master and slave: what stands between `node:` and the networks is left out.
awk '/^  node:/ { skip = 1 } /^networks:/ { skip = 0 } !skip' "$root/compose/demo.yaml" |
    sed 's#tarsup-demo/#tars/#; /ports:/d' >"$work/deploy/compose.yaml"
printf 'TARS_VERSION=3.0.17\nDEMO_PASSWORD=bench\n' >"$work/deploy/.env"
in_engine tarsup up --yes -f "$work/deploy/compose.yaml" >>"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "up failed"; }

# The longest time without an answer, in milliseconds, while a command runs.
gap() {
    rm -f "$work/stop"
    in_engine standin gap 172.31.77.4:17890 tars.tarsregistry.QueryObj --pause 5 --until "$work/stop" >"$work/gap.json" &
    client=$!
    sleep 0.5
    "$@" >>"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "failed: $*"; }
    sleep 1
    touch "$work/stop"
    wait "$client"
    jq .longest_ms "$work/gap.json"
}
upgrade_to() { in_engine tarsup upgrade --to "$1" --yes -f "$work/deploy/compose.yaml"; }
swap_by_hand() { docker stop "$1" && docker start "$2"; }

version=3.0.18
for run in $(seq "$runs"); do
    note "upgrade, run $run of $runs"
    gap upgrade_to "$version" >>"$work/gap-tarsup"
    if [ "$version" = 3.0.18 ]; then version=3.0.17; else version=3.0.18; fi
done
docker create --name by-hand --network tarsup-demo --ip 172.31.77.4 -e MYSQL_HOST=172.31.77.2 -e MYSQL_ROOT_PASSWORD=bench \
    -e SLAVE=true tars/framework:3.0.17 >/dev/null
old=tarsup-demo-slave new=by-hand
for run in $(seq "$runs"); do
    note "stop and start by hand, run $run of $runs"
    gap swap_by_hand "$old" "$new" >>"$work/gap-hand"
    for _ in $(seq 100); do ! docker exec "$new" tars-init health >/dev/null 2>&1 || break; sleep 0.2; done
    swap=$old old=$new new=$swap
done

# ---- the report

value() { median <"$work/$1"; }
row() { printf '| %s | %s | %s | %s |\n' "$1" "$(value "$2")" "$(value "$3")" "$(ratio "$(value "$2")" "$(value "$3")")"; }
report() {
    cat <<EOT
# Performance, side by side

Medians of $runs runs, $(date -u +%Y-%m-%d), on a machine with $(nproc) cores and $(awk '/MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo), $(uname -sm).
\`sh benches/run.sh --write\` makes this page anew. Times belong to the machine; the ratios are what to compare. No test
asserts a time.

Versions: $(tarsup --version), Docker $(docker version --format '{{.Server.Version}}') with $builder and $(docker info --format '{{.Driver}}').

## The builder

$(cat "$root/benches/builder.md")

## The same packages into an engine

Stand-in packages of the real sizes (seven \`.tgz\`, 33 MB), a Debian root file system of $(du -mL "$work/base/framework.tar" | cut -f1) MB.
\`docker build\`: unpack, then one \`COPY\` a service on the imported root file system, $builder.

| what | tarsup build + copy, ms | docker build, ms | ratio |
|---|---|---|---|
$(row "cold: nothing cached anywhere" tarsup-cold docker-cold)
$(row "one service changed, late in the order (tarslog)" tarsup-late docker-late)
$(row "one service changed, early in the order (tarsregistry)" tarsup-early docker-early)

tarsup's image is the same, byte for byte, wherever it is built, and lies compressed in a store that other engines and
registries can be fed from; \`docker build\` leaves layers in this engine alone. tarsup compresses what changed (for every
other place that the image goes to), docker does not.

## A slave's answers during an upgrade

A client pings the slave's \`tars.tarsregistry.QueryObj\` every 5 ms; the longest time without an answer counts.

| what | tarsup upgrade, ms | docker stop + start of a container created before, ms | ratio |
|---|---|---|---|
$(row "longest gap" gap-tarsup gap-hand)

Both stop the old container before the new one starts, because both have the same address. Either way the stop takes what
the services need to stop, and the start what tarsregistry needs until it answers.

## Nodes on an engine

A node whose service has no other instance is restarted, or replaced (\`--no-drain\`), while a client pings that service every 5 ms. Then nodes that share
another service are restarted one by one: with the default times (65 s for clients, 5 s of dwell) with and without drains, and by hand with
\`docker stop\` and \`docker start\`, each awaited until it answers. Neither \`--no-drain\` nor the hand spares the clients of what is stopped.
\`sh benches/nodes.sh\` measures it anew.

$(cat "$root/benches/nodes.md")

## A rollout of twenty nodes, without an engine's own time

A restart with the default times (65 s for clients, 5 s of dwell) on an engine in memory, where nothing but waiting takes time. Without
overlap the first line would be 1,400 s. \`sh benches/rollout.sh\` measures it anew.

$(cat "$root/benches/rollout.md")

## A plan for 1,000 services

All of them run as declared. The engine is a socket that answers from memory, so that what counts is tarsup's own part.
\`sh benches/plan.sh BEFORE\` measures it anew beside an earlier build. A test holds the calls to 15 at most.

$(cat "$root/benches/plan.md")
EOT
}
if [ -n "$write" ]; then
    report >"$root/docs/performance.md.new"
    mv "$root/docs/performance.md.new" "$root/docs/performance.md"
    note "docs/performance.md is written"
else
    report
fi
