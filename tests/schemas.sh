#!/bin/sh
# Holds bills of materials against CycloneDX's own schema of version 1.5, out of the package of its Python library.
#
#   schemas.sh FILE...
#
# Root on Debian: what is missing is installed, and the schema is fetched once (into TARSUP_TEST_CACHE, as the root file systems).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"

[ $# -gt 0 ] || { sed -n '2,6s/^# *//p' "$0" >&2; exit 2; }
library=11.12.0
folder=${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache}/cyclonedx-$library
if [ ! -d "$folder" ]; then
    install_packages python3-pip python3-jsonschema >&2
    part=$(mktemp -d)
    trap 'rm -rf "$part"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$part" "cyclonedx-python-lib==$library" >&2
    python3 -m zipfile -e "$part"/*.whl "$part/unpacked"
    mkdir -p "$(dirname "$folder")" "$part/schemas"
    for name in bom-1.5 spdx jsf-0.82; do
        cp "$part/unpacked/cyclonedx/schema/_res/$name.SNAPSHOT.schema.json" "$part/schemas/$name.json"
    done
    mv -T "$part/schemas" "$folder"
fi
python3 -W ignore - "$folder" "$@" <<'END'
import json, sys
import jsonschema

folder, bills = sys.argv[1], sys.argv[2:]
read = lambda path: json.load(open(path))
schema = read(f"{folder}/bom-1.5.json")
others = {f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json": read(f"{folder}/{name}.json") for name in ("spdx", "jsf-0.82")}
judge = jsonschema.Draft7Validator(schema, resolver=jsonschema.RefResolver(schema["$id"], schema, others))
faults = 0
for bill in bills:
    for fault in judge.iter_errors(read(bill)):
        faults += 1
        print(f"{bill}: {'/'.join(map(str, fault.absolute_path))}: {fault.message[:300]}")
print(f"{len(bills)} bills of materials, {faults} faults")
sys.exit(faults > 0)
END
