"""A manifest with one file, as small as one can be."""

import pytest

from gindex.config import BuildConfig
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.model.layer_records import LayerRecord, UntrackedWeight
from gindex.store.files import FileRecord
from gindex.store.layout import FORMAT_VERSION, Layout
from gindex.store.manifest import Manifest
from gindex.store.records import (
    DampingRecord,
    FitRecord,
    ModelRecord,
    Operation,
    OperationKind,
    ProjectionRecord,
    SearchFile,
    SearchRecord,
    VolumeRecord,
)

LAYER = LayerRecord(
    name="0.a", group="0", source="0.a", inputs=4, outputs=3, activation_rank=2, gradient_rank=1, mean_eigenvalue=0.1
)
SOURCE = SourceFingerprint(path="c.jsonl", bytes=1, sha256="00")


@pytest.fixture
def layout(tmp_path) -> Layout:
    """An index directory with a FAISS file."""
    layout = Layout(tmp_path / "index")
    layout.search.mkdir(parents=True)
    layout.faiss(1).write_bytes(b"content")
    return layout


@pytest.fixture
def draft(layout) -> Manifest:
    """A manifest that is not committed."""
    volume = VolumeRecord(
        number=0,
        first_document=0,
        first_part=0,
        documents=2,
        parts=70,
        tokens=140,
        longest_part=2,
        segment_parts=64,
        skipped={"3": "reason"},
        lost=[],
        sources=[SOURCE],
    )
    return Manifest(
        format_version=FORMAT_VERSION,
        version=0,
        operation=Operation(kind=OperationKind.BUILD),
        gindex_version="0",
        created="2026-01-01T00:00:00+00:00",
        settings=BuildConfig(),
        sources=[SOURCE],
        model=ModelRecord(name="m", model="00", tokenizer="11", dtype="f", parameters=9, tracked_parameters=5),
        layers=[LAYER],
        untracked=[UntrackedWeight(name="w", parameters=4, reason="tëxt")],
        projection=ProjectionRecord(kind="count-sketch", seed=0, dimension=8, fingerprint="22", slices={"0": (0, 8)}),
        damping=DampingRecord(exact=0.1, index=10.0),
        fit=FitRecord(documents=1, parts=1, tokens=2, whitened_norm=None),
        volumes=[volume],
        deleted=[(4, 6)],
        deleted_documents=1,
        deleted_tokens=4,
        search=SearchRecord(
            faiss=(
                SearchFile(
                    kind="flat",
                    folds=0,
                    scale=1.0,
                    lists=0,
                    probes=0,
                    largest=(),
                    file="search/00000001.faiss",
                    parts=70,
                ),
            )
        ),
        fidelity=None,
        files=[FileRecord.of(layout.root, layout.faiss(1))],
    )
