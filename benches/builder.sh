#!/bin/sh
# Measures the builder side by side with what one would run instead, in one go, and prints the rows of docs/performance.md.
#
#   builder.sh [--runs N] [--engines LIST] [--rows LIST] [--write]
#             N runs of each (default 5); of the engines `20 26 c26`, and of the rows `layouts runner engines` (default: all); --write puts
#             them into benches/builder.md
#
# Each row is two commands in turn, A B A B ...; the ratio is the median of the pairs' ratios. The packages are the real
# framework's, and its web console: they lie beside the project (TARSUP_SHARED names another place than ../shared).
#   umoci      unpacks each package, tars it and adds it to a layout as a layer; `ready`: the tars are there already
#   pigz       compresses the same tars, and does nothing else
#   BuildKit   the same packages, unpacked, by a Dockerfile with one COPY a service (DOCKER_BUILDKIT=1)
#   floor      `docker load` of an archive with the changed layers alone, made before
#   least      what a cold runner cannot do without: sha256sum of the packages, and pigz of the one service that changed
# Root on Debian, as tests/all.sh.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
help=2,6p choices='engines rows' engines='20 26 c26' rows='layouts runner engines'
# shellcheck source=benches/lib.sh
. "$root/benches/lib.sh"
options "$@"
real=$(cd "${TARSUP_SHARED:-$root/../shared}/tars/real" && pwd) || die "the real packages are not there"
install_packages docker.io iptables iproute2 mmdebstrap jq ca-certificates umoci pigz time curl docker-registry >&2
begin bench
mkdir -p "$work/base"
cp "$programs/tarsup" "$work/bin/"
cp "${init_program:-$programs/tars-init}" "$work/bin/"
cp -R "$root/images" "$work/"
PATH=$work/bin:$PATH
export TARSUP_STORE="$work/store" TARSUP_CACHE="$work/cache"
# BuildKit is a part of Debian's client; newer clients have it in a plugin.
docker=/usr/bin/docker

row() { printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$@"; }
# The goal, and whether it is met by the clock: of the ratio, or of milliseconds where it is one of these.
judged() { # GOAL MILLISECONDS RATIO
    [ -z "$1" ] || awk -v goal="$1" -v ms="$2" -v ratio="$3" 'BEGIN {
        split(goal, words, /[ ,]+/)
        print goal ((words[3] == "ms" ? ms : ratio) <= words[2] + 0 ? ": met" : ": **missed**") }'
}
column() { cut -d' ' -f"$1" "$work/pairs" | median; }
# pair WHAT PEER GOAL A B [engine]: `A` and `B` are functions; `before_A` and `before_B` set the scene, and are not counted. What an
# engine does is in no process of ours: with one, the clock alone is told.
pair() {
    note "$1, against $2"
    : >"$work/pairs"
    for run in $(seq 0 "$runs"); do
        "before_$4"
        a=$(took "$4") || exit 1
        "before_$5"
        b=$(took "$5") || exit 1
        # The first pair warms up.
        [ "$run" -eq 0 ] || echo "$a $b" | awk '{ print $1, $2, $3, $4, $1 / $3, $2 / ($4 > 0 ? $4 : 1) }' >>"$work/pairs"
    done
    processor=$(column 6 | awk '{ printf "%.2f", $1 }')
    [ -z "${6:-}" ] || processor=''
    ratio=$(column 5 | awk '{ printf "%.2f", $1 }')
    row "$1" "$(column 1)" "$2" "$(column 3)" "$ratio" "$processor" "$(judged "$3" "$(column 1)" "$ratio")" | tee -a "$work/rows"
}

# ---- the packages

