"""Stored vectors: what any Zarr library reads is what was written, and damage is never read as data."""

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.config import BIT_WIDTHS
from gindex.errors import CorruptStoreError
from gindex.store import vectors as store
from gindex.store.files import read_json
from gindex.store.layout import VolumeLayout
from gindex.store.reader import VectorReader
from gindex.store.rows import chunk_checksums, combined
from gindex.store.vectors import CodedVectors, VectorSpec, VectorWriter, VolumeReader, choose_segment_parts
from gindex.vectors.codes import encode

FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "format.md"
ARRAYS = ("codes", "scales", "self_influence")


@contextmanager
def chunks_of(rows: int) -> Iterator[None]:
    """Small chunks, so that small arrays have several."""
    with mock.patch.object(store, "CHUNK_ROWS", rows):
        yield


def make_spec(parts: int, segment_parts: int, bits: int, slices: tuple[tuple[int, int], ...]) -> VectorSpec:
    return VectorSpec(parts=parts, segment_parts=segment_parts, dimension=slices[-1][1], bits=bits, slices=slices)


def write_store(layout: VolumeLayout, spec: VectorSpec, seed: int = 0) -> CodedVectors:
    """Write random vectors segment by segment and return them."""
    generator = torch.Generator().manual_seed(seed)
    codes, scales = encode(torch.randn(spec.parts, spec.dimension, generator=generator), spec.bits, spec.slices)
    everything = CodedVectors(
        codes=codes.numpy(), scales=scales.numpy(), self_influence=np.arange(1, spec.parts + 1, dtype=np.float32)
    )
    writer = VectorWriter(layout, spec)
    for number in range(spec.segments):
        writer.write(number, rows_of(everything, spec.segment_range(number)), {})
    return everything


def rows_of(vectors: CodedVectors, parts: range) -> CodedVectors:
    return CodedVectors(**{name: getattr(vectors, name)[parts.start : parts.stop] for name in ARRAYS})


