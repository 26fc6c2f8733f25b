"""Evaluations on training functions whose answer is known, and on those that misbehave."""

import json
import time

import numpy as np
import pytest

from gindex.errors import ConfigError, CorruptStoreError, SettingsMismatchError, TrainingError
from gindex.lab.evaluations.config import LdsConfig, MislabelConfig, RemovalConfig
from gindex.lab.evaluations.experiments import load_experiment
from gindex.lab.evaluations.lds import ceiling, draw_subsets, evaluate_lds, lds_report
from gindex.lab.evaluations.mislabel import change_labels, evaluate_mislabel
from gindex.lab.evaluations.removal import evaluate_removal
from gindex.lab.evaluations.training import Experiment
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.progress import Silent

DOCUMENTS, QUERIES = 40, 6
INFLUENCE = np.random.default_rng(0).normal(size=(QUERIES, DOCUMENTS))
CONFIG = LdsConfig(subsets=30, repeats=2)


class Additive:
    """Losses are minus sums of a known influence, with noise by seed and subset."""

    documents = DOCUMENTS

    def __init__(self, noise=0.0):
        self.noise, self.trained = noise, []

    def __call__(self, subset, seed):
        self.trained.append((len(subset), seed))
        noise = np.random.default_rng([seed, *subset]).normal(size=QUERIES) * self.noise
        return -INFLUENCE[:, subset].sum(1) + noise


def experiment(function, name="additive", source="1"):
    return Experiment(name=name, source=source, function=function, documents=DOCUMENTS)


def numbers(measured):
    return lds_report(measured).numbers


def test_true_influence_scores_one_and_other_scores_do_not(tmp_path):
    methods = {
        "true": lambda: INFLUENCE,
        "opposite": lambda: -INFLUENCE,
        "unrelated": lambda: np.random.default_rng(1).normal(size=(QUERIES, DOCUMENTS)),
    }
    measured = evaluate_lds(WorkFolder(experiment(Additive()), tmp_path), methods, CONFIG, Silent())
    found = {name: method.lds for name, method in measured.methods.items()}
    assert found["true"].mean == pytest.approx(1) and found["opposite"].mean == pytest.approx(-1)
    assert abs(found["unrelated"].mean) < 0.3 and found["unrelated"].low < 0 < found["unrelated"].high
    assert measured.ceiling == pytest.approx(1)
    record = json.loads(json.dumps(lds_report(measured).numbers))
    assert record["subsets"] == 30 and record["lds"]["true"]["mean"] == 1


def test_the_ceiling_is_what_the_truth_reaches_under_noise():
    """Outcomes with as much noise as signal in each of 4 repeats: the expectation correlates by (4 / 5)^1/2."""
    generator = np.random.default_rng(2)
    signal = generator.normal(size=(40, 300))
    found = ceiling(signal + generator.normal(size=(4, 40, 300)))
    assert found == pytest.approx(np.sqrt(4 / 5), abs=0.03)  # ranks cost .01, 40 queries leave .01
    assert ceiling(signal[None]) is None


def test_finished_trainings_are_not_done_again(tmp_path):
    methods = {"true": lambda: INFLUENCE}
    first = Additive(0.1)
    once = evaluate_lds(WorkFolder(experiment(first), tmp_path), methods, LdsConfig(subsets=20, repeats=1), Silent())
    again, fewer = Additive(0.1), len(first.trained)
    more = evaluate_lds(WorkFolder(experiment(again), tmp_path), methods, LdsConfig(subsets=25, repeats=2), Silent())
    assert fewer == 20 and len(again.trained) == 25 * 2 - 20
    fresh = evaluate_lds(WorkFolder(experiment(Additive(0.1)), tmp_path / "b"), methods, more.config, Silent())
    assert numbers(fresh) == numbers(more) != numbers(once)


