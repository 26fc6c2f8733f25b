#!/usr/bin/env bash
# Makes .venv with the pinned dependencies and gindex itself (editable). Does nothing when they are already there.
#
# PYTHON names the interpreter for a new .venv, EXTRAS the extras of gradient-index to install.
# PyPI's torch for Linux brings gigabytes of CUDA; for the build without it:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu tools/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
extras=${EXTRAS:-cpu,corpora,gguf,peft,client,serve,mcp,dev}
stamp=.venv/setup.sha256

digest() {
    { cat pyproject.toml tools/constraints.txt tools/setup.sh; echo "$extras $PWD"; } | .venv/bin/python -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

if [[ ! -x .venv/bin/python ]]; then
    if ! is_recent "$python"; then
        echo "setup: expected Python 3.11 or newer, found $("$python" --version 2>&1 || true) as '$python';" \
            "name another one with PYTHON=..." >&2
        exit 1
    fi
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv .venv
elif ! is_recent .venv/bin/python; then
    echo "setup: expected Python 3.11 or newer, found $(.venv/bin/python --version 2>&1 || true) in .venv;" \
        "remove .venv and run this again" >&2
    exit 1
fi

if [[ -f $stamp && $(<"$stamp") == "$(digest)" ]]; then
    echo "setup: .venv is up to date"
    exit 0
fi

install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint tools/constraints.txt)
echo "setup: installing torch"
"${install[@]}" torch
if .venv/bin/python -m pip show --quiet gindex 2>/dev/null; then
    echo "setup: removing the distribution gindex: ours is called gradient-index now, and another project's clashes with it"
    .venv/bin/python -m pip uninstall --quiet --yes gindex
fi
echo "setup: installing gradient-index[$extras]"
"${install[@]}" --editable ".[$extras]"
if [[ ",$extras," == *,dev,* ]]; then
    echo "setup: installing kronfluence, which the tests compare with"
    "${install[@]}" --no-deps kronfluence
fi
digest >"$stamp"
echo "setup: done"
