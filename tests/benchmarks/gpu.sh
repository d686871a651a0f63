#!/usr/bin/env bash
# On a machine with a GPU: installs wheels from a folder (no registry needed), runs the GPU checks and prints their table.
#   tests/benchmarks/gpu.sh [WHEELS]
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -gt 0 ]; then
    python3 -m pip install --quiet --no-index --no-deps --find-links "$1" "$1"/*.whl
fi
export PYTHONPATH="platform:federated:serving:tests${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
exec timeout 540 python3 tests/benchmarks/gpu_check.py
