"""`gindex evaluate lds`, `removal` and `mislabel` on a training function in a file."""

import json
import re

import numpy as np
from report_files import read_report


def test_the_commands(run, fails, tmp_path):
    """Text, JSON and a picture of each on a training function in a file; and what they refuse."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "influence = np.random.default_rng(0).normal(size=(5, 30))\n"
        "class Mine:\n"
        "    documents, classes, labels = 30, 3, np.arange(30) % 3\n"
        "    def __call__(self, subset, seed): return -influence[:, subset].sum(1)\n"
        "    def methods(self): return {'true': lambda: influence, 'wrong': lambda: -influence}\n"
        "    def suspicion(self, labels, seed): return {'knows': labels != self.labels}\n"
    )
    np.save(tmp_path / "half.npy", np.random.default_rng(1).normal(size=(5, 30)))
    common = [f"{file}:Mine", "--work", tmp_path / "work"]
    scores = ["--scores", f"half={tmp_path / 'half.npy'}"]
    text = run("evaluate", "lds", *common, *scores, "--method", "true", "--subsets", 20, "--plot", tmp_path / "lds.png")
    assert text.exit_code == 0, text.output
    lines = text.stdout.splitlines()
    assert lines[0].endswith("30 documents, 5 queries, 20 subsets of 50%, 5 trainings on each")
    assert lines[1] == "true predicts best what training on a subset does: LDS 1.000 [1.000, 1.000]."
    table = [line.split() for line in lines[lines.index("") + 1 :]]
    assert table[:2] == [["method", "LDS"], ["true", "1.000", "[1.000,", "1.000]"]] and table[2][0] == "half"
    assert (tmp_path / "lds.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(run("evaluate", "lds", *common, "--subsets", 20, "--json").stdout)
    assert record["lds"]["wrong"]["mean"] == -1
    removed = ["--removed", 3, "--queries", 5, "--plot", tmp_path / "removal.png"]
    lines = run("evaluate", "removal", *common, *removed).stdout.splitlines()
    assert lines[lines.index("") + 2].split()[:2] == ["random", "3"]
    assert [line.split()[:2] for line in lines[lines.index("") + 3 :]] == [
        ["true", "top"],
        ["true", "bottom"],
        ["wrong", "top"],
        ["wrong", "bottom"],
    ]
    shown = run("evaluate", "mislabel", *common, "--repeats", 7, "--plot", tmp_path / "mislabel.svg").stdout
    assert re.search(r"^method +AUC +found\nknows +1\.000 \[1\.000, 1\.000\] +100%$", shown, re.MULTILINE)
    picture = (tmp_path / "mislabel.svg").read_text()
    assert len(picture) > 1000 and "gindex:" not in picture and "#0969da" in picture  # the page's colours
    (tmp_path / "pages").mkdir()
    for name in ("lds", "removal", "mislabel"):
        more = {"lds": ["--subsets", 20], "removal": ["--removed", 3, "--queries", 5], "mislabel": ["--repeats", 7]}[
            name
        ]
        page = tmp_path / "pages" / f"{name}.html"
        numbers = json.loads(run("evaluate", name, *common, *more, "--json", "--out", page).stdout)
        assert read_report(page, name)[0]["numbers"] == numbers
    assert "expected one of true, wrong, found 'other'" in fails(2, "evaluate", "lds", *common, "--method", "other")
    assert "--scores: expected NAME=FILE" in fails(2, "evaluate", "lds", *common, "--scores", "file.npy")
    (tmp_path / "bad.npy").write_bytes(b"not numpy")
    assert "expected a NumPy file of scores" in fails(
        2, "evaluate", "lds", *common, "--scores", f"x={tmp_path / 'bad.npy'}"
    )
    file.write_text(file.read_text() + "\n# changed\n")
    assert "give another --work" in fails(8, "evaluate", "lds", *common, "--subsets", 20)
