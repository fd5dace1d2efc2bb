#!/bin/sh
# Measures how long a slave has no answer for a client: `tarsup upgrade`, against `docker stop` and `docker start` of a container
# that was created before, at the same address.
#
#   upgrade.sh [--runs N] [--write]     N runs of each (default 5), medians; --write puts them into benches/upgrade.md
#
# benches/page.sh puts that into docs/performance.md. Stand-ins for the services. Root on Debian, as tests/all.sh.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
help=2,5p choices=''
# shellcheck source=benches/lib.sh
. "$root/benches/lib.sh"
options "$@"
install_packages docker.io iptables iproute2 mmdebstrap jq ca-certificates >&2
begin bench
workshop
start_engine bench
in_engine() { sh "$root/tests/engine.sh" run bench -- "$@" </dev/null; }
docker() { in_engine docker "$@"; }

pack 3.0.17 >&2
pack 3.0.18 --from 3.0.17 --differ tarslog >&2
for version in 3.0.17 3.0.18; do
    ln -sfn "pack/$version" "$work/build"
    in_engine tarsup build "$work/images/framework.yaml" --version "$version" -o "tars/framework:$version" \
        -o "docker-daemon:tars/framework:$version" >>"$work/log" 2>&1
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

report() {
    tarsup=$(median <"$work/gap-tarsup")
    by_hand=$(median <"$work/gap-hand")
    echo '| what | tarsup upgrade, ms | docker stop + start of a container created before, ms | ratio |'
    echo '|---|---|---|---|'
    echo "| longest gap | $tarsup | $by_hand | $(awk -v a="$tarsup" -v b="$by_hand" 'BEGIN { printf "%.2f", a / b }') |"
    echo
    echo "(Medians of $runs, $(date -u +%Y-%m-%d), Docker $(docker version --format '{{.Server.Version}}').)"
}
if [ -n "$write" ]; then report >"$root/benches/upgrade.md"; else report; fi
