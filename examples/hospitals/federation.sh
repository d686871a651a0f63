#!/usr/bin/env bash
# A real federation on one machine: a server and three hospitals, each a process with keys of its own.
#   bash examples/hospitals/federation.sh [RUNS]
# A recipe that nobody allows is refused; then the one they allow is trained twice, the second time with a hospital and the
# server killed on the way. Both give the same model, to the last bit, which is served behind a gate. RUNS is where the two runs
# go (runs/ if not said).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-runs}
own=$(mktemp -d)
declare -A process

join() {
  tunesmith site join --config "$own/fed/sites/$1/site.yaml" >>"$own/$1.log" 2>&1 &
  process[$1]=$!
}

stop() {
  for one in "${process[@]}"; do kill "$one" 2>/dev/null || true; done
  tunesmith federation stop "$own/fed" >/dev/null 2>&1 || true
  wait
  rm -rf "$own"
}
trap stop EXIT INT TERM

say() { echo; echo "== $*"; }

train() {
  tunesmith federate "$here/recipe.yaml" --superlink "$own/fed" training.output_dir="$runs" "$@"
}

say "Keys, certificates, and a folder for each hospital"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
tunesmith federation init "$own/fed" --sites berlin,lyon,turin --port "$port"
python "$here/make_data.py" "$own/fed" "$(tunesmith site fingerprint "$here/recipe.yaml")"

say "The server, and three hospitals that join it"
tunesmith federation up "$own/fed" --detach
for name in berlin lyon turin; do join "$name"; done

say "A recipe that the hospitals do not allow"
if train --wait 10 training.learning_rate=0.1; then exit 1; fi

say "The recipe that they allow"
train
first=$(ls -d "$runs"/hospitals-federated-* | tail -1)
tunesmith federation status "$own/fed"

say "The same once more; a hospital and the server are killed on the way"
train --new >"$own/second.log" 2>&1 &
second=$!
rounds() { grep -c '^Round ./' "$own/second.log" || true; }
while kill -0 "$second" && [ "$(rounds)" -lt 2 ]; do sleep 0.2; done
kill -9 "${process[lyon]}" && join lyon
while kill -0 "$second" && [ "$(rounds)" -lt 4 ]; do sleep 0.2; done
kill -9 "$(python -c "import json; print(json.load(open('$own/fed/state/up.json'))['pid'])")"
tunesmith federation up "$own/fed" --detach
wait "$second" || { cat "$own/second.log"; exit 1; }
grep -E '^(Round|berlin|lyon|turin|The server)' "$own/second.log"
last=$(ls -d "$runs"/hospitals-federated-* | tail -1)
cmp "$first/model/model.safetensors" "$last/model/model.safetensors"
echo "$first and $last have the same model, to the last bit."

say "What a hospital has on record"
tunesmith site audit --config "$own/fed/sites/lyon/site.yaml" | tail -4

say "The model is a run like any other: served behind its gate, tested there, and gated again"
bash "$here/../digits/release.sh" "$last" "$here"
