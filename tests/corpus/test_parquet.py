"""Parquet: values outside the range of Python's types are written out, and nothing else stands for what is there."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gindex.config import CorpusConfig
from gindex.corpus.readers import read_corpus
from gindex.errors import CorpusError


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "c.parquet"


def write(path: Path, values: pa.Array, **options: Any) -> None:
    pq.write_table(pa.table({"text": ["word"] * len(values), "v": values}), path, **options)


def read(path: Path) -> list[Any]:
    return [document.metadata.get("v") for document in read_corpus([str(path)], CorpusConfig())]


def error_of(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    return str(caught.value)


DAYS = date(2020, 1, 2).toordinal() - date(1970, 1, 1).toordinal()


@pytest.mark.parametrize(
    ("kind", "values", "written"),
    [
        # One value beyond Python's range changes no other of its column. Expected: by hand, or from the proleptic
        # Gregorian calendar, whose 400 years have 146,097 days.
        (pa.date32(), [DAYS, DAYS + 146_097 * 20, None], ["2020-01-02", "10020-01-02", None]),
        (pa.date32(), [DAYS - 146_097 * 6, DAYS], ["-0380-01-02", "2020-01-02"]),
        (pa.date32(), [-(2**31)], ["-5877641-06-23"]),
        (pa.date64(), [(DAYS + 146_097 * 20) * 86_400_000], ["10020-01-02"]),
        (pa.timestamp("s"), [86_400 * (DAYS + 146_097 * 20) + 3661], ["10020-01-02T01:01:01.000"]),
        (pa.timestamp("ms"), [5, 86_400_000 * (DAYS - 146_097 * 6) + 7], ["1970-01-01T00:00:00.005000",
                                                                          "-0380-01-02T00:00:00.007"]),
        (pa.timestamp("us", "Europe/Berlin"), [0, 86_400_000_000 * (DAYS + 146_097 * 20)],
         ["1970-01-01T01:00:00+01:00", "10020-01-02T00:00:00.000000+00:00"]),
        (pa.timestamp("ns"), [1], ["1970-01-01T00:00:00.000000001"]),
        (pa.duration("s"), [61, 10**9 * 86_400 * 10 + 61], ["0:01:01", "10000000000 days, 0:01:01"]),
        (pa.duration("ms"), [-1 - 10**9 * 86_400_000], ["-1000000001 days, 23:59:59.999"]),
        (pa.time64("ns"), [1, 86_399 * 10**9, None], ["00:00:00.000000001", "23:59:59.000000000", None]),
    ],
)  # fmt: skip
def test_values_beyond_pythons_range(path, kind, values, written):
    write(path, pa.array(values, kind))
    assert read(path) == written


def test_values_within_other_values(path):
    far = DAYS + 146_097 * 20
    kind = pa.list_(pa.struct([("day", pa.date32()), ("of", pa.map_(pa.string(), pa.timestamp("ms")))]))
    values = [[{"day": far, "of": [("k", 86_400_000 * far)]}, {"day": DAYS, "of": None}], [], None]
    write(path, pa.array(values, kind))
    assert read(path) == [
        [{"day": "10020-01-02", "of": [["k", "10020-01-02T00:00:00.000"]]}, {"day": "2020-01-02", "of": None}],
        [],
        None,
    ]


def test_values_by_reference(path):
    write(path, pa.array([DAYS + 146_097 * 20, DAYS, None], pa.date32()).dictionary_encode())
    assert read(path) == ["10020-01-02", "2020-01-02", None]


def test_times_of_96_bits_do_not_wrap(path):
    """In nanoseconds, the last second of the year 9999 would be one of 1816."""
    write(path, pa.array([253_402_300_799, 0], pa.timestamp("s")), use_deprecated_int96_timestamps=True)
    assert read(path) == ["9999-12-31T23:59:59", "1970-01-01T00:00:00"]


def test_equal_names_are_refused(path):
    columns = [pa.array(["word"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "v", "v"]), path)
    assert f"{path}: record 1: expected fields whose names differ, found 'v' twice" in error_of(path)
    twice = pa.StructArray.from_arrays(columns[1:], names=["a", "a"])
    outer = pa.StructArray.from_arrays([twice], names=["s"])
    write(path, pa.ListArray.from_arrays([0, 1], outer))
    assert "found 'v.element.s.a' twice" in error_of(path)


def test_infinite_numbers_are_text(path):
    write(path, pa.array([1.0, float("nan"), float("inf"), -float("inf")]))
    assert read(path) == [1.0, None, "Infinity", "-Infinity"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_every_type(path, kind):
    pq.write_table(pa.table({"text": pa.array(["one", "two"], pa.string()).cast(kind)}), path)
    assert [d.text for d in read_corpus([str(path)], CorpusConfig())] == ["one", "two"]


def test_text_that_is_null(path):
    pq.write_table(pa.table({"text": ["one", None]}), path)
    assert "record 2: expected a string in the text field 'text', found null" in error_of(path)
