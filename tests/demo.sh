#!/bin/sh
# tarsup's main job, shown: packages become layered images, a framework runs on them, a new version rolls through it.
#
#   demo.sh [--keep] [--no-engine]     --keep: everything stays for looking around, the end says how to remove it;
#                                      --no-engine: only what needs none
#   demo.sh --remove FOLDER            removes what --keep kept
#
# Needs Rust. Uses the Docker engine that answers, else (as root on Debian) a private one that it starts and stops, else
# it builds, compares and checks images in a store of its own and says what it left out. Names, network, port, store and
# state are its own; what it made it removes.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"

keep='' no_engine='' remove=''
while [ $# -gt 0 ]; do
    case $1 in
        --keep) keep=1 ;;
        --no-engine) no_engine=1 ;;
        --remove) remove=${2:-}; [ -d "$remove/deploy" ] || die "--remove takes the folder of a demo that was kept"; shift ;;
        *) sed -n '2,10s/^# *//p' "$0" >&2; exit 2 ;;
    esac
    shift
done

work=${remove:-${TARSUP_DEMO_DIR:-$(mktemp -d /tmp/tarsup-demo.XXXXXX)}}
engine='' # how a command reaches the engine: '' none, 'env' the user's, else through tests/engine.sh
chapter=0 left_out='' began=$(now) chapter_began=$began
password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')

# ---- telling

chapter() {
    [ "$chapter" = 0 ] || printf '   (%s)\n' "$(since "$chapter_began")"
    chapter=$((chapter + 1)) chapter_began=$(now)
    printf '\n%s. %s\n' "$chapter" "$1"
    shift
    for line in "$@"; do printf '   %s\n' "$line"; done
}
tell() { printf '   %s\n' "$*"; }
leave_out() { left_out="$left_out
   - $*"; }

# Shows a command, runs it, and holds it to the exit code that the story needs.
expect() {
    wanted=$1
    shift
    printf '\n   $ %s\n' "$*"
    code=0
    # shellcheck disable=SC2086 # $engine is a command with arguments, or empty
    ${engine:-env} "$@" >"$work/out" 2>&1 </dev/null || code=$?
    sed 's/^/     /' "$work/out"
    [ "$code" = "$wanted" ] || die "expected exit code $wanted and got $code"
    [ "$wanted" = 0 ] || tell "exit code $code, as it must be"
}
# Runs quietly, in the engine's network.
# shellcheck disable=SC2086
quiet() { ${engine:-env} "$@" </dev/null; }

# ---- the engine

find_engine() {
    if [ -n "$no_engine" ]; then
        leave_out "everything that needs a Docker engine, as --no-engine says"
    elif command -v docker >/dev/null && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
        engine='env'
        tell "engine: the one that answers here ($(docker version --format '{{.Server.Version}}'))"
    elif is_root && [ "$(uname -s)" = Linux ] && sh "$root/tests/engine.sh" start demo >"$work/engine.log" 2>&1; then
        engine="sh $root/tests/engine.sh run demo --"
        tell "engine: a private one, in a network of its own ($(quiet docker version --format '{{.Server.Version}}'))"
    else
        [ ! -s "$work/engine.log" ] || sed 's/^/   /' "$work/engine.log"
        leave_out "everything that needs a Docker engine: none answers, and only root on Debian can have a private one"
    fi
}

clean_up() {
    code=$?
    trap - EXIT INT TERM
    if [ -n "$keep" ] && [ "$code" = 0 ]; then return; fi
    if [ "$code" != 0 ] && [ -n "$engine" ]; then
        printf '\nThe last lines of the containers:\n' >&2
        for container in $(quiet docker ps -aq --filter label=io.tarsup.deployment=tarsup-demo 2>/dev/null); do
            quiet docker inspect -f '{{.Name}} {{.State.Status}}' "$container" >&2
            quiet docker logs --tail 8 "$container" >&2 2>&1 || true
        done
    fi
    remove_all
    exit "$code"
}

remove_all() {
    case $engine in
        '') ;;
        env)
            for container in $(docker ps -aq --filter label=io.tarsup.deployment=tarsup-demo) tarsup-demo-client; do
                docker rm -fv "$container" >/dev/null 2>&1 || true
            done
            for volume in database framework slave node; do docker volume rm "tarsup-demo_$volume" >/dev/null 2>&1 || true; done
            docker network rm tarsup-demo >/dev/null 2>&1 || true
            for image in $(docker images --format '{{.Repository}}:{{.Tag}}' | grep '^tarsup-demo/'); do
                docker rmi "$image" >/dev/null 2>&1 || true
            done
            ;;
        *) sh "$root/tests/engine.sh" stop demo ;;
    esac
    rm -rf "$work"
}
if [ -n "$remove" ]; then
    find_engine
    remove_all
    exit
