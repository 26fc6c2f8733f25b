"""gindex: which training documents made a language model say something.

    >>> from gindex import GradientIndex
    >>> index = GradientIndex.open("runs/jargon")
    >>> index.search("A race condition is", completion=" a bug", k=3)

Importing the package loads neither torch nor FAISS; the first name taken from it does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gindex.distribution import VERSION as __version__  # noqa: F401, N811

if TYPE_CHECKING:
    from gindex.check.result import ModelCheck as ModelCheck
    from gindex.check.run import check_model as check_model
    from gindex.config import BuildConfig as BuildConfig
    from gindex.config import CorpusConfig as CorpusConfig
    from gindex.config import CurvatureConfig as CurvatureConfig
    from gindex.config import ModelConfig as ModelConfig
    from gindex.config import VectorConfig as VectorConfig
    from gindex.errors import GindexError as GindexError
    from gindex.index import GradientIndex as GradientIndex
    from gindex.queries.query import FailedQuery as FailedQuery
    from gindex.queries.query import Query as Query
    from gindex.search.result import Hit as Hit
    from gindex.search.result import SearchResult as SearchResult

_HOME = {
    "BuildConfig": "gindex.config",
    "CorpusConfig": "gindex.config",
    "CurvatureConfig": "gindex.config",
    "FailedQuery": "gindex.queries.query",
    "GindexError": "gindex.errors",
    "GradientIndex": "gindex.index",
    "Hit": "gindex.search.result",
    "ModelConfig": "gindex.config",
    "Query": "gindex.queries.query",
    "ModelCheck": "gindex.check.result",
    "SearchResult": "gindex.search.result",
    "VectorConfig": "gindex.config",
    "check_model": "gindex.check.run",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gindex' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
