#!/bin/sh
# Holds OCI layouts against the schemas of the image specification itself, out of Debian's package of them.
#
#   oci.sh FOLDER...      every image of each layout: oci-layout, index, manifests, configs
#
# tests/all.sh has installed what it needs.
set -eu

[ $# -gt 0 ] || { sed -n '2,6s/^# *//p' "$0" >&2; exit 2; }
# Debian's own Python, whichever is first on the path.
/usr/bin/python3 -W ignore - "$@" <<'END'
import json, sys
import jsonschema

FOLDER = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema"
NAMES = ["config-schema", "content-descriptor", "defs", "defs-descriptor", "image-index-schema", "image-layout-schema", "image-manifest-schema"]
# They name each other by their files' names, which is where they are looked for, and nowhere else.
at = lambda name: f"file:///image-spec/{name}.json"
without_id = lambda part: {key: value for key, value in part.items() if key != "id" or not isinstance(value, str)}
schemas = {at(name): json.load(open(f"{FOLDER}/{name}.json"), object_hook=without_id) for name in NAMES}
faults = documents = 0


def judge(what, document, name):
    global faults, documents
    schema = schemas[at(name)]
    resolver = jsonschema.RefResolver(at(name), schema, schemas)
    documents += 1
    for fault in jsonschema.Draft4Validator(schema, resolver=resolver).iter_errors(document):
        faults += 1
        print(f"{what}: {'/'.join(map(str, fault.absolute_path))}: {fault.message[:300]}")


for layout in sys.argv[1:]:
    read = lambda path: json.load(open(f"{layout}/{path}"))
    blob = lambda descriptor: read("blobs/" + descriptor["digest"].replace(":", "/"))
    judge(f"{layout}/oci-layout", read("oci-layout"), "image-layout-schema")
    index = read("index.json")
    judge(f"{layout}/index.json", index, "image-index-schema")
    for entry in index["manifests"]:
        manifest = blob(entry)
        judge(f"{layout}: manifest {entry['digest']}", manifest, "image-manifest-schema")
        judge(f"{layout}: config {manifest['config']['digest']}", blob(manifest["config"]), "config-schema")
print(f"{documents} documents, {faults} faults")
sys.exit(faults > 0 or documents < 4 * len(sys.argv[1:]))
END