fi
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- helpers of the story

in_deployment() { want=$1; shift; expect "$want" tarsup "$@" -f "$work/deploy/compose.yaml"; }
query() { quiet docker exec -e MYSQL_PWD="$password" tarsup-demo-mysql mariadb -uroot -h127.0.0.1 -N -e "$1"; }
# Every table with its rows: what a rebuild would change.
tables() {
    query "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables
           WHERE table_schema LIKE 'db\_%' OR table_schema LIKE 'tars\_%'" |
        while read -r table; do printf '%s %s\n' "$table" "$(query "SELECT COUNT(*) FROM $table")"; done
}
tables_of_framework() { query "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema LIKE 'db\_%' OR table_schema LIKE 'tars\_%'"; }
# A marker that any rebuild would take away, and how many rows stand around it.
marker() { query "SELECT COUNT(*) FROM db_tars.t_config_files WHERE filename = 'demo.conf'"; }

start_client() {
    quiet docker run -d --name tarsup-demo-client --network tarsup-demo \
        --entrypoint /usr/local/app/tars/tarsnode/bin/tarsnode tarsup-demo/node:3.0.17 \
        gap 172.31.77.4:17890 tars.tarsregistry.QueryObj --until /stop >/dev/null
}
stop_client() {
    quiet docker exec tarsup-demo-client touch /stop
    quiet docker wait tarsup-demo-client >/dev/null
    quiet docker logs tarsup-demo-client | tail -n 1 >"$work/gap.json"
    quiet docker rm -v tarsup-demo-client >/dev/null
    tell "the client's report: $(cat "$work/gap.json")"
}

# ---- the story

say "tarsup: from TARS packages to a rolled upgrade. Work folder: $work"
if is_root && command -v apt-get >/dev/null; then
    install_packages mmdebstrap ca-certificates iproute2 iptables util-linux
