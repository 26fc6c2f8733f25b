"""What an index is, as plain values for people and programs."""

from dataclasses import asdict
from typing import Any

from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.reader import StoreSpec
from gindex.vectors.codes import code_bytes


def describe(layout: Layout, manifest: Manifest, vectors: StoreSpec) -> dict[str, Any]:
    """Return what `gindex info` prints."""
    ranks = [(layer.activation_rank, layer.gradient_rank) for layer in manifest.layers]
    return {
        "path": str(layout.root),
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
        "model": manifest.model,
        "tracked_layers": len(manifest.layers),
        "layer_groups": len(vectors.slices),
        "untracked_weights": len(manifest.untracked),
        "coverage": manifest.coverage.record(),
        "dimension": vectors.dimension,
        "bits": vectors.bits,
        "bytes_per_part": code_bytes(vectors.dimension, vectors.bits) + 4 * len(vectors.slices) + 4,
        "projection": {key: manifest.projection[key] for key in ("kind", "seed", "fingerprint")},
        "curvature": manifest.settings["curvature"]["curvature"],
        "damping_scale": manifest.damping["exact"],
        "index_damping": manifest.damping["index"],
        "fit": manifest.fit,
        "ranks": {"activation": _spread([a for a, _ in ranks]), "gradient": _spread([g for _, g in ranks])},
        "search_index": manifest.search,
        "transform": None if manifest.transform is None else asdict(manifest.transform),
        "fidelity": manifest.fidelity,
        "segments": vectors.segments,
        "disk_bytes": _disk(manifest),
    }


def _disk(manifest: Manifest) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for file in manifest.files:
        folder, *rest = file.path.split("/")
        name = folder if folder != "volumes" else "documents" if rest[-1] == "documents.sqlite" else "vectors"
        sizes[name] = sizes.get(name, 0) + file.bytes
    return sizes


def _spread(values: list[int]) -> dict[str, int]:
    return {"least": min(values), "most": max(values)}
