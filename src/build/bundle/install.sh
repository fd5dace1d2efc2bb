#!/bin/sh
# A TARS node for a machine without Docker: tarsnode, with tars-init as its supervisor.
#
#   sh install.sh install [--address ADDRESS] [--registry HOST[:PORT]]...
#                               install and start it; over an older one this is the upgrade
#   sh install.sh status        how it is; ends with 0 when it is well
#   sh install.sh start | stop
#   sh install.sh remove        stop it and take it away; its data stays
#
# ADDRESS is the name by which TARS knows this machine: what an earlier installation had, else the address by which the
# registries are reached. The registries are those of the archive, unless others are named. Needs root.
#
# Written: /usr/local/app/tars/tarsnode, /usr/local/bin/tars-init, /usr/local/tars/cpp/deploy/framework, /etc/tars-node.env,
# and where systemd runs /etc/systemd/system/tars-node.service. Data and logs are in /data/tars.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
env=/etc/tars-node.env
unit=/etc/systemd/system/tars-node.service
init=/usr/local/bin/tars-init
tarsnode=/usr/local/app/tars/tarsnode
log=/data/tars/app_log/tars-init/start.log

say() { printf 'tars-node: %s\n' "$*"; }
die() { printf 'tars-node: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '4,9s/^# *//p' "$0" >&2; exit 2; }
has_systemd() { [ -d /run/systemd/system ]; }

# A value of the installed environment; nothing where there is none.
installed() { [ ! -r "$env" ] || sed -n "s/^$1=//p" "$env"; }

# A command in the environment of the node.
with_env() {
    (
        while IFS= read -r line; do export "${line?}"; done <"$env"
        "$@"
    )
}

# The processes that run a program, whoever started them.
running() {
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        case $program in "$1" | "$1 (deleted)") echo "${process#/proc/}" ;; esac
    done
}

# Ends the processes of a program: told first, and killed after so many seconds.
end() {
    pids=$(running "$1")
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086 # a list of words
    kill -TERM $pids 2>/dev/null || true
    waited=0
    while [ -n "$(running "$1")" ]; do
        if [ "$waited" -ge $(($2 * 5)) ]; then
            # shellcheck disable=SC2046 # a list of words
            kill -KILL $(running "$1") 2>/dev/null || true
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
}

start() {
    [ -r "$env" ] || die "it is not installed: sh install.sh install"
    if has_systemd; then
        say "starting tars-node.service"
        systemctl start tars-node.service
    elif [ -n "$(running "$init")" ]; then
        say "it runs"
    else
        say "no systemd here: starting $init by itself; nothing starts it after a reboot"
        mkdir -p "$(dirname "$log")"
        with_env setsid "$init" node </dev/null >"$log" 2>&1 &
    fi
}

stop() {
    if has_systemd && [ -e "$unit" ]; then
        say "stopping tars-node.service"
        systemctl stop tars-node.service
    fi
    # It stops everything that it has started.
    [ -z "$(running "$init")" ] || say "stopping tars-init and what it runs"
    end "$init" 20
}

status() {
    [ -r "$env" ] || die "it is not installed"
    with_env "$init" status
}

# Upstream's own installation starts tarsnode every minute by cron; two would be in each other's way.
leave_upstream() {
    if command -v crontab >/dev/null && crontab -l 2>/dev/null | grep -q 'tarsnode/util/\(monitor\|check\)\.sh'; then
        say "taking upstream's line for tarsnode out of root's crontab"
        crontab -l | grep -v 'tarsnode/util/\(monitor\|check\)\.sh' | crontab -
    fi
    [ -z "$(running "$tarsnode/bin/tarsnode")" ] || say "stopping the tarsnode that runs"
    end "$tarsnode/bin/tarsnode" 10
}

own_address() {
    first=${registries#tcp -h }
    first=${first%% *}
    address=$(ip -4 route get "$first" 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1) || address=''
    if [ -z "$address" ]; then
        # Without iproute2, or where the registry is named: the first address of this machine.
        address=$(hostname -I 2>/dev/null | cut -d' ' -f1) || address=''
    fi
    [ -n "$address" ] || die "the address of this machine is not known: name it with --address"
}

install() {
    address='' registries=''
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || usage
        case $1 in
            --address) address=$2 ;;
            --registry)
                host=${2%%:*} port=${2#*:}
                [ "$port" != "$2" ] || port=17890
                registries="${registries:+$registries:}tcp -h $host -p $port"
                ;;
            *) usage ;;
        esac
        shift 2
    done
    [ -n "$registries" ] || registries=$(sed -n 's/^TARS_REGISTRY_ADDRESS=//p' "$here/tars-node.env")
    [ -n "$registries" ] || die "the archive names no registry: name one with --registry"
    [ -n "$address" ] || address=$(installed DOMAIN)
    [ -n "$address" ] || own_address
    version=$(sed -n 's/^TARSUP_VERSION=//p' "$here/tars-node.env")
    before=$(installed TARSUP_VERSION)
    say "TARS $version as $address${before:+ (before: $before)}, registries $registries"

    stop
    leave_upstream
    say "copying its files below /usr/local"
    # Each file beside its place, then into it: a program that is cut off would not start.
    (cd "$here/root" && find . -type d) | while IFS= read -r folder; do mkdir -p "/$folder"; done
    (cd "$here/root" && find . -type f -o -type l) | while IFS= read -r file; do
        cp -pP "$here/root/$file" "/$file.tars-node"
        mv -f "/$file.tars-node" "/$file"
    done
    # What an earlier version noted of its own programs.
    rm -f /usr/local/app/tars/.tars-init-*
    say "writing $env"
    umask 027
    {
        printf 'TARSUP_VERSION=%s\n' "$version"
        printf 'TARS_REGISTRY_ADDRESS=%s\n' "$registries"
        printf 'DOMAIN=%s\n' "$address"
        # What somebody added by hand stays.
        if [ -r "$env" ]; then grep -v '^\(TARSUP_VERSION\|TARS_REGISTRY_ADDRESS\|DOMAIN\)=' "$env" || true; fi
    } >"$env.new"
    mv -f "$env.new" "$env"
    umask 022
    if has_systemd; then
        say "writing $unit"
        cp "$here/tars-node.service" "$unit"
        systemctl daemon-reload
        systemctl enable --quiet tars-node.service
    fi
    start
    say "waiting for it to answer"
    waited=0
    until with_env "$init" health >/dev/null 2>&1; do
        if [ "$waited" -ge 300 ]; then
            if has_systemd; then journalctl -n 20 -u tars-node.service >&2; else tail -n 20 "$log" >&2; fi
            die "it does not answer after a minute; above is what it said. It goes on trying: sh install.sh status"
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
    say "it is well"
}

remove() {
    stop
    leave_upstream
    if [ -e "$unit" ]; then
        say "removing tars-node.service"
        systemctl disable --quiet tars-node.service || true
        rm -f "$unit"
        systemctl daemon-reload || true
    fi
    say "removing $tarsnode, $init and $env"
    (cd "$here/root" && find . -type f -o -type l) | while IFS= read -r file; do rm -f "/$file"; done
    rm -rf "$tarsnode" "$env" /usr/local/app/tars/.tars-init-* /run/tars-init
    say "its data stays: /data/tars"
}

[ $# -ge 1 ] || usage
[ "$(id -u)" = 0 ] || die "this needs root"
command=$1
shift
case $command in
    install) install "$@" ;;
    start | stop | status | remove)
        [ $# = 0 ] || usage
        "$command"
        ;;
    *) usage ;;
esac
