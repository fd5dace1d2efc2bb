#!/bin/sh
# A private Docker engine for tests and the demo: a network, processes, mounts and data of its own.
#
#   engine.sh start NAME [--new] [--containerd]
#                                     start it (installs Debian's docker.io where dockerd is missing); again: no change.
#                                     --new: Docker 26.1 of Debian 13, in a root file system made once by mmdebstrap;
#                                     --containerd: that one, with its images in containerd's store
#   engine.sh run NAME -- COMMAND...  run COMMAND in the engine's network, with DOCKER_HOST set
#   engine.sh kill NAME               kill engine and containers at once, as a power cut would; `start` brings it back
#   engine.sh stop NAME               stop it and remove everything that it made
#   engine.sh log NAME                print the engine's log
#
# State lies in ${TARSUP_TEST_DIR:-/var/tmp/tarsup-test}/NAME. Engines of different names do not see each other, nor
# does an engine of the host see any of them: a second dockerd in the host's network would take docker0 from the first.
# There is no way from the engine's network to the outside, and none is needed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
base=${TARSUP_TEST_DIR:-/var/tmp/tarsup-test}
cache=${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache} # what is made once: kept by `stop`
patience=${TARSUP_ENGINE_PATIENCE:-90} # seconds until a start counts as failed

say() { printf 'engine.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '4,11s/^# *//p' "$here/engine.sh" >&2; exit 2; }

[ $# -ge 2 ] || usage
command=$1 name=$2
shift 2
case $name in
    '' | -* | *[!a-z0-9-]*) die "a name is lower-case letters, digits and '-', not '$name'" ;;
esac
dir=$base/$name
# A socket's path has at most 107 bytes, and containerd adds 40 to the directory.
[ ${#dir} -le 64 ] || die "the path $dir is too long for sockets below it: set TARSUP_TEST_DIR to a shorter one"
new='' features=''
if [ "$command" = start ]; then
    for option; do
        case $option in
            --new) new=1 ;;
            --containerd) new=1 features='"features": {"containerd-snapshotter": true}' ;;
            *) usage ;;
        esac
    done
fi
[ "$(id -u)" = 0 ] || die "an engine in a network of its own needs root: run this as root (sudo sh $0 ...)"

# The pid of the engine's supervisor, where it is alive. A pid in a file may be somebody else's by now: ask its command line.
alive() {
    [ -s "$dir/pid" ] || return 1
    pid=$(cat "$dir/pid")
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$dir/data"
}

has_network() { [ "$(stat -f -c %T "$dir/net" 2>/dev/null)" = nsfs ]; }

dockerd_path() {
    for candidate in /usr/sbin/dockerd /usr/bin/dockerd "$(command -v dockerd || true)"; do
        [ ! -x "$candidate" ] || { echo "$candidate"; return; }
    done
    return 1
}

# Debian starts a service when it is installed. The host did not ask for one, so a policy forbids it meanwhile.
install_dockerd() {
    command -v apt-get >/dev/null || die "there is no dockerd and no apt-get: install Docker by hand, then run this again"
    say "no dockerd here: installing Debian's docker.io"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        installed_policy=1
    fi
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends docker.io iptables iproute2; } >"$base/$name.install.log" 2>&1 ||
        { tail -n 20 "$base/$name.install.log" >&2; die "docker.io could not be installed: see $base/$name.install.log"; }
    rm -f "$base/$name.install.log"
    [ -z "${installed_policy:-}" ] || { rm -f "$policy"; trap - EXIT; }
    hash -r
}

# A root file system with a newer engine: made once, and kept.
make_root() {
    [ ! -x "$cache/debian-13/usr/sbin/dockerd" ] || return 0
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt-get install mmdebstrap"
    say "making a Debian 13 with Docker 26.1 in $cache: once, about a minute"
    rm -rf --one-file-system "$cache/debian-13.part"
    mmdebstrap --quiet --variant=minbase --include=docker.io,iptables,iproute2,mount trixie "$cache/debian-13.part" ||
        die "it could not be made: see above"
    mv "$cache/debian-13.part" "$cache/debian-13"
}

# PID 1 of the engine: passes SIGTERM on to dockerd and reaps what the engine leaves behind. With it dies everything.
# shellcheck disable=SC2016 # expanded by the inner shell
supervisor='
    dir=$1 dockerd=$2 root=$3
    shift 3
    # Without cgroups (a bare machine without systemd) no container starts: the unified hierarchy is enough.
    [ -n "$(ls /sys/fs/cgroup 2>/dev/null)" ] || mount -t cgroup2 none /sys/fs/cgroup || true
    if [ -n "$root" ]; then
        # A root of its own: in a mere chroot no container can make its mounts private.
        mount --bind "$root" "$root"
        for folder in dev sys; do mount --rbind "/$folder" "$root/$folder"; done
        mount -t proc proc "$root/proc"
        for folder in run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
        mkdir -p "$root$dir"
        mount --bind "$dir" "$root$dir"
        cd "$root"
        mkdir -p .host
        pivot_root . .host
        umount -l .host
        cd /
    fi
    # Debian writes rules through nftables; a kernel without it may still have the older tables, or none.
    if ! iptables -t nat -nL >/dev/null 2>&1; then
        if iptables-legacy -t nat -nL >/dev/null 2>&1; then
            mkdir -p "$dir/bin"
            ln -sf "$(command -v iptables-legacy)" "$dir/bin/iptables"
            ln -sf "$(command -v ip6tables-legacy)" "$dir/bin/ip6tables"
            PATH=$dir/bin:$PATH
        else
            echo "no usable iptables: published ports go through the userland proxy alone" >&2
            set -- "$@" --iptables=false
        fi
    fi
    "$dockerd" "$@" &
    engine=$!
    trap "kill -TERM $engine 2>/dev/null" TERM
    while kill -0 "$engine" 2>/dev/null; do wait "$engine" || true; done
