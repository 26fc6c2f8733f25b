"""The README's examples of models in memory, run as they stand there."""

import re
from pathlib import Path

import torch
from torch import nn

README = Path(__file__).parents[1] / "README.md"
QUERIES, DOCUMENTS = 3, 12


def examples(heading: str) -> str:
    """Return the Python of a section, one block behind the other."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", README.read_text(encoding="utf-8"), re.S | re.M)
    return "\n".join(re.findall(r"```python\n(.*?)```", section, re.S))


def test_the_examples_for_any_torch_model_run():
    """Refined and dense influence agree, as both invert the Gauss-Newton matrix; plain EK-FAC is something else."""
    torch.manual_seed(0)
    x, y = torch.randn(DOCUMENTS + QUERIES, 4), torch.randint(3, (DOCUMENTS + QUERIES,))
    names = {
        "model": nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        "x_train": x[:DOCUMENTS],
        "y_train": y[:DOCUMENTS],
        "x_test": x[DOCUMENTS:],
        "y_test": y[DOCUMENTS:],
    }
    exec(examples("Any torch model"), names)
    influence, refined, reference = (names[name] for name in ("influence", "refined", "reference"))
    assert influence.shape == refined.shape == reference.shape == (QUERIES, DOCUMENTS)
    assert sorted(names["suspects"].tolist()) == list(range(DOCUMENTS))
    size = reference.norm()
    assert (refined - reference).norm() < 0.05 * size  # the solver stops at a residual of .01
    assert (influence - reference).norm() > 0.1 * size
