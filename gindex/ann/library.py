"""FAISS itself: the module, which is loaded here alone, and the files that it writes and reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gindex.distribution import install_hint
from gindex.errors import CorruptStoreError, MissingDependencyError, StoreError
from gindex.files.atomic import publish
from gindex.files.open_files import check_shortage
from gindex.store.layout import REMEDY


def import_faiss() -> Any:
    """Import FAISS.

    Raises:
        MissingDependencyError: It is not installed; names the extras.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            field="FAISS", expected="it to be installed", found=f"none ({error})", remedy=install_hint("cpu", "gpu")
        ) from error
    return faiss


def write_index(faiss: Any, index: Any, path: Path) -> None:
    """Publish an index as a file.

    Raises:
        StoreError: It cannot be written.
    """
    with translated_errors(path):
        publish(path, lambda partial: faiss.write_index(index, str(partial)))


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn errors of FAISS and of the system while a file is written into a StoreError.

    Raises:
        StoreError: The file cannot be written.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise StoreError(
            field=path,
            expected="to write the FAISS index",
            found=str(error)[-200:],
            remedy="check free space and permissions",
        ) from error


def read_index(faiss: Any, path: Path, flags: int = 0) -> Any:
    """An index in a file.

    Raises:
        CorruptStoreError: The file is missing, or holds no index.
        ResourceError: The system lets no more files be opened or mapped.
    """
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        check_shortage(error, path)
        raise CorruptStoreError(field=path, expected="a FAISS index", found=str(error)[:200], remedy=REMEDY) from error