def decode_by_hand(vectors: CodedVectors, spec: VectorSpec) -> npt.NDArray[np.float32]:
    """Reference: one coordinate at a time, in plain Python."""
    out = np.zeros((spec.parts, spec.dimension), np.float32)
    per_byte = 8 // spec.bits if spec.bits < 16 else 1
    for part, coordinate in itertools.product(range(spec.parts), range(spec.dimension)):
        if spec.bits == 16:
            level = np.float32(vectors.codes[part, coordinate])
        else:
            byte = int(vectors.codes[part, coordinate // per_byte])
            code = byte >> coordinate % per_byte * spec.bits & 2**spec.bits - 1
            level = np.float32(2 * code - (2**spec.bits - 1))
        position = next(n for n, (start, stop) in enumerate(spec.slices) if start <= coordinate < stop)
        out[part, coordinate] = level * vectors.scales[part, position]
    return out


def read_everything(layout: VolumeLayout, spec: VectorSpec) -> None:
    reader, ordinals = VectorReader([VolumeReader(layout, spec)]), np.arange(spec.parts)
    reader.decoded(ordinals)
    reader.self_influence(ordinals)


@st.composite
def specs(draw: st.DrawFn) -> tuple[VectorSpec, int]:
    chunk_rows = draw(st.integers(1, 5))
    widths = draw(st.lists(st.sampled_from([8, 16]), min_size=1, max_size=3))
    slices = tuple(itertools.pairwise(np.cumsum([0, *widths])))
    spec = make_spec(
        draw(st.integers(1, 30)),
        chunk_rows * draw(st.integers(1, 4)),
        draw(st.sampled_from(BIT_WIDTHS)),
        tuple((int(start), int(stop)) for start, stop in slices),
    )
    return spec, chunk_rows


@settings(max_examples=40, deadline=None)
@given(specs(), st.randoms(use_true_random=False))
def test_zarr_and_reader_see_what_was_written(spec_and_chunk, random):
    """Partial last chunks and segments, segments larger and smaller than the corpus, any order, repetitions."""
    spec, chunk_rows = spec_and_chunk
    with TemporaryDirectory() as folder, chunks_of(chunk_rows):
        layout = VolumeLayout(Path(folder))
        written = write_store(layout, spec)
        group = zarr.open(str(layout.vectors), mode="r")
        for name in ARRAYS:
            np.testing.assert_array_equal(group[name][:], getattr(written, name))
        ordinals = np.array([random.randrange(spec.parts) for _ in range(2 * spec.parts)])
        reader = VectorReader([VolumeReader(layout, spec)])
        # Equal, not close: both multiply the same two float32 once.
        expected = decode_by_hand(written, spec)
        np.testing.assert_array_equal(reader.decoded(ordinals).numpy(), expected[ordinals])
        np.testing.assert_array_equal(reader.self_influence(ordinals), written.self_influence[ordinals])


@pytest.mark.parametrize("parts", [1, 63, 64, 65, 200])
def test_real_chunks(tmp_path, parts):
    layout, spec = VolumeLayout(tmp_path), make_spec(parts, 128, 4, ((0, 8), (8, 24)))
    written = write_store(layout, spec)
    np.testing.assert_array_equal(zarr.open(str(layout.vectors), mode="r")["codes"][:], written.codes)
    decoded = VectorReader([VolumeReader(layout, spec)]).decoded(np.arange(parts))
    np.testing.assert_array_equal(decoded.numpy(), decode_by_hand(written, spec))


@pytest.mark.parametrize("bits", [bits for bits in BIT_WIDTHS if bits < 16])
def test_the_code_on_the_format_page_decodes(tmp_path, monkeypatch, bits):
    """A stranger has zarr, numpy and docs/format.md, and nothing of gindex."""
    layout, spec = VolumeLayout(tmp_path), make_spec(70, 64, bits, ((0, 8), (8, 24)))
    written = write_store(layout, spec)
    (code,) = re.findall(r"```python\n(.*?)```", FORMAT_PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"zarr": zarr, "np": np}
    exec(code, names)
    # The page computes in float64 and multiplies once: equal after rounding to float32.
    np.testing.assert_array_equal(names["vectors"].astype(np.float32), decode_by_hand(written, spec))


def test_format_is_zarr_3_with_checksums_and_one_shard_a_segment(tmp_path):
    layout, spec = VolumeLayout(tmp_path), make_spec(200, 64, 1, ((0, 16),))
    write_store(layout, spec)
    for name in ARRAYS:
        metadata = json.loads((layout.vectors / name / "zarr.json").read_text())
        assert metadata["zarr_format"] == 3
        (sharding,) = metadata["codecs"]
        assert sharding["name"] == "sharding_indexed"
        assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "crc32c"]
        assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
        assert metadata["chunk_grid"]["configuration"]["chunk_shape"][0] == 64
        assert sum(path.is_file() for path in (layout.vectors / name / "c").rglob("*")) == spec.segments == 4
    assert not layout.staging.exists() or not any(layout.staging.iterdir())


@settings(max_examples=30, deadline=None)
@given(st.lists(specs(), min_size=2, max_size=3), st.sampled_from(BIT_WIDTHS), st.randoms(use_true_random=False))
def test_volumes_are_read_as_one(drawn, bits, random):
    """Reference: zarr's own reading of each volume, one after the other."""
    with TemporaryDirectory() as folder:
        readers, expected = [], {name: [] for name in ARRAYS}
        for number, (drawn_spec, chunk_rows) in enumerate(drawn):
            spec = make_spec(drawn_spec.parts, drawn_spec.segment_parts, bits, ((0, 8), (8, 24)))
            layout = VolumeLayout(Path(folder, str(number)))
            with chunks_of(chunk_rows):
                write_store(layout, spec, seed=number)
                readers.append(VolumeReader(layout, spec))
            group = zarr.open(str(layout.vectors), mode="r")
            for name in ARRAYS:
                expected[name].append(group[name][:])
        reader = VectorReader(readers)
        ordinals = np.array([random.randrange(reader.spec.parts) for _ in range(2 * reader.spec.parts)])
        coded = reader.stored(ordinals)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(coded, name), np.concatenate(expected[name])[ordinals])
        covered = [ordinal for n in range(reader.spec.segments) for ordinal in reader.spec.segment_range(n)]
        assert covered == list(range(reader.spec.parts))


