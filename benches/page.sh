#!/bin/sh
# Puts docs/performance.md together from what the benches wrote beside themselves. It measures nothing.
#
#   page.sh [--write]     prints the page; --write puts it into docs/
#
# A test holds the page to these parts.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
part() { cat "$root/benches/$1.md"; }

page() {
    cat <<EOT
# Performance, side by side

Each section says when it was measured, and which script measures it anew; \`sh benches/page.sh --write\` puts this page together
again. Times belong to the machine; the ratios are what to compare. No test asserts a time.

## The builder

$(part builder)

$(part builder.notes)

## A slave's answers during an upgrade

A client pings the slave's \`tars.tarsregistry.QueryObj\` every 5 ms; the longest time without an answer counts.
\`sh benches/upgrade.sh --write\` measures it anew.

$(part upgrade)

Both stop the old container before the new one starts, because both have the same address. Either way the stop takes what
the services need to stop, and the start what tarsregistry needs until it answers.

## Nodes on an engine

A node whose service has no other instance is restarted, or replaced (\`--no-drain\`), while a client pings that service every 5 ms. Then nodes that share
another service are restarted one by one: with the default times (65 s for clients, 5 s of dwell) with and without drains, and by hand with
\`docker stop\` and \`docker start\`, each awaited until it answers. Neither \`--no-drain\` nor the hand spares the clients of what is stopped.
\`sh benches/nodes.sh\` measures it anew.

$(part nodes)

## A rollout of twenty nodes, without an engine's own time

A restart with the default times (65 s for clients, 5 s of dwell) on an engine in memory, where nothing but waiting takes time. Without
overlap the first line would be 1,400 s. \`sh benches/rollout.sh\` measures it anew.

$(part rollout)

## A plan for 1,000 services

All of them run as declared. The engine is a socket that answers from memory, so that what counts is tarsup's own part.
\`sh benches/plan.sh BEFORE\` measures it anew beside an earlier build. A test holds the calls to 15 at most.

$(part plan)
EOT
}

case ${1:-} in
    --write) page >"$root/docs/performance.md.new" && mv "$root/docs/performance.md.new" "$root/docs/performance.md" ;;
    '') page ;;
    *) sed -n '2,4s/^# *//p' "$0" >&2; exit 2 ;;
esac
