#!/usr/bin/env bash
# From a run to a release: serve it behind its gate, test what is served, gate that too, and stop.
#   bash examples/digits/release.sh [RUN [GATES]]
# GATES is the folder of gate.yaml and gate-served.yaml (this one if not said).
# The service has any free port, keys of its own and no other service's state, so that nothing of yours is in its way.
set -euo pipefail

run=${1:-latest}
gates=${2:-$(dirname "$0")}
own=$(mktemp -d)
keys=$own/keys.json
export XDG_STATE_HOME=$own/state

stop() {
  tunesmith serve stop --all 2>/dev/null || true
  rm -rf "$own"
}
trap stop EXIT

TUNESMITH_API_KEY=$(tunesmith serve keys add demo --keys "$keys")
export TUNESMITH_API_KEY
said=$(tunesmith serve "digits=$run" --gate "$gates/gate.yaml" --keys "$keys" --detach)
echo "$said"
model=$(sed -n 's/^serving .* at \(http[^ ]*\)$/\1/p' <<<"$said")/v2/models/digits

tunesmith evaluate "$model" --like "$run"
tunesmith gate "$model" --like "$run" --gate "$gates/gate-served.yaml" --baseline "$run"
tunesmith serve status