def test_a_failure_keeps_what_was_finished_and_names_the_training(tmp_path):
    class Failing(Additive):
        def __call__(self, subset, seed):
            if len(self.trained) == 7:
                raise RuntimeError("out of memory")
            return super().__call__(subset, seed)

    with pytest.raises(TrainingError, match="training on 20 documents, seed 0, found RuntimeError: out of memory"):
        evaluate_lds(WorkFolder(experiment(Failing()), tmp_path), {}, CONFIG, Silent())
    assert len(list((tmp_path / "trainings").glob("*.json"))) == 7
    resumed = Additive()
    evaluate_lds(WorkFolder(experiment(resumed), tmp_path), {}, CONFIG, Silent())
    assert len(resumed.trained) == 60 - 7


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda subset, seed: [1.0, float("nan")],
            "found nan for query 1 after a training on 20 documents with seed 0",
        ),
        (lambda subset, seed: [seed, 2.0], "the same for 3 different subsets with seed 0; the function ignores"),
        (lambda subset, seed: 1.0, "expected one row of losses"),
        (lambda subset, seed: [1.0] * (1 + subset[0] % 2), "expected as many losses from every training"),
        (lambda subset: 1.0, "TypeError"),
    ],
)
def test_bad_training_functions_are_named(function, message, tmp_path):
    with pytest.raises(TrainingError, match=f"additive: .*{message}"):
        evaluate_lds(WorkFolder(experiment(function), tmp_path), {}, CONFIG, Silent())


def test_bad_scores_are_named(tmp_path):
    kept = WorkFolder(experiment(Additive()), tmp_path)
    with pytest.raises(
        ConfigError, match="mine: expected scores of 6 queries and 40 documents, found shape \\(6, 39\\)"
    ):
        evaluate_lds(kept, {"mine": lambda: INFLUENCE[:, 1:]}, CONFIG, Silent())
    with pytest.raises(ConfigError, match="mine: expected finite scores, found nan for query 0 and document 0"):
        evaluate_lds(kept, {"mine": lambda: np.full((6, 40), np.nan)}, CONFIG, Silent())


def test_too_few_subsets_say_how_many_are_needed():
    with pytest.raises(ConfigError, match="subsets: expected at least 20 for a confidence interval, found 19"):
        LdsConfig(subsets=19)


def test_a_folder_of_another_experiment_is_refused(tmp_path):
    WorkFolder(experiment(Additive()), tmp_path)
    with pytest.raises(SettingsMismatchError, match="give another `work`"):
        WorkFolder(experiment(Additive(), source="2"), tmp_path)
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(CorruptStoreError, match=r"experiment.json: expected a JSON object"):
        WorkFolder(experiment(Additive()), tmp_path)


def test_subsets_are_halves_that_do_not_depend_on_their_number():
    some, more = (draw_subsets(41, LdsConfig(subsets=count)) for count in (20, 30))
    assert all(np.array_equal(a, b) for a, b in zip(some, more, strict=False))
    assert {len(subset) for subset in more} == {20} and len({tuple(subset) for subset in more}) == 30


def test_removal_of_the_top_raises_the_loss_by_what_was_removed(tmp_path):
    config = RemovalConfig(removed=(5, 10), queries=5, repeats=2)
    function = Additive()
    measured = evaluate_removal(
        WorkFolder(experiment(function), tmp_path), {"true": lambda: INFLUENCE}, config, Silent()
    )
    changes = {(change.method, change.end, change.removed): change for change in measured.changes}
    for removed in (5, 10):
        ordered = -np.sort(-INFLUENCE[measured.queries], axis=1)
        np.testing.assert_allclose(changes["true", "top", removed].queries, ordered[:, :removed].sum(1))
        np.testing.assert_allclose(changes["true", "bottom", removed].queries, ordered[:, -removed:].sum(1))
        random = changes["", "random", removed].change
        assert random.mean < changes["true", "top", removed].change.mean
        assert random.mean > changes["true", "bottom", removed].change.mean
    assert len(function.trained) == 2 + 2 * 2 * 3 * 5  # all; repeats x numbers x ends x queries
    with pytest.raises(ConfigError, match="removed: expected at most half of 40 documents, found 21"):
        evaluate_removal(WorkFolder(experiment(function), tmp_path), {}, RemovalConfig(removed=(21,)), Silent())
    with pytest.raises(ConfigError, match="queries: expected at most 6, as there are, found 10"):
        evaluate_removal(WorkFolder(experiment(function), tmp_path), {}, RemovalConfig(removed=(2,)), Silent())