'

# The kernel takes the engine's mounts down a moment after its last process.
remove() {
    tries=0
    until rm -rf --one-file-system "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || die "$1 could not be removed: $(rm -rf --one-file-system "$1" 2>&1 | head -n 1)"
        sleep 0.1
    done
}

launch() {
    if [ -n "$new" ]; then dockerd=/usr/sbin/dockerd root=$cache/debian-13; else dockerd=$(dockerd_path) root=; fi
    # A file left from before a reboot is no namespace any more.
    if ! has_network; then
        : >"$dir/net"
        unshare --net="$dir/net" ip link set lo up || die "no network namespace could be made: is this a container without privileges?"
    fi
    [ ! -e "$dir/log" ] || mv "$dir/log" "$dir/log.1"
    rm -f "$dir/docker.sock" "$dir/dockerd.pid"
    # What a host has in /run goes with its power. A pid file that stays would name another process in the new namespace,
    # and dockerd would wait in vain for a containerd that it believes to run.
    remove "$dir/exec"
    : >"$dir/log"
    # systemd's cgroup driver would hand pids of this namespace to the host's systemd: hence cgroupfs.
    # An empty configuration file, because the host's own is not meant for this engine.
    echo "{$features}" >"$dir/daemon.json"
    env -u DOCKER_HOST -u DOCKER_CONTEXT -u NOTIFY_SOCKET -u LISTEN_FDS \
        setsid nsenter --net="$dir/net" unshare --mount-proc --pid --fork --kill-child \
        sh -c "$supervisor" supervisor "$dir" "$dockerd" "$root" \
        --config-file "$dir/daemon.json" --host "unix://$dir/docker.sock" --pidfile "$dir/dockerd.pid" \
        --data-root "$dir/data" --exec-root "$dir/exec" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/tarsup-$name" \
        </dev/null >"$dir/log" 2>&1 9>&- &
    echo $! >"$dir/pid"
    waited=0
    until grep -q 'API listen on' "$dir/log"; do
        if [ "$waited" -ge $((patience * 10)) ] || { [ "$waited" -ge 5 ] && ! alive; }; then
            tail -n 25 "$dir/log" >&2
            end
            die "dockerd did not come up within $patience s; above is the end of $dir/log. Then: sh $0 stop $name"
        fi
        sleep 0.1
        waited=$((waited + 1))
    done
}

# Kills the supervisor and with it every process of the engine; its mounts go with the last of them.
end() {
    ! alive || {
        init=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
        # shellcheck disable=SC2086 # at most one child, and none is an empty word
        kill -KILL $pid $init 2>/dev/null || true
        while alive; do sleep 0.05; done
    }
    rm -f "$dir/pid"
}

start() {
    mkdir -p "$base"
    for tool in unshare nsenter setsid flock; do
        command -v "$tool" >/dev/null || die "$tool is missing: apt-get install util-linux"
    done
    exec 9>"$base/$name.lock"
    flock 9
    if ! alive; then
        { dockerd_path && command -v ip && command -v iptables; } >/dev/null || install_dockerd
        [ -z "$new" ] || (
            mkdir -p "$cache"
            exec 8>"$cache/lock"
            flock 8
            make_root
        )
        mkdir -p "$dir"
        chmod 700 "$dir"
        launch
    fi
    if grep -q 'msg="Docker daemon".*=vfs ' "$dir/log"; then
        say "$dir is on a file system that overlayfs cannot use: every layer is copied. Set TARSUP_TEST_DIR to a better one"
    fi
    say "engine $name: DOCKER_HOST=unix://$dir/docker.sock, $(sed -n 's/.*msg="Docker daemon".* \(graphdriver[^ ]*\|storage-driver\)=\([a-z0-9]*\) \(version=[^ ]*\).*/\2, \3/p' "$dir/log")"
}

stop() {
    [ -d "$dir" ] || [ -e "$base/$name.lock" ] || return 0
    exec 9>"$base/$name.lock"
    flock 9
    end
    ! has_network || umount -l "$dir/net"
    # Containers' groups outlive what ran in them.
    find /sys/fs/cgroup -depth -type d \( -path "*/tarsup-$name" -o -path "*/tarsup-$name/*" \) -exec rmdir {} + 2>/dev/null || true
    remove "$dir"
    rm -f "$base/$name.lock"
    rmdir "$base" 2>/dev/null || true
}

case $command in
    start) start ;;
    kill) end ;;
    stop) stop ;;
    log) cat "$dir/log" ;;
    run)
        { [ "${1:-}" = -- ] && [ $# -ge 2 ]; } || usage
        shift
        alive || die "engine $name does not run: sh $0 start $name"
        exec nsenter --net="$dir/net" env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH \
            DOCKER_HOST="unix://$dir/docker.sock" "$@"
        ;;
    *) usage ;;
esac
