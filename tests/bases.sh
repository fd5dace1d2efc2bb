#!/bin/sh
# Root file systems for the images, made by mmdebstrap from the machine's own package sources. Prints where they lie.
#
#   bases.sh [framework] [database] [real] [web] [upstream]     the first two, in parallel, when none is named
#
# `real` is what TARS's own programs need beside `framework` (a node asks ps and top), `web` is that with Node.js, `upstream`
# what the starts of upstream's images call (Node.js for the web console among it), and systemd for a machine without Docker.
#
# The result is the same, byte for byte, as long as the package sources say the same. It is kept in
# ${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache}/bases: a second call costs nothing. Needs root and Debian. Elsewhere a Docker
# engine that can pull ${TARSUP_BASE_IMAGE:-debian:bookworm-slim} makes them (not byte for byte the same then); where there is
# neither it says so and exits with 3.
set -eu

cache=${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache}/bases
here=$(cd "$(dirname "$0")" && pwd)

say() { printf 'bases.sh: %s\n' "$*" >&2; }
cannot() { say "$*"; exit 3; }

[ $# -gt 0 ] || set -- framework database
# shellcheck disable=SC1091 # the system's own
suite=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}") || suite=''
if [ "$(id -u)" = 0 ] && [ -n "$suite" ] && command -v mmdebstrap >/dev/null; then
    way=mmdebstrap
elif command -v docker >/dev/null && docker version >/dev/null 2>&1; then
    way=docker image=${TARSUP_BASE_IMAGE:-debian:bookworm-slim}
    suite=$(printf %s "$image" | tr -c 'a-z0-9.\n' '-')
else
    cannot "a root file system needs root, Debian and mmdebstrap (apt-get install mmdebstrap), or else a Docker engine"
fi

# The machine's own sources and its way to them; no mirror is named here.
set_sources() {
    sources='' options=''
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        # Only files that offer this release: third parties' suites bear other names.
        if [ -f "$file" ] && grep -Eq "^[^#]*[[:space:]]$suite" "$file"; then sources="$sources $file"; fi
    done
    for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
        if [ -f "$file" ] && grep -Eqi '^[[:space:]]*Acquire::' "$file"; then options="$options --aptopt=$file"; fi
    done
    [ -n "$sources" ] || cannot "no package source in /etc/apt offers $suite"
}

packages_of() {
    case $1 in
        framework) echo libc6,libgcc-s1,libstdc++6,zlib1g ;;
        database) echo mariadb-server-core,mariadb-client-core ;;
        real) echo libc6,libgcc-s1,libstdc++6,zlib1g,procps ;;
        web) echo libc6,libgcc-s1,libstdc++6,zlib1g,procps,nodejs ;;
        upstream) echo libc6,libgcc-s1,libstdc++6,zlib1g,procps,iproute2,net-tools,psmisc,wget,curl,systemd-sysv,nodejs ;;
        *) cannot "there is no base '$1' (framework, database, real, web, upstream)" ;;
    esac
}

# Documentation, caches and everything that differs from run to run stay out.
# "$1" is the root file system's folder; `chroot /` is what the hook does inside a container.
# shellcheck disable=SC2016 # $1 is for the hook's shell
trim='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/* "$1"/var/cache/ldconfig \
    "$1"/var/log/* "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/info/* "$1"/usr/share/locale/* \
    "$1"/usr/share/mysql-test "$1"/usr/bin/aria_* "$1"/usr/bin/myisam* "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf'

# The server runs as an account that Debian makes in a package left out here.
# shellcheck disable=SC2016 # $1 is for the hook's shell
account='chroot "$1/" useradd --system --uid 999 --user-group --no-create-home --home-dir /var/lib/mysql \
    --shell /usr/sbin/nologin mysql && rm -f "$1"/etc/*- && install -d -o 999 -g 999 "$1"/var/lib/mysql "$1"/run/mysqld'

# The tool that a backup is made with lies in a package with the whole of Perl behind it: it alone is taken.
# shellcheck disable=SC2016 # $1 is for the hook's shell
dump='chroot "$1/" sh -euc "cd /tmp; apt-get -q download mariadb-client; dpkg-deb --fsys-tarfile mariadb-client_*.deb |
    tar -xC / ./usr/bin/mariadb-dump ./usr/bin/mysqldump; rm mariadb-client_*.deb"'

make() {
    name=$1 out=$2
    hook=true
    [ "$name" != database ] || hook="$account && $dump"
    "make_by_$way"
    mv "$out.part" "$out"
}

make_by_docker() {
    container=tarsup-base-$name-$$
    list=$(packages_of "$name" | tr , ' ')
    # shellcheck disable=SC2015 # whichever of the two fails
    docker run --name "$container" "$image" sh -euc "apt-get -q update
        DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $list
        set -- ''; $hook; $trim || true" >"$out.log" 2>&1 &&
        docker export -o "$out.part" "$container" 2>>"$out.log" || {
        tail -n 15 "$out.log" >&2
        docker rm -f "$container" >/dev/null 2>&1 || true
        rm -f "$out.part"
        say "the base '$name' could not be made from $image; the whole log is $out.log"
        return 1
    }
    docker rm "$container" >/dev/null
}

make_by_mmdebstrap() {
    # shellcheck disable=SC2086 # lists of words
    SOURCE_DATE_EPOCH=1700000000 DEBIAN_FRONTEND=noninteractive mmdebstrap --quiet --mode=root --variant=minbase \
        --format=tar --include="$(packages_of "$name")" $options \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='force-unsafe-io' \
        --customize-hook="$hook" --customize-hook="$trim" "$suite" "$out.part" $sources >"$out.log" 2>&1 || {
        tail -n 15 "$out.log" >&2
        rm -f "$out.part"
        say "the base '$name' could not be made; the whole log is $out.log"
        return 1
    }
}

[ "$way" != mmdebstrap ] || set_sources
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
recipe=$(sha256sum "$here/bases.sh" | cut -c1-12)
running=''
for name in "$@"; do
    out=$cache/$name-$suite-$recipe.tar
    packages_of "$name" >/dev/null
    if [ ! -s "$out" ]; then
        say "making $out by $way"
        make "$name" "$out" 9>&- &
        running="$running $!"
    fi
done
for pid in $running; do wait "$pid" || exit 1; done
for name in "$@"; do
    ln -sf "$name-$suite-$recipe.tar" "$cache/$name.tar"
    echo "$cache/$name.tar"
done