@pytest.mark.parametrize("parts", [1, 1000, 1025, 100_000, 10_000_000])
@pytest.mark.parametrize("row_bytes", [1, 2048, 1 << 26])
def test_segments_are_whole_chunks_of_bounded_size(parts, row_bytes):
    segment = choose_segment_parts(parts, row_bytes)
    assert segment % store.CHUNK_ROWS == 0 and segment > 0
    assert segment == store.CHUNK_ROWS or segment * row_bytes <= store.SHARD_BYTES


@pytest.mark.parametrize("name", ARRAYS)
def test_every_flipped_byte_is_found(tmp_path, name):
    """Each byte of a shard in turn: padding, checksums and the shard's index included."""
    layout, spec = VolumeLayout(tmp_path), make_spec(7, 8, 2, ((0, 8),))
    with chunks_of(4):
        write_store(layout, spec)
        path = spec.arrays[name].shard_path(layout.vectors / name, 0)
        content = path.read_bytes()
        for position in range(len(content)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
            with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
                read_everything(layout, spec)
        path.write_bytes(content)
        read_everything(layout, spec)


@pytest.mark.parametrize("name", ARRAYS)
def test_every_truncation_is_found(tmp_path, name):
    layout, spec = VolumeLayout(tmp_path), make_spec(7, 8, 2, ((0, 8),))
    with chunks_of(4):
        write_store(layout, spec)
        path = spec.arrays[name].shard_path(layout.vectors / name, 0)
        content = path.read_bytes()
        for length in range(len(content)):
            path.write_bytes(content[:length])
            with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
                read_everything(layout, spec)
        path.write_bytes(content + b"\0")
        with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
            read_everything(layout, spec)


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_shard_is_never_zeros(tmp_path, name):
    layout, spec = VolumeLayout(tmp_path), make_spec(70, 64, 1, ((0, 8),))
    write_store(layout, spec)
    path = spec.arrays[name].shard_path(layout.vectors / name, 1)
    path.unlink()
    with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
        read_everything(layout, spec)


@pytest.mark.parametrize("ordinal", [-1, 70, 10_000])
def test_rows_that_are_not_there(tmp_path, ordinal):
    layout, spec = VolumeLayout(tmp_path), make_spec(70, 64, 1, ((0, 8),))
    write_store(layout, spec)
    reader = VectorReader([VolumeReader(layout, spec)])
    reader.decoded(np.arange(70))  # every chunk has been compared
    with pytest.raises(CorruptStoreError, match=f"expected rows from 0 to 69, found 3 to|found {ordinal:,} to"):
        reader.decoded(np.array([3, ordinal]))


def test_shard_index_that_points_past_the_end(tmp_path):
    """A consistent index, but no chunk where it points: the checksum of nothing must not pass for a match."""
    layout, spec = VolumeLayout(tmp_path), make_spec(7, 64, 2, ((0, 8),))
    write_store(layout, spec)
    path = spec.arrays["scales"].shard_path(layout.vectors / "scales", 0)
    entry = np.array([1 << 20, 64 * 4 + 4], "<u8").tobytes()
    path.write_bytes(path.read_bytes()[:-20] + entry + google_crc32c.value(entry).to_bytes(4, "little"))
    with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
        read_everything(layout, spec)


def test_finished_segments_are_known_and_damaged_ones_are_to_be_written_again(tmp_path):
    layout, spec = VolumeLayout(tmp_path), make_spec(200, 64, 1, ((0, 8),))
    write_store(layout, spec)
    writer = VectorWriter(layout, spec)
    assert all(writer.finished(number) for number in range(4))
    layout.segment(1).unlink()
    path = spec.arrays["codes"].shard_path(layout.vectors / "codes", 2)
    path.write_bytes(path.read_bytes().replace(b"\0", b"\1", 1))
    spec.arrays["scales"].shard_path(layout.vectors / "scales", 3).unlink()
    assert [writer.finished(number) is not None for number in range(4)] == [True, False, False, False]


@pytest.mark.parametrize("name", ARRAYS)
def test_shard_of_another_store_is_refused(tmp_path, name):
    """Of the same shape, so whole in itself: only the checksum of its chunks, in the manifest, tells it apart."""
    spec = make_spec(70, 64, 2, ((0, 8),))
    layout, other = VolumeLayout(tmp_path / "one"), VolumeLayout(tmp_path / "other")
    write_store(layout, spec)
    paths = {n: rows.shard_path(layout.vectors / n, 0) for n, rows in spec.arrays.items()}
    recorded = {path: combined(chunk_checksums(path, spec.arrays[n])) for n, path in paths.items()}
    everything = write_store(other, spec, seed=1)
    everything.self_influence[:] += 1
    VectorWriter(other, spec).write(0, rows_of(everything, range(64)), {})
    reader = VectorReader([VolumeReader(layout, spec, recorded)])
    reader.decoded(np.arange(3)), reader.self_influence(np.arange(3))
    paths[name].write_bytes(spec.arrays[name].shard_path(other.vectors / name, 0).read_bytes())
    reader = VectorReader([VolumeReader(layout, spec, recorded)])
    with pytest.raises(CorruptStoreError, match=f"{re.escape(str(paths[name]))}: .*found another one"):
        reader.decoded(np.arange(3)), reader.self_influence(np.arange(3))


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_failing_segment_is_not_published_and_can_be_written_again(tmp_path, monkeypatch, failing):
    layout, spec = VolumeLayout(tmp_path), make_spec(70, 64, 1, ((0, 8),))
    everything = write_store(layout, spec)
    whole = {path: path.read_bytes() for path in layout.vectors.rglob("*") if path.is_file()}
    layout.segment(1).unlink()
    calls = itertools.count(1)
    publish = store.publish_written

    def fail(written: Path, path: Path) -> None:
        if next(calls) == failing:
            raise OSError("no space")
        publish(written, path)

    writer, last = VectorWriter(layout, spec), rows_of(everything, spec.segment_range(1))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(store, "publish_written", fail)
        writer.write(1, last, {})
    assert writer.finished(1) is None
    written = writer.write(1, last, {65: "reason"})
    assert writer.finished(1) == written and read_json(layout.segment(1))["skipped"] == {"65": "reason"}
    assert {path: path.read_bytes() for path in layout.vectors.rglob("*") if path.is_file()} == whole


def test_listed_checksums_are_used_and_not_needed(tmp_path):
    """With the segment's record, a chunk that was written anew with a checksum that fits is found; without it, too."""
    layout, spec = VolumeLayout(tmp_path), make_spec(70, 64, 2, ((0, 8),))
    with chunks_of(4):
        written = write_store(layout, spec)
        paths = {name: rows.shard_path(layout.vectors / name, 0) for name, rows in spec.arrays.items()}
        recorded = {path: combined(chunk_checksums(path, spec.arrays[name])) for name, path in paths.items()}

        def codes(part: int) -> npt.NDArray[np.generic]:
            return VectorReader([VolumeReader(layout, spec, recorded)]).coded(np.array([part]))[0].numpy()

        content = paths["codes"].read_bytes()
        other = bytes(8) + google_crc32c.value(bytes(8)).to_bytes(4, "little")  # four rows of two bytes
        paths["codes"].write_bytes(content[: 15 * 12] + other + content[16 * 12 :])
        np.testing.assert_array_equal(codes(59), written.codes[[59]])  # of another chunk
        with pytest.raises(CorruptStoreError, match=r"codes/c/0/0: expected chunk 15 of .* found another one"):
            codes(60)
        layout.segment(0).write_text("{")
        with pytest.raises(CorruptStoreError, match=r"codes/c/0/0: .*found another one"):
            codes(59)
        paths["codes"].write_bytes(content)
        np.testing.assert_array_equal(codes(60), written.codes[[60]])