class Labelled(Additive):
    """Says exactly which labels differ from the true ones, and the same for all."""

    classes = 4
    labels = np.arange(DOCUMENTS) % 4

    def __init__(self):
        super().__init__()
        self.seeds = []

    def suspicion(self, labels, seed):
        self.seeds.append(seed)
        return {"knows": (labels != self.labels) * 1.0, "knows nothing": np.zeros(DOCUMENTS)}


def test_changed_labels_are_found_by_who_knows_them(tmp_path):
    function = Labelled()
    measured = evaluate_mislabel(WorkFolder(experiment(function), tmp_path), MislabelConfig(), Silent())
    assert measured.changed == 4 and function.seeds == [0, 1, 2, 3, 4]
    knows, nothing = measured.methods["knows"], measured.methods["knows nothing"]
    assert (knows.auc.mean, knows.found) == (1, 1) and knows.curve[10] == 1
    assert nothing.auc.mean == 0.5 and abs(nothing.found - 0.1) < 0.3
    evaluate_mislabel(WorkFolder(experiment(function), tmp_path), MislabelConfig(), Silent())
    assert len(function.seeds) == 5, "finished trainings are kept"


def test_labels_are_changed_to_other_classes():
    labels = np.arange(1000) % 7
    spoilt, changed = change_labels(labels, 7, 0.1, (3,))
    assert np.array_equal(np.flatnonzero(spoilt != labels), changed) and len(changed) == 100
    assert set(np.unique((spoilt - labels)[changed] % 7)) == {1, 2, 3, 4, 5, 6}


def test_mislabel_needs_labels_and_enough_of_them(tmp_path):
    with pytest.raises(ConfigError, match="additive: expected `labels`, `classes` and `suspicion"):
        evaluate_mislabel(WorkFolder(experiment(Additive()), tmp_path), MislabelConfig(), Silent())
    with pytest.raises(ConfigError, match="repeats: expected at least 5 for a confidence interval with 4 changed"):
        evaluate_mislabel(WorkFolder(experiment(Labelled()), tmp_path), MislabelConfig(repeats=4), Silent())


WRITTEN = """
import numpy as np

def train(subset, seed):
    return [-float(subset.sum()), float((subset * subset).sum())]

class Made:
    documents = 30
    def __call__(self, subset, seed):
        return train(subset, seed)

number = 3
"""


def test_functions_are_found_by_name(tmp_path, monkeypatch):
    file = tmp_path / "written_by_a_user.py"
    file.write_text(WRITTEN)
    assert load_experiment(f"{file}:train", 25).documents == 25
    made = load_experiment(f"{file}:Made")
    assert made.documents == 30 and made.train([np.arange(3)], [0]).tolist() == [[-3, 5]]
    monkeypatch.chdir(tmp_path)
    found = load_experiment("written_by_a_user:Made")
    assert found.source == made.source != ""
    file.write_text(WRITTEN + "# changed")
    time.sleep(0.01)
    assert load_experiment(f"{file}:Made").source != made.source


@pytest.mark.parametrize(
    ("name", "documents", "message"),
    [
        ("nothing", None, "expected a training function as package.module:function"),
        ("{}:missing", None, "expected 'missing' in"),
        ("{}:number", 20, "expected a function of a subset and a seed, found int"),
        ("{}:train", None, "expected to know of at least two documents .* give `documents`"),
        ("{}:Made", 29, "documents: expected 30, which"),
        ("no_such_module_anywhere:train", 20, "expected to import no_such_module_anywhere, found ModuleNotFoundError"),
        ("no/such/file.py:train", 20, "no/such/file.py: expected a Python file, found none"),
    ],
)
def test_bad_names_say_what_is_missing(name, documents, message, tmp_path):
    file = tmp_path / "written.py"
    file.write_text(WRITTEN)
    with pytest.raises(ConfigError, match=message):
        load_experiment(name.format(file), documents)
