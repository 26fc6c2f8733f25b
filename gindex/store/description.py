"""What an index is, as plain values for people and programs."""

from typing import Any

from gindex.store.manifest import Manifest
from gindex.store.records import SearchRecord
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.values import values_of
from gindex.store.vectors import code_bytes


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """What `gindex info` prints."""
    manifest = snapshot.manifest
    specs = [volume_spec(manifest, volume) for volume in manifest.volumes]
    vectors = specs[0]
    ranks = [(layer.activation_rank, layer.gradient_rank) for layer in manifest.layers]
    return {
        "path": str(snapshot.root),
        "format_version": manifest.format_version,
        "version": manifest.version,
        "volumes": len(manifest.volumes),
        "deleted_documents": manifest.deleted_documents,
        "deleted_parts": manifest.deleted_parts,
        "gindex_version": manifest.gindex_version,
        "created": manifest.created,
        **manifest.documents,
        "skipped_parts": len(manifest.skipped),
        "skipped": list(manifest.skipped.values()),
        "model": values_of(manifest.model),
        "task": manifest.task,
        "tracked_layers": len(manifest.layers),
        "layer_groups": len(vectors.slices),
        "untracked_weights": len(manifest.untracked),
        "coverage": manifest.coverage.record(),
        "dimension": vectors.dimension,
        "bits": vectors.bits,
        "bytes_per_part": code_bytes(vectors.dimension, vectors.bits) + 4 * len(vectors.slices) + 4,
        "projection": {key: getattr(manifest.projection, key) for key in ("kind", "seed", "fingerprint")},
        "curvature": manifest.settings.curvature.curvature,
        "damping_scale": manifest.damping.exact,
        "index_damping": manifest.damping.index,
        "fit": values_of(manifest.fit),
        "ranks": {"activation": _spread([a for a, _ in ranks]), "gradient": _spread([g for _, g in ranks])},
        "search_index": _search_index(manifest.search),
        "transform": values_of(manifest.search.transform),
        "fidelity": values_of(manifest.fidelity),
        "indexed_fields": list(manifest.indexed_fields or ()),
        "segments": sum(spec.segments for spec in specs),
        "disk_bytes": _disk(manifest),
    }


def _search_index(search: SearchRecord) -> dict[str, Any]:
    """What is to be known of it: how its largest file is made, and how many there are."""
    return {
        **values_of(search.main),
        "files": len(search.faiss),
        "parts": search.parts,
        "recall": values_of(search.recall),
        "transform": values_of(search.transform),
    }


_KINDS = {"documents.sqlite": "documents", "fields": "fields"}
"""What files of a volume are counted as, by the beginning of their name; all others as vectors."""


def _disk(manifest: Manifest) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for file in manifest.files:
        folder, *rest = file.path.split("/")
        name = folder if folder != "volumes" else _KINDS.get(rest[-1].partition("-")[0], "vectors")
        sizes[name] = sizes.get(name, 0) + file.bytes
    return sizes


def _spread(values: list[int]) -> dict[str, int]:
    return {"least": min(values), "most": max(values)}
