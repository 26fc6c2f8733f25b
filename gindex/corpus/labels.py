"""Labels as records and queries give them, by name or number, and as a model has them.

Axes: K values of a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import CorpusError

Label = npt.NDArray[np.float32]

ONE_CLASS, SEVERAL_CLASSES, VALUES = LABEL_KINDS = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)
"""Kinds of labels, as transformers calls the problems."""

_SHOWN = 8


class NamedClass(str):
    """Name of a class, with its number in the data set that it is from, for models that have no names of classes."""

    number: int

    @classmethod
    def of(cls, name: str, number: int) -> "NamedClass":
        """A class by its name and number."""
        made = cls(name)
        made.number = number
        return made


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels that a model gives.

    Attributes:
        names: Names of its classes, or of its values, in order.
        kind: One of `LABEL_KINDS`.
    """

    names: tuple[str, ...]
    kind: str = ONE_CLASS

    @property
    def size(self) -> int:
        """K: one number of a class, or a value for each name."""
        return 1 if self.kind == ONE_CLASS else len(self.names)

    def read(self, value: object, place: str) -> Label:
        """A label as the model has it [K].

        Args:
            value: One class, by name or number; of several classes a list of them, or 0 or 1 for each there is; values.
            place: What messages of errors call it.

        Raises:
            CorpusError: It is no label of the model.
        """
        if self.kind == ONE_CLASS:
            return np.array([self._number(value, place)], np.float32)
        if self.kind == VALUES:
            return self._values(value, place)
        given = as_list(value)
        if len(given) == len(self.names) and all(_is_number(each) and float(each) in (0, 1) for each in given):
            return np.array(given, np.float32)
        label = np.zeros(len(self.names), np.float32)
        label[[self._number(each, place) for each in given]] = 1
        return label

    def text(self, label: Label) -> str:
        """A label as people read it."""
        if self.kind == ONE_CLASS:
            return self.names[int(label[0])]
        if self.kind == SEVERAL_CLASSES:
            return ", ".join(self.names[n] for n in np.flatnonzero(label)) or "none"
        return ", ".join(f"{value:g}" for value in label)

    def _number(self, value: object, place: str) -> int:
        """Number of a class."""
        named = str(value).strip()
        if isinstance(value, str) and named in self.names:
            return self.names.index(named)
        if isinstance(value, NamedClass) and self.names == tuple(f"LABEL_{n}" for n in range(len(self.names))):
            value = value.number
        number = _whole(value)
        if number is None or not 0 <= number < len(self.names):
            shown = ", ".join(self.names[:_SHOWN]) + (", ..." if len(self.names) > _SHOWN else "")
            raise CorpusError(
                field=place,
                expected=f"a label of the model: {shown}, or its number from 0 to {len(self.names) - 1}",
                found=repr(value)[:80],
                remedy="correct it, or set id2label in the model's config.json",
            )
        return number

    def _values(self, value: object, place: str) -> Label:
        given = [_float(each) for each in as_list(value)]
        if len(given) != len(self.names) or not all(each is not None and isfinite(each) for each in given):
            raise CorpusError(
                field=place,
                expected="a finite number" if len(self.names) == 1 else f"{len(self.names)} finite numbers",
                found=repr(value)[:80],
                remedy="correct it: the model gives values, not classes",
            )
        return np.array(given, np.float32)


def as_list(value: object) -> list[Any]:
    """What is given of several: a list, or a text with commas between them."""
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    if isinstance(value, (Sequence, np.ndarray)):
        return list(value)
    return [value]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number))


def _whole(value: object) -> int | None:
    """A whole number, also one that is written as text or as a float; None for anything else."""
    number = _float(value)
    return int(number) if number is not None and isfinite(number) and number == int(number) else None


def _float(value: object) -> float | None:
    if isinstance(value, (int, float, np.number, str)):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def labels_of(names: Mapping[int, str], kind: str = ONE_CLASS) -> Labels:
    """The labels of a model, by the names of its numbers."""
    return Labels(names=tuple(str(names[number]) for number in sorted(names)), kind=kind)
