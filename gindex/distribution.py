"""What gindex is called where packages are installed from, its version, and how to get its optional packages.

The distribution is `gradient-index`: on PyPI `gindex` is another project's. Import name and command are `gindex`.
"""

import shlex
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "gradient-index"
VERSION = "0.2.0"


def install_hint(*extras: str) -> str:
    """Return the command that installs one of some extras, from where gindex itself came: PyPI, a checkout, an address.

    Args:
        extras: Names of extras, any of which will do.
    """
    return " or ".join(f"pip install {_requirement(extra)}" for extra in extras)


def package_hint(package: str) -> str:
    """Return the command that installs another package, which none of the extras brings."""
    return f"pip install {shlex.quote(package)}"


def _requirement(extra: str) -> str:
    """Return what pip is to be given, quoted for a shell."""
    address = _address()
    if address is None:
        return shlex.quote(f"{NAME}[{extra}]")
    if isinstance(address, Path):
        return f"-e {shlex.quote(f'{address}[{extra}]')}"
    return shlex.quote(f"{NAME}[{extra}] @ {address}")


def _address() -> Path | str | None:
    """Return the checkout that runs, or the address that pip installed from; None for an index of packages."""
    import json
    from importlib import metadata

    try:
        text = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # run from its sources
        root = Path(__file__).parents[1]
        return root if (root / "pyproject.toml").is_file() else None
    if text is None:
        return None
    origin = json.loads(text)
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlsplit(origin["url"]).path))
    source = origin.get("vcs_info")
    return f"{source['vcs']}+{origin['url']}@{source['commit_id']}" if source else str(origin["url"])
