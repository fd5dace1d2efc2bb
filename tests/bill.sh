#!/bin/sh
# The bill of materials of an image of the real framework and its console, held against CycloneDX's own schema (tests/schemas.sh).
# What tests/long.sh has made is there: the program, tars-init, and TARSUP_TEST_BASES.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"

real=$(cd "${TARSUP_SHARED:-$root/../shared}/tars/real" && pwd) || die "the real packages are not there"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages"
cp "$real"/v3.0.17/*.tgz "$work/packages"
tar -xzf "$work/packages/deploy.tgz" -C "$work"
rm "$work/packages/deploy.tgz"
cat >"$work/image.yaml" <<END
name: tars/framework
version: 3.0.17
role: framework
base: rootfs:$TARSUP_TEST_BASES/web.tar
packages: [packages/*.tgz]
deploy: deploy/framework
web: $real/web.tgz
init: $TARSUP_TEST_INIT
waive: ['*:RUNPATH']
END
export TARSUP_STORE="$work/store" TARSUP_CACHE="$work/cache"
"$target/debug/tarsup" build "$work/image.yaml" >"$work/said" 2>&1 || { cat "$work/said" >&2; die "the image was not built"; }
"$target/debug/tarsup" inspect tars/framework:3.0.17 --sbom "$work/bill.json" >"$work/said"
sh tests/schemas.sh "$work/bill.json"
