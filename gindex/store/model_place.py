"""Where an index's model is: what a build records of it, and where it is looked for afterwards."""

import os
from pathlib import Path

from gindex.errors import ModelError
from gindex.store.records import BaseRecord, ModelRecord


def model_place(name: str, root: Path) -> dict[str, str]:
    """What the manifest records of where a model is.

    Args:
        name: Folder or hub name, as it was given.
        root: The index directory.

    Returns:
        `folder`, its absolute path, and `relative`, that from the index; or `hub`, where it is no folder.
    """
    if not Path(name).is_dir():
        return {"hub": name}
    folder = os.path.abspath(name)
    return {"folder": folder, "relative": os.path.relpath(folder, os.path.abspath(root))}


def model_places(model: ModelRecord, root: Path) -> list[str]:
    """The places in which the model of an index is, to be tried in turn: folders that are there, or a hub name.

    Args:
        model: What the manifest says of the model. Older ones have its name alone, as it was given to the build: it is
            looked for from here, and from the folders above the index.
        root: The index directory.

    Raises:
        ModelError: None of the recorded folders is there; names them.
    """
    above = Path(os.path.abspath(root))
    if model.hub is not None:
        return [model.hub]
    if model.folder is None or model.relative is None:
        name = model.name
        tried = list(dict.fromkeys(str(folder / name) for folder in above.parents))
        return [place for place in (name, *tried) if Path(place).is_dir()] or [name]
    tried = _places(model.folder, model.relative, root)
    found = [place for place in tried if Path(place).is_dir()]
    if not found:
        raise ModelError(
            field=root,
            expected=f"the model that it was built with in {' or '.join(tried)}",
            found="no such folder",
            remedy="name its place with `model`",
        )
    return found


def base_places(base: BaseRecord, root: Path) -> list[str]:
    """The places in which the base of an index's adapter is, likewise; none where no recorded folder is there.

    Args:
        base: What the manifest says of it.
        root: The index directory.
    """
    if base.folder is None or base.relative is None:
        return [base.hub or base.name]
    return [place for place in _places(base.folder, base.relative, root) if Path(place).is_dir()]


def _places(folder: str, relative: str, root: Path) -> list[str]:
    return list(dict.fromkeys([folder, os.path.normpath(Path(os.path.abspath(root)) / relative)]))
