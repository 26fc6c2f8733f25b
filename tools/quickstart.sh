#!/usr/bin/env bash
# From a fresh clone to influential documents: environment, model, index, three searches.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup.sh
.venv/bin/python tools/fetch_model.py

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

gindex() {
    printf '$ gindex'
    printf ' %q' "$@"
    printf '\n'
    .venv/bin/gindex "$@"
}

gindex build examples/jargon/lexicon.jsonl --model .cache/models/SmolLM2-135M-Instruct --out runs/jargon \
    --max-tokens 128 --fit-documents 48
gindex search runs/jargon "A deadly embrace is" \
    --completion " a deadlock: two processes wait for each other and neither can go on." -k 3
gindex search runs/jargon "A worm is" \
    --completion " a program that copies itself over a network from one computer to the next." -k 3
gindex search runs/jargon "When a program never frees the memory that it allocates," \
    --completion " it has a memory leak." -k 3
echo "quickstart: took $SECONDS s"
