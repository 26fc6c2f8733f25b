#!/usr/bin/env bash
# From a fresh clone to influential documents: environment, model, index, three queries.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup.sh
.venv/bin/python tools/data/fetch_model.py

prepared=$SECONDS

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

gindex() {
    printf '$ gindex'
    printf ' %q' "$@"
    printf '\n'
    .venv/bin/gindex "$@"
}

gindex build examples/jargon/lexicon.jsonl --model .cache/models/SmolLM2-135M-Instruct --out runs/jargon \
    --max-tokens 128 --fit-documents 40 --calibration-documents 32 --fidelity-queries 4 --fidelity-parts 100
gindex search runs/jargon --queries examples/jargon/queries.jsonl --exact --candidates 30 -k 3
echo "quickstart: took $((SECONDS - prepared)) s, and $prepared s before that to install and fetch"