fi
compile
make_workshop "$work"
sed -i.bak 's#^name: tars/#name: tarsup-demo/#' "$work"/images/*.yaml
rm -f "$work"/images/*.bak
find_engine
if [ -n "$engine" ] && [ -n "$(quiet docker ps -aq --filter label=io.tarsup.deployment=tarsup-demo)" ]; then
    engine='' # what is there stays
    die "a demo that was kept is still there; its end said how to remove it: sh tests/demo.sh --remove FOLDER"
fi
bases_began=$(now)
if link_bases 2>"$work/bases.log"; then
    tell "root file systems: $(since "$bases_began")"
else
    sed 's/^/   /' "$work/bases.log"
    leave_out "running the images: without a root file system they stand on scratch, which is enough to build and compare"
    sed -i.bak 's#^base: .*#base: scratch#' "$work"/images/*.yaml
    engine=''
fi
began=$(now)

chapter "Packages, as \`make framework-tar\` and \`make tarsstat-tar\` write them" \
    "Stand-ins of the real layouts and sizes, so that this runs anywhere: they listen on the true ports and answer tars_ping."
pack 3.0.17
tell "$(find "$work/build/packages/" -name '*.tgz' | wc -l) packages, $(du -shL "$work/build/packages" | cut -f1):"
(cd "$work/build/packages" && ls ./*.tgz) | tr '\n' ' ' | sed 's/^/   /; s#\./##g'
echo

chapter "Images, without any daemon" \
    "One layer a service, named by its content: two builds of the same content are the same image."
expect 0 tarsup build "$work/images/framework.yaml"
expect 0 tarsup build "$work/images/node.yaml"
[ -z "$engine" ] || expect 0 tarsup build "$work/images/database.yaml"

chapter "A new version in which one service changed" \
    "3.0.18 brings another tarslog. All packages are packed again, with other time stamps, as make does; one layer differs."
pack 3.0.18 --from 3.0.17 --differ tarslog
expect 0 tarsup build "$work/images/framework.yaml" --version 3.0.18 --after tarsup-demo/framework:3.0.17
expect 0 tarsup build "$work/images/node.yaml" --version 3.0.18 --after tarsup-demo/node:3.0.17
code=0
tarsup diff tarsup-demo/framework:3.0.17 tarsup-demo/framework:3.0.18 >"$work/out" 2>&1 || code=$?
printf '\n   $ tarsup diff tarsup-demo/framework:3.0.17 tarsup-demo/framework:3.0.18\n'
sed 's/^/     /' "$work/out"
[ "$code" = 0 ] || [ "$code" = 6 ] || die "diff failed"

if [ -z "$engine" ]; then
    chapter "The store" "A plain OCI layout that skopeo, umoci and podman read."
    expect 0 tarsup inspect tarsup-demo/framework:3.0.18
    first=$(sha256sum "$work/store/index.json")
    expect 0 tarsup build "$work/images/framework.yaml" --version 3.0.18 --after tarsup-demo/framework:3.0.17
    [ "$first" = "$(sha256sum "$work/store/index.json")" ] || die "the same inputs gave another image"
    tell "built twice, the same bytes."
    printf '\nLeft out:%s\nDone in %s.\n' "$left_out" "$(since "$began")"
    exit 0
fi

chapter "Into the engine" \
    "Only the layers that it lacks are sent. On a classic store a layer counts with all that lie below it: from the changed" \
    "one on they are sent again, which is why tarsup puts what changed last."
expect 0 tarsup copy tarsup-demo/database:10.11 docker-daemon:tarsup-demo/database:10.11
expect 0 tarsup copy tarsup-demo/framework:3.0.17 docker-daemon:tarsup-demo/framework:3.0.17
expect 0 tarsup copy tarsup-demo/node:3.0.17 docker-daemon:tarsup-demo/node:3.0.17
expect 0 tarsup copy tarsup-demo/framework:3.0.18 docker-daemon:tarsup-demo/framework:3.0.18
expect 0 tarsup copy tarsup-demo/node:3.0.18 docker-daemon:tarsup-demo/node:3.0.18

chapter "A framework from a compose file" \
    "Database, master, slave and node at fixed addresses. x-tars says which service is what; look at $work/deploy/compose.yaml"
mkdir -p "$work/deploy"
cp "$root/compose/demo.yaml" "$work/deploy/compose.yaml"
printf 'TARS_VERSION=3.0.17\nDEMO_PASSWORD=%s\n' "$password" >"$work/deploy/.env"
in_deployment 0 up --yes
in_deployment 0 status
tell "The start of the master, as \`docker logs\` tells it:"
quiet docker logs tarsup-demo-framework 2>&1 | tail -n 25 | sed 's/^/     /'
query "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('Demo.Server', 'demo.conf', 'keep me')"
tables >"$work/tables.before"
tell "$(wc -l <"$work/tables.before") tables, and a marker row in t_config_files."

chapter "The upgrade to 3.0.18" \
    "Migrate, slave, master, node; each behind a gate: healthy, every servant answers tars_ping, and stays so. Meanwhile a" \
    "client pings the slave's registry without a pause."
start_client
in_deployment 0 upgrade --to 3.0.18 --yes
stop_client
in_deployment 0 status
tell "The version in .env was rewritten on commit: $(grep TARS_VERSION "$work/deploy/.env")"

chapter "A bad version rolls back by itself" \
    "3.0.19's tarsconfig accepts connections and never answers: an open port is not health. The slave goes first, fails its" \
    "gate, and its predecessor is back. The master was never touched."
pack 3.0.19 --from 3.0.17 --differ tarslog --fault tarsconfig=never-answer
quiet tarsup build "$work/images/framework.yaml" --version 3.0.19 --after tarsup-demo/framework:3.0.18 >/dev/null 2>&1
quiet tarsup build "$work/images/node.yaml" --version 3.0.19 --after tarsup-demo/node:3.0.18 >/dev/null 2>&1
quiet tarsup copy tarsup-demo/framework:3.0.19 docker-daemon:tarsup-demo/framework:3.0.19 >/dev/null 2>&1
quiet tarsup copy tarsup-demo/node:3.0.19 docker-daemon:tarsup-demo/node:3.0.19 >/dev/null 2>&1
sed -i.bak 's/gate_timeout: 60s/gate_timeout: 6s/' "$work/deploy/compose.yaml"
start_client
in_deployment 4 upgrade --to 3.0.19 --yes
stop_client
mv "$work/deploy/compose.yaml.bak" "$work/deploy/compose.yaml"
in_deployment 0 status

chapter "REBUILD=true is refused" \
    "With upstream's images it drops six databases at every start. Here it is refused in the file, with its line, ..."
sed -i.bak 's/REBUILD: "false"/REBUILD: "true"/' "$work/deploy/compose.yaml"
in_deployment 3 up --yes
mv "$work/deploy/compose.yaml.bak" "$work/deploy/compose.yaml"
tell "... and by the image itself, when somebody starts it by hand:"
printf 'MYSQL_HOST=172.31.77.2\nMYSQL_ROOT_PASSWORD=%s\n' "$password" >"$work/deploy/by-hand.env"
expect 77 docker run --rm --network tarsup-demo --env-file "$work/deploy/by-hand.env" -e REBUILD=true tarsup-demo/framework:3.0.18
[ "$(marker)" = 1 ] || die "the marker row is gone"
tell "tables before and after: $(wc -l <"$work/tables.before") and $(tables_of_framework); the marker row is still there."
[ "$(wc -l <"$work/tables.before")" -eq "$(tables_of_framework)" ] || die "tables are missing"

chapter "Restart, history, proof" "A rolling restart behind the same gates; what was done; and whether all of it is what was pinned."
in_deployment 0 restart --yes
in_deployment 0 lock
in_deployment 0 verify
in_deployment 0 images
in_deployment 0 history

if [ -n "$keep" ]; then
    prefix=''
    [ "$engine" = env ] || prefix="sh $root/tests/engine.sh run demo -- "
    printf '\nKept, in %s. Look around:\n' "$work"
    printf '   export TARSUP_STORE=%s TARSUP_CACHE=%s\n' "$TARSUP_STORE" "$TARSUP_CACHE"
    printf '   %s%s/bin/tarsup status -f %s/deploy/compose.yaml\n' "$prefix" "$work" "$work"
    printf '   %sdocker ps -a\n' "$prefix"
    if [ "$engine" = env ]; then
        printf 'Remove it: sh %s/tests/demo.sh --remove %s\n' "$root" "$work"
    else
        printf 'Remove it: sh %s/tests/engine.sh stop demo && rm -rf %s\n' "$root" "$work"
    fi
else
    chapter "Down" "\`down\` stops and parks; it removes no volume. The demo then removes everything that it made."
    in_deployment 0 down --yes
fi
printf '\nDone in %s, compilation and root file systems not counted.\n' "$(since "$began")"
