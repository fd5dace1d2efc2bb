#!/bin/sh
# Nodes on a private engine: how long a service with one instance gives no answer, and how long a rollout of all nodes takes, by tarsup
# with drains, with --no-drain, and by hand.
#
#   nodes.sh [--runs N] [--nodes M]     N runs of each (default 5), medians; M nodes in the large rollout (default 20)
#
# Writes benches/nodes.md, which benches/page.sh puts into docs/performance.md. Root on Debian, as tests/all.sh; some fifteen minutes.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
help=2,7p choices='nodes' nodes=20
# shellcheck source=benches/lib.sh
. "$root/benches/lib.sh"
options "$@"
many=$nodes
install_packages docker.io iptables iproute2 mmdebstrap jq ca-certificates >&2
begin bench
workshop
start_engine bench-nodes
in_engine() { sh "$root/tests/engine.sh" run bench-nodes -- "$@" </dev/null; }
docker() { in_engine docker "$@"; }
quiet() { "$@" >>"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "failed: $*"; }; }

# ---- a database, a master, and nodes: a service on all of them, and one on the first alone

pack 3.0.17 --small >&2
for image in framework node; do
    quiet in_engine tarsup build "$work/images/$image.yaml" --version 3.0.17
    quiet in_engine tarsup copy "tars/$image:3.0.17" "docker-daemon:tars/$image:3.0.17"
done
quiet in_engine tarsup build "$work/images/database.yaml"
quiet in_engine tarsup copy tars/database:10.11 docker-daemon:tars/database:10.11
nodes=$(seq -f 'node%g' "$many")
service() { # NAME IMAGE HOST ROLE VARIABLES
    printf '  %s:\n    image: tars/%s\n    container_name: bench-%s\n    environment: {%s}\n' "$1" "$2" "$1" "$5"
    printf '    volumes: ["%s:%s"]\n    networks: {default: {ipv4_address: 172.31.78.%s}}\n    x-tars: {role: %s}\n' \
        "$1" "$([ "$4" = database ] && echo /var/lib/mysql || echo /data/tars)" "$3" "$4"
}
mkdir -p "$work/deploy"
{
    printf 'name: bench\nservices:\n'
    service database database:10.11 2 database 'MYSQL_ROOT_PASSWORD: bench'
    service framework framework:3.0.17 3 master 'MYSQL_HOST: 172.31.78.2, MYSQL_ROOT_PASSWORD: bench, INET: eth0'
    host=10
    for node in $nodes; do
        host=$((host + 1))
        service "$node" node:3.0.17 "$host" node "INET: eth0, TARS_REGISTRY_ADDRESS: tcp -h 172.31.78.3 -p 17890"
    done
    printf 'networks:\n  default:\n    ipam: {config: [{subnet: 172.31.78.0/24, ip_range: 172.31.78.128/25}]}\nvolumes:\n'
    for volume in database framework $nodes; do printf '  %s:\n' "$volume"; done
} >"$work/deploy/compose.yaml"
tarsup_in() { in_engine tarsup "$@" --yes -f "$work/deploy/compose.yaml"; }
note "a deployment of $many nodes"
quiet tarsup_in up
query() { docker exec -e MYSQL_PWD=bench bench-database mariadb -uroot -h127.0.0.1 -N -e "$1"; }
put() { # SERVER PORT NODE HOST
    home=/data/tars/tarsnode-data/Demo.$1/bin
    quiet docker exec "bench-$3" mkdir -p "$home"
    quiet docker cp "$standin_program" "bench-$3:$home/$1"
    quiet query "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name, endpoint, servant, protocol) VALUES
        ('Demo', '$1', '172.31.78.$4', 'Demo.$1.ObjAdapter', 'tcp -h 172.31.78.$4 -t 60000 -p $2', 'Demo.$1.Obj', 'tars');
        INSERT INTO db_tars.t_server_conf SET application = 'Demo', server_name = '$1', node_name = '172.31.78.$4',
        setting_state = 'active', present_state = 'inactive', base_path = ''"
}
host=10
for node in $nodes; do
    host=$((host + 1))
    put PairServer 9021 "$node" "$host"
done
put AloneServer 9022 node1 11
note "its tarsnodes start what is deployed, and a minute after that it starts with them"
until [ "$(query "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE application = 'Demo' AND present_state <> 'active'")" = 0 ]; do sleep 1; done
sleep 61

# ---- the silence of the one that is alone

# The longest time without an answer, in milliseconds, while a command runs.
gap() {
    rm -f "$work/stop"
    in_engine standin gap 172.31.78.11:9022 Demo.AloneServer.Obj --pause 5 --until "$work/stop" >"$work/gap.json" &
    client=$!
    sleep 0.5
    quiet "$@"
    sleep 5
    touch "$work/stop"
    wait "$client"
    jq .longest_ms "$work/gap.json"
}
one() { tarsup_in restart node1 --no-drain; }
replaced() { # as `up` does it: the nodes that differ, one by one; only the first differs
    awk -v try="$1" '/^  node1:/ { own = 1 } /^  node2:/ { own = 0 } own { sub(/INET: eth0/, "INET: eth0, TRY: \"" try "\"") } { print }' \
        "$work/deploy/compose.yaml" >"$work/deploy/other.yaml"
    in_engine tarsup up --yes --no-drain -f "$work/deploy/other.yaml"
}
by_hand() { docker stop bench-node1 && docker start bench-node1; }
for run in $(seq "$runs"); do
    note "silence, run $run of $runs"
    gap replaced "$run" >>"$work/gap-replaced"
    gap one >>"$work/gap-restarted"
    gap by_hand >>"$work/gap-hand"
done
quiet tarsup_in up --no-drain

# ---- a rollout of some of the nodes

seconds() {
    start=$(date +%s%N)
    quiet "$@"
    awk -v a="$start" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f\n", (b - a) / 1e9 }'
}
first() { printf '%s\n' "$nodes" | head -n "$1"; }
# By hand one waits until what runs there answers again before one takes the next.
all_by_hand() {
    host=10
    for node in $(first "$1"); do
        host=$((host + 1))
        docker stop "bench-$node"
        docker start "bench-$node"
        until in_engine standin gap "172.31.78.$host:9021" Demo.PairServer.Obj --seconds 0.1 | grep -q '"down_ms":0'; do sleep 0.1; done
    done
}
# shellcheck disable=SC2046 # a list of words
for count in 2 "$many"; do
    note "a rollout of $count nodes by hand and with --no-drain"
    seconds all_by_hand "$count" >"$work/hand-$count"
    seconds tarsup_in restart $(first "$count") --no-drain >"$work/undrained-$count"
done
note "a rollout of 2 nodes with drains"
# shellcheck disable=SC2046 # a list of words
seconds tarsup_in restart $(first 2) >"$work/drained-2"

value() { median <"$work/$1"; }
printed() {
    echo '| a service with one instance gives no answer for, ms | tarsup | by hand | ratio |'
    echo '|---|---|---|---|'
    for what in replaced restarted; do
        printf '| its node is %s, against docker stop + start | %s | %s | %s |\n' "$what" \
            "$(value "gap-$what")" "$(value gap-hand)" "$(awk -v a="$(value "gap-$what")" -v b="$(value gap-hand)" 'BEGIN { printf "%.2f", a / b }')"
    done
    echo
    echo '| a restart of all of them, s | with drains | --no-drain | by hand |'
    echo '|---|---|---|---|'
    printf '| two nodes | %s | %s | %s |\n' "$(value drained-2)" "$(value undrained-2)" "$(value hand-2)"
    printf '| %s nodes | see below | %s | %s |\n' "$many" "$(value "undrained-$many")" "$(value "hand-$many")"
    echo
    echo "(Medians of $runs, $(date -u +%Y-%m-%d). Of what \`--no-drain\` takes, 5 s a node are the dwell.)"
}
printed >"$root/benches/nodes.md"
cat "$root/benches/nodes.md"
