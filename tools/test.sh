#!/usr/bin/env bash
# Runs every check and stops at the first that fails. Arguments go to pytest: tools/test.sh -k store -x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup.sh

# Few threads, which sleep while they wait: the tests' matrices are small. Nothing is fetched.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

step() {
    local start=$SECONDS status=0
    echo "test: $*"
    .venv/bin/"$@" || status=$?
    echo "test: $1 took $((SECONDS - start)) s"
    if ((status)); then
        echo "test: failed: $*" >&2
        exit "$status"
    fi
}

step ruff check
step ruff format --check
step mypy
step pytest "$@"
echo "test: everything passed in $SECONDS s"
