"""The folder that keeps finished trainings, so that an evaluation that ends early goes on where it was.

    FOLDER/experiment.json        what was trained: name, source checksum, documents
    FOLDER/trainings/KEY.json     subset size, seed and losses of one training; KEY is a hash of subset and seed
    FOLDER/KIND/KEY.json          other finished work

Axes: K trainings, Q queries.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gindex.errors import CorruptStoreError, SettingsMismatchError, TrainingError
from gindex.files.atomic import publish
from gindex.lab.evaluations.training import Experiment, Losses, Ordinals
from gindex.progress import Progress

ALIKE = 3
"""Different subsets whose losses are all equal, with one seed, after which a function is held to ignore its subset."""


class WorkFolder:
    """The folder of an experiment."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        """Open or make the folder.

        Raises:
            SettingsMismatchError: It is of another experiment, or the training function's file has changed.
            CorruptStoreError: A file of it cannot be read.
        """
        self.experiment, self.folder = experiment, folder
        expected = {"name": experiment.name, "source": experiment.source, "documents": experiment.documents}
        path = folder / "experiment.json"
        found = _read(path) if path.is_file() else None
        if found is None:
            _write(path, expected)
        elif found != expected:
            raise SettingsMismatchError(
                field=path,
                expected=expected,
                found=found,
                remedy="give another `work`, or, where the change cannot alter what is trained, remove this file",
            )

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """Finished work, None where there is none."""
        path = self._path(kind, key)
        return _read(path) if path.is_file() else None

    def put(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Keep finished work."""
        _write(self._path(kind, key), record)

    def losses(self, subsets: Sequence[Ordinals], seeds: Sequence[int], progress: Progress) -> Losses:
        """The losses [K, Q] of K trainings, training only what was not trained before.

        Raises:
            TrainingError: The function fails, diverges, returns other numbers of losses, or ignores its subset.
        """
        keys = [_key(subset, seed) for subset, seed in zip(subsets, seeds, strict=True)]
        kept = {key: self.get("trainings", key) for key in dict.fromkeys(keys)}
        missing = [k for k, key in enumerate(keys) if kept[key] is None and keys.index(key) == k]
        # Trainings of as many documents go well together, and those of one seed show whether subsets matter.
        missing.sort(key=lambda k: (len(subsets[k]), seeds[k]))
        with progress.phase("train", len(missing), "trainings") as phase:
            for start in range(0, len(missing), self.experiment.at_once):
                some = missing[start : start + self.experiment.at_once]
                found_KQ = self.experiment.train([subsets[k] for k in some], [seeds[k] for k in some])
                for k, losses_Q in zip(some, found_KQ, strict=True):
                    record = {"documents": len(subsets[k]), "seed": seeds[k], "losses": losses_Q.tolist()}
                    self.put("trainings", keys[k], record)
                    kept[keys[k]] = record
                self._check([record for record in kept.values() if record is not None])
                phase.advance(len(some))
        self._check([record for record in kept.values() if record is not None])
        return np.array([kept[key]["losses"] for key in keys], np.float64)  # type: ignore[index]

    def _check(self, records: Sequence[dict[str, Any]]) -> None:
        """Look for other numbers of losses, and for losses that do not depend on the subset."""
        queries = {len(record["losses"]) for record in records}
        if len(queries) > 1:
            raise TrainingError(
                field=self.experiment.name,
                expected="as many losses from every training",
                found=sorted(queries),
                remedy="return one for each query",
            )
        for seed in {record["seed"] for record in records}:
            of_seed = [record["losses"] for record in records if record["seed"] == seed]
            if len(of_seed) >= ALIKE and all(losses == of_seed[0] for losses in of_seed):
                raise TrainingError(
                    field=self.experiment.name,
                    expected="losses that depend on the documents trained on",
                    found=f"the same for {len(of_seed)} different subsets with seed {seed}",
                    remedy="the function ignores its subset",
                )

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.json"


def key_of(*parts: object) -> str:
    """A file name for finished work that depends on plain values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _key(subset: Ordinals, seed: int) -> str:
    return hashlib.sha256(np.int64(seed).tobytes() + subset.astype("<i8").tobytes()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"a {type(record).__name__}")
    except (OSError, ValueError) as error:
        raise CorruptStoreError(field=path, expected="a JSON object", found=error, remedy="remove the file") from error
    return record


def _write(path: Path, record: dict[str, Any]) -> None:
    def write(partial: Path) -> None:
        partial.write_text(json.dumps(record), encoding="utf-8")

    publish(path, write)