sh "$root/tests/bases.sh" real web >/dev/null
bases=${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache}/bases
for base in real web; do ln -sf "$bases/$base.tar" "$work/base/$base.tar"; done
mkdir -p "$work/build/deploy" "$work/tars" "$work/parts"
ln -s ../base "$work/build/base"
tar -xzf "$real/v3.0.17/deploy.tgz" -C "$work/build/deploy" --strip-components=1
for name in packages stat notify both; do
    mkdir "$work/build/$name"
    cp "$real"/v3.0.17/*.tgz "$work/build/$name/"
    rm "$work/build/$name/deploy.tgz"
done
# replace SERVICE FOLDER RELEASE: a package made anew, as `make` leaves it between the others.
replace() {
    cp "$real/$3/tars$1.tgz" "$work/build/$2/new"
    mv "$work/build/$2/new" "$work/build/$2/tars$1.tgz"
}
change() {
    for service in stat notify; do
        replace "$service" "$service" "$1"
        replace "$service" both "$1"
    done
}
change v3.0.17-patched
sed 's#base/framework.tar#base/real.tar#' "$root/images/framework.yaml" >"$work/images/framework.yaml"
sed 's#base/framework.tar#base/web.tar#' "$root/images/framework.yaml" >"$work/images/web.yaml"
echo "web: $real/web.tgz" >>"$work/images/web.yaml"
printf 'name: bench/base\nversion: 1\nrole: plain\nbase: rootfs:../base/real.tar\n' >"$work/images/base.yaml"

# A folder a service, as an image has it, and what else is in the image.
unpack() { # PACKAGES TO
    rm -rf "$2"
    mkdir -p "$2"
    for package in "$1"/*.tgz; do tar -xzf "$package" -C "$2"; done
    for service in "$2"/tars*; do
        name=$(basename "$service")
        if [ ! -d "$service/bin" ]; then
            mkdir "$service/bin"
            mv "$service/$name" "$service/bin/"
        fi
    done
    cp -R "$work/build/deploy/framework" "$2/deploy"
    cp "$work/bin/tars-init" "$2/"
}
# In the order in which an image has them.
parts='tarsAdminRegistry tarsregistry tarsconfig tarsnode tarsnotify tarsproperty tarsqueryproperty tarsquerystat tarsstat tarslog tarspatch deploy tars-init'
tar_up() { # FOLDER TO
    for part in $parts; do tar -cf "$2/$part.tar" -C "$1" "$part"; done
}
unpack "$work/build/packages" "$work/parts"
tar_up "$work/parts" "$work/tars"

keep_only() { # FOLDER LIST
    (cd "$1" && find . -type f | sort | comm -23 - "$2" | xargs -r rm -f)
}
size_of() { find "$1/blobs" -type f -printf '%s\n' | awk '{ all += $1 } END { print all }'; }
peak() { /usr/bin/time -f %M -o "$work/peak" "$@" >>"$work/log" 2>&1 && awk '{ printf "%.0f MiB", $1 / 1024 }' "$work/peak"; }
bytes_tarsup=- bytes_umoci=- peak_plain=- peak_web=-

# ---- into a layout

forget_all() { rm -rf "$TARSUP_STORE" "$TARSUP_CACHE" "$work/out" "$work/umoci"; sync; }
by_tarsup() { tarsup build "$work/images/framework.yaml" -o "oci:$work/out:3.0.17"; }
add_layers() { for part in $parts; do umoci raw add-layer --image "$work/umoci:x" "$work/from/$part.tar"; done; }

cold_tarsup() { by_tarsup; }
before_cold_tarsup() { forget_all; }
cold_umoci() {
    umoci init --layout "$work/umoci"
    umoci new --image "$work/umoci:x"
    umoci raw add-layer --image "$work/umoci:x" "$work/base/real.tar"
    from_packages
}
before_cold_umoci() { forget_all; }
from_packages() {
    unpack "$work/build/packages" "$work/unpacked"
    mkdir -p "$work/from"
    tar_up "$work/unpacked" "$work/from"
    add_layers
}
pigz_all() { cat "$work/base/real.tar" "$work/tars"/*.tar | pigz -n -p "$(nproc)" >"$work/pigz.gz"; }
before_pigz_all() { sync; }
layouts() {
    pair "fully cold, base included → layout" "umoci from the .tgz" "≤ 0.75, at no more bytes" cold_tarsup cold_umoci
    before_cold_tarsup
    cold_tarsup >>"$work/log" 2>&1
    bytes_tarsup=$(size_of "$work/out")
    rm -rf "$work/umoci"
    cold_umoci >>"$work/log" 2>&1
    bytes_umoci=$(size_of "$work/umoci")
    pair "fully cold, base included → layout" "pigz, the same tars" "" cold_tarsup pigz_all

    # The base known: what the cache and umoci's layout have when there is nothing but the base.
    forget_all
    tarsup build "$work/images/base.yaml" -o "oci:$work/known:1" >>"$work/log" 2>&1
    rm -rf "$work/known"
    (cd "$TARSUP_CACHE" && find . -type f | sort) >"$work/cache.list"
    umoci init --layout "$work/umoci" && umoci new --image "$work/umoci:x"
    umoci raw add-layer --image "$work/umoci:x" "$work/base/real.tar"
    cp "$work/umoci/index.json" "$work/umoci.index"
    (cd "$work/umoci" && find . -type f | sort) >"$work/umoci.list"
    known_tarsup() { by_tarsup; }
    before_known_tarsup() { rm -rf "$work/out"; keep_only "$TARSUP_CACHE" "$work/cache.list"; sync; }
    known_umoci() { from_packages; }
    before_known_umoci() {
        cp "$work/umoci.index" "$work/umoci/index.json"
        keep_only "$work/umoci" "$work/umoci.list"
        rm -rf "$work/from"
        sync
    }
    ready_umoci() { add_layers; }
    before_ready_umoci() { before_known_umoci; ln -s "$work/tars" "$work/from"; }
    pair "cold → layout, base known" "umoci from the .tgz" "≤ 0.45" known_tarsup known_umoci
    pair "cold → layout, base known" "umoci from ready tars" "" known_tarsup ready_umoci
    rm -rf "$work/from"

    nothing_tarsup() { by_tarsup; }
    before_nothing_tarsup() { :; }
    nothing_web() { tarsup build "$work/images/web.yaml" -o "oci:$work/out-web:3.0.17"; }
    before_nothing_web() { :; }
    idle() { tarsup --version; }
    before_idle() { :; }
    # Files that changed a moment ago are read again.
    nothing_tarsup >>"$work/log" 2>&1
    nothing_web >>"$work/log" 2>&1
    pair "nothing changed" "a start of the program" "≤ 20 ms" nothing_tarsup idle
    pair "nothing changed, with the web" "a start of the program" "≤ 20 ms" nothing_web idle

    forget_all
    peak_plain=$(peak tarsup build "$work/images/framework.yaml" -o "oci:$work/out:1")
    rm -rf "$TARSUP_CACHE" "$work/out"
    peak_web=$(peak tarsup build "$work/images/web.yaml" -o "oci:$work/out:1")
}
case " $rows " in *" layouts "*) layouts ;; esac

# ---- a cold runner: no cache, no store, one registry that has the predecessor

runner() {
    registry=127.0.0.1:$((20000 + $$ % 20000))
    mkdir -p "$work/registry"
    printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n' "$work/registry" "$registry" \
        >"$work/registry.yml"
    docker-registry serve "$work/registry.yml" >>"$work/log" 2>&1 &
    registry_pid=$!
    of="docker://$registry/tars/framework"
    until curl -fs "http://$registry/v2/" >/dev/null; do kill -0 "$registry_pid" || die "no registry"; sleep 0.1; done
    forget_all
    tarsup build "$work/images/base.yaml" -o "docker://$registry/bench/base:1" >>"$work/log" 2>&1
    sed "s#rootfs:.*#docker://$registry/bench/base:1#" "$work/images/framework.yaml" >"$work/images/above.yaml"
    for recipe in framework above; do
        (cd "$work" && tarsup build "images/$recipe.yaml" --version 3.0.17 -o "$of-$recipe:3.0.17") >>"$work/log" 2>&1
    done
    runs_cold() { (cd "$work" && tarsup build "images/$1.yaml" --packages "$work/build/stat" --version 3.0.17-1 --after "$of-$1:3.0.17" -o "$of-$1:$next"); }
    before_runs_cold() { forget_all; next=3.0.17-$(date +%N); }
    above() { runs_cold above; }
    before_above() { before_runs_cold; }
    rootfs() { runs_cold framework; }
    before_rootfs() { before_runs_cold; }
    least() { sha256sum "$work/build/stat"/*.tgz && pigz -n -c "$work/tars/tarsstat.tar" >"$work/pigz.gz"; }
    before_least() { :; }
    least_with_base() { least && sha256sum "$work/base/real.tar"; }
    before_least_with_base() { :; }
    pair "a cold runner, one service changed → registry; the base in the registry" least "≤ 1.5" above least
    pair "the same; the base a root file system" "least, and the base's sha256sum" "≤ 1.5" rootfs least_with_base
    kill "$registry_pid"
    wait "$registry_pid" || :
}
case " $rows " in *" runner "*) runner ;; esac

# ---- into engines

in_engine() { sh "$root/tests/engine.sh" run "$engine" -- "$@" </dev/null; }
docker() { in_engine "$docker" "$@"; }
context() { unpack "$1" "$work/context"; {
    echo 'FROM bench/base:1'
    for part in $parts; do
        case $part in
            deploy) echo 'COPY deploy /usr/local/tars/cpp/deploy/framework' ;;
            tars-init) echo 'COPY tars-init /usr/local/bin/tars-init' ;;
            *) echo "COPY $part /usr/local/app/tars/$part" ;;
        esac
    done
} >"$work/context/Dockerfile"; }
by_buildkit() { # PACKAGES VERSION
    context "$work/build/$1"
    in_engine env DOCKER_BUILDKIT=1 "$docker" build -q -t "bench/framework:$2" "$work/context"
}
into_engine() { # PACKAGES VERSION [OPTION...]
    packages=$1 version=$2
    shift 2
    in_engine tarsup build "$work/images/framework.yaml" --packages "$work/build/$packages" --version "$version" \
        -o "tars/framework:$version" -o "docker-daemon:tars/framework:$version" "$@"
}
remove_ours() {
    for image in $(docker images -q --no-trunc --filter reference='tars/*' --filter reference='bench/framework' | sort -u); do
        docker rmi -f "$image" >>"$work/log" 2>&1 || true
    done
    docker builder prune -af >>"$work/log" 2>&1 || true
}

engine_tarsup() { into_engine packages 3.0.17; }
before_engine_tarsup() { remove_ours; keep_only "$TARSUP_CACHE" "$work/cache.list"; rm -rf "$TARSUP_STORE"; sync; }
engine_buildkit() { by_buildkit packages 3.0.17; }
before_engine_buildkit() { remove_ours; sync; }

# One service changed, an engine that has the predecessor.
changed_tarsup() { into_engine "$changed" "1-$changed" --after tars/framework:3.0.17 "$@"; }
before_changed_tarsup() {
    docker rmi -f "tars/framework:1-$changed" >>"$work/log" 2>&1 || true
    keep_only "$TARSUP_CACHE" "$work/cache.17"
    sync
}
changed_buildkit() { by_buildkit "$changed" "1-$changed"; }
before_changed_buildkit() {
    docker rmi -f "bench/framework:1-$changed" >>"$work/log" 2>&1 || true
    docker builder prune -af >>"$work/log" 2>&1 || true
    by_buildkit packages 3.0.17 >>"$work/log" 2>&1
    sync
}
floor() { in_engine "$docker" load -i "$work/floor.tar"; }
before_floor() { docker rmi -f "tars/framework:1-$changed" >>"$work/log" 2>&1 || true; sync; }
# An archive with the changed layers alone.
make_floor() {
    rm -rf "$work/whole" "$work/whole.tar"
    in_engine tarsup copy "tars/framework:1-$changed" "docker-archive:$work/whole.tar" >>"$work/log" 2>&1
    mkdir "$work/whole"
    tar -xf "$work/whole.tar" -C "$work/whole"
    in_engine tarsup inspect tars/framework:3.0.17 --json | jq -r '.layers[].digest' | cut -d: -f2 |
        while read -r digest; do rm -f "$work/whole/blobs/sha256/$digest"; done
    tar -cf "$work/floor.tar" -C "$work/whole" .
    # As tars, which a near engine with a classic store is sent.
    floor_tars=$(find "$work/whole" -type f | while read -r blob; do gzip -dcf "$blob" | wc -c; done | awk '{ all += $1 } END { print all }')
}
inspect_tarsup() { in_engine tarsup inspect docker-daemon:tars/framework:3.0.17; }
before_inspect_tarsup() { :; }
inspect_docker() { in_engine "$docker" image inspect tars/framework:3.0.17; }
before_inspect_docker() { :; }
# As a machine sees it that has never had the image.
inspect_first() { in_engine env TARSUP_STORE="$work/none" TARSUP_CACHE="$work/none" tarsup inspect docker-daemon:tars/framework:3.0.17; }
before_inspect_first() { rm -rf "$work/none"; }

case " $rows " in *" engines "*) ;; *) engines='' ;; esac
for kind in $engines; do
    engine=bench$kind
    case $kind in 26) option=--new ;; c26) option=--containerd ;; *) option= ;; esac
    # shellcheck disable=SC2086 # none, or one word
    start_engine "$engine" $option
    of="$(docker version --format '{{.Server.Version}}') $([ "$kind" = c26 ] && echo containerd || echo classic)"
    docker import "$(readlink -f "$work/base/real.tar")" bench/base:1 >>"$work/log"
    rm -rf "$TARSUP_CACHE" "$TARSUP_STORE"
    in_engine tarsup build "$work/images/base.yaml" -o docker-daemon:bench/kept:1 >>"$work/log" 2>&1
    (cd "$TARSUP_CACHE" && find . -type f | sort) >"$work/cache.list"
    pair "cold → runnable, base in the engine ($of)" BuildKit "≤ 0.8" engine_tarsup engine_buildkit engine
    remove_ours
    # Each folder as it was when the predecessor was built: what is older than some seconds is known by its times from then on.
    change v3.0.17
    sleep 4
    for name in packages stat notify both; do into_engine "$name" 3.0.17 >>"$work/log" 2>&1; done
    (cd "$TARSUP_CACHE" && find . -type f | sort) >"$work/cache.17"
    change v3.0.17-patched
    for changed in stat notify both; do
        what=tars$changed
        [ "$changed" != both ] || what='tarsstat and tarsnotify'
        pair "$what changed → engine ($of)" BuildKit "" changed_tarsup changed_buildkit engine
        before_changed_tarsup
        changed_tarsup --json >"$work/sent.json" 2>>"$work/log"
        make_floor
        sent=$(jq '.outputs[1].bytes_sent' "$work/sent.json")
        pair "$what changed → engine ($of), $sent bytes sent" "floor, $(du -b "$work/floor.tar" | cut -f1) bytes, $floor_tars as tars" \
            "≤ 1.3" changed_tarsup floor engine
    done
    pair "inspect docker-daemon: ($of)" "docker image inspect" "≤ 2" inspect_tarsup inspect_docker engine
    pair "inspect docker-daemon: of an image from elsewhere, the first time ($of)" "docker image inspect" "≤ 2" inspect_first inspect_docker engine
    # Three hundred images more: of another repository, on the same base.
    # In one process of the engine's network: each would begin with a shell of its own.
    # shellcheck disable=SC2016 # expanded by the inner shell
    in_engine sh -ec 'for n in $(seq 300); do
        printf "FROM bench/base:1\nLABEL n=%s\n" "$n" | "$0" build -q -t "other/image:$n" -
    done' "$docker" >>"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; die "the other images could not be made"; }
    changed=stat
    changed_tarsup >>"$work/log" 2>&1
    make_floor
    pair "tarsstat changed → engine with 300 images more ($of)" floor "≤ 1.3" changed_tarsup floor engine
    sh "$root/tests/engine.sh" stop "$engine"
done

report() {
    echo "Medians of $runs pairs, $(date -u +%Y-%m-%d), $(nproc) cores, $(uname -sm), $(tarsup --version). Processor time is user and system of the whole"
    echo "process; what an engine does is in no process of ours, so that there the clock alone is told."
    echo
    echo "| work | tarsup, ms | against | ms | ratio by the clock | of processor time | goal |"
    echo "|---|---|---|---|---|---|---|"
    cat "$work/rows"
    echo
    echo "Bytes of the layout: tarsup $bytes_tarsup, umoci $bytes_umoci. Peak memory of a cold build: $peak_plain, with the web $peak_web."
}
if [ -n "$write" ]; then report >"$root/benches/builder.md"; else report; fi
