"""Which FAISS index serves which corpus.

    flat       float32, whole vectors: exact, for small corpora
    fp16       float16, folded to fit
    gpu        the same, searched on all GPUs together, which are fastest at it; on the CPU where there is none
    rabitq     the signs of the leading coordinates of every slice (RaBitQ): candidates for re-scoring, and beside them
               the parts of largest norm, whose scores it errs in most; the default on a CPU
    ivf        the parts of largest norm in one list that is always searched, the rest in lists around centres of
               their directions, a share of which is searched; codes as of rabitq

Raw inner products defeat an IVF whose lists hold vectors of very different norms: the largest norms win most
searches whatever their direction, so they are kept apart.

Axes: N parts, D dimension.

Source: RaBitQ, Gao and Long 2024, arXiv:2405.12497.
"""

from dataclasses import dataclass, fields

from gindex.errors import ConfigError, CorruptStoreError
from gindex.store.layout import REMEDY
from gindex.store.records import CentresRecord, SearchFile

FLAT_BYTES = 64 << 20
"""Largest float32 index that is held without loss."""

FP16_BYTES = 512 << 20
"""Size above which the vectors of an fp16 index are folded again, up to `MAX_FOLDS` times."""

RABITQ_BYTES = 128 << 20
"""The same of a rabitq index, at an eighth of a byte a coordinate."""

IVF_PARTS = 32_000_000
"""Corpus from which `ivf` is chosen: below it every code is read in a second or two, and no recall is lost."""

CENTRE_BYTES = 64 << 20
"""Most bytes of the centres of an ivf index, as float32: finding the list of a part costs no more in a larger one."""

GROWTH = 8
"""How many times as many parts as its centres were found among an ivf index may have before they are found anew."""

PROBED = 4
"""An ivf index searches one in so many of its lists."""

MAX_FOLDS = 3

CODE_FACTORS = 8
"""Bytes of the factors that RaBitQ keeps beside the signs."""

TYPES = {
    "flat": "IndexFlatIP",
    "fp16": "IndexScalarQuantizer",
    "gpu": "IndexScalarQuantizer",
    "rabitq": "IndexRaBitQ",
    "ivf": "IndexIVFRaBitQ",
}
"""FAISS's class of each kind."""

KINDS = tuple(TYPES)


@dataclass(frozen=True, kw_only=True)
class FaissSpec:
    """How the FAISS index is made from the stored vectors.

    Attributes:
        kind: One of `KINDS`.
        folds: How often vectors are halved first: those of fp16 and gpu by adding the halves of every slice, which is
            the projection to half of the dimension; those of rabitq and ivf by dropping the second half, which leaves
            their signs as they are.
        scale: What vectors are multiplied by, so that float16 holds them.
        lists: Lists of an ivf index, apart from that of the largest norms; 0 for the other kinds.
        probes: Lists of an ivf index that a query searches.
        largest: The parts of largest norm, the largest first, which are candidates of every query; none where the
            index is lossless. Numbered from the first part of the file.
        centres: What is to be known of the centres of an ivf index to use them again.
    """

    kind: str
    folds: int
    scale: float
    lists: int = 0
    probes: int = 0
    largest: tuple[int, ...] = ()
    centres: CentresRecord | None = None

    @property
    def unit(self) -> float:
        """What its scores are in the place of one, on the average: those of the stored vectors are 1.

        Adding halves keeps inner products but for noise, and the leading coordinates have their share of them.
        """
        return 0.5**self.folds if self.kind in ("rabitq", "ivf") else self.scale**2

    @property
    def lossless(self) -> bool:
        """Whether its scores are those of the stored vectors up to rounding."""
        return self.kind == "flat" and self.folds == 0

    def part_bytes(self, dimension: int) -> int:
        """Bytes of a part whose stored vector has D dimensions."""
        folded = dimension >> self.folds
        if self.kind in ("rabitq", "ivf"):
            return folded // 8 + CODE_FACTORS + (8 if self.kind == "ivf" else 0)
        return folded * (4 if self.kind == "flat" else 2)


def choose_spec(parts: int, dimension: int, largest: float, kind: str = "auto") -> FaissSpec:
    """Choose how to index N parts of D dimensions whose largest coordinate is `largest`.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind == "auto":
        small = parts * dimension * 4 <= FLAT_BYTES
        kind = "flat" if small else "rabitq" if parts < IVF_PARTS else "ivf"
    if kind == "flat":
        return FaissSpec(kind="flat", folds=0, scale=1.0)
    scale = 1.0 / largest if largest > 0 else 1.0
    if kind in ("fp16", "gpu"):
        return FaissSpec(kind=kind, folds=_folds(parts * dimension * 2, FP16_BYTES), scale=scale)
    folds = _folds(parts * dimension // 8, RABITQ_BYTES)
    if kind == "rabitq":
        return FaissSpec(kind="rabitq", folds=folds, scale=1.0)
    if kind == "ivf":
        most = CENTRE_BYTES // (4 * (dimension >> folds))
        lists = max(1, min(int(4 * parts**0.5) // 8 * 8, most))
        return FaissSpec(kind="ivf", folds=folds, scale=1.0, lists=lists, probes=max(1, lists // PROBED))
    raise ConfigError(field="type", expected=f"auto, {', '.join(KINDS)}", found=repr(kind))


def kind_of_piece(kind: str, parts: int, total: int, *, has_lists: bool = False) -> str:
    """The kind of a FAISS file of some of all parts, beside others of a kind.

    Beside flat ones it is what suits the whole; lists are for a file that is large enough by itself, and are kept.

    Args:
        kind: That of the others.
        parts: How many parts it is to hold.
        total: How many there are.
        has_lists: Whether one of the files that it takes the place of is an ivf index.
    """
    if kind == "flat":
        kind = "auto" if total < IVF_PARTS else "ivf"
    if has_lists:
        return "ivf"
    return "rabitq" if kind == "ivf" and parts < IVF_PARTS else kind


def spec_of(file: SearchFile) -> FaissSpec:
    """The spec that a manifest records of a FAISS file.

    Raises:
        CorruptStoreError: It is of no kind that is known.
    """
    if file.kind not in KINDS:
        raise CorruptStoreError(
            field="manifest", expected="a kind of FAISS index", found=repr(file.kind), remedy=REMEDY
        )
    return FaissSpec(**{field.name: getattr(file, field.name) for field in fields(FaissSpec)})


def search_file(spec: FaissSpec, file: str, parts: int) -> SearchFile:
    """What a manifest records of a FAISS file.

    Args:
        spec: How it was made.
        file: Where it is, relative to the index's root.
        parts: How many parts it holds.
    """
    return SearchFile(**vars(spec), file=file, parts=parts)


def _folds(size: int, limit: int) -> int:
    return next(n for n in range(MAX_FOLDS + 1) if size >> n <= limit or n == MAX_FOLDS)
