"""Commands that only list, check or mark load neither torch nor transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from gindex_cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    status = end.code or 0
print(json.dumps([status, sorted({"torch", "transformers"} & sys.modules.keys())]))
"""


@pytest.mark.parametrize(
    "command",
    [["versions"], ["verify"], ["info"], ["outliers"], ["delete", "d3", "d4"], ["rollback", "1"], ["prune"]],
    ids=lambda c: c[0],
)
def test_neither_torch_nor_transformers_is_loaded(built, tmp_path, command):
    folder = shutil.copytree(built, tmp_path / "index")
    name, *arguments = command
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, folder, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status == 0 and loaded == [], done.stdout + done.stderr
