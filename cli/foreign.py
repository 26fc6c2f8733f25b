"""Another project's package of our name: what is imported is made sure to be ours.

PyPI has another project's distribution `gindex`, with the same command and import name. Where both are installed,
either may have overwritten files of the other. So nothing of `gindex` is imported before that is ruled out.
"""

import sys

MISSING_DEPENDENCY = 3
"""Exit code of `gindex.errors.MissingDependencyError`, which cannot be imported yet."""


def refuse_foreign() -> None:
    """End the process where another project's package is installed, and say which."""
    other = foreign_distribution()
    if other is not None:
        sys.stderr.write(
            f"gindex: expected no other project's package of this name, found {other}, which shares files with "
            "gradient-index; pip uninstall gindex, then install gradient-index again\n"
        )
        sys.exit(MISSING_DEPENDENCY)


def foreign_distribution() -> str | None:
    """Name and version of an installed distribution `gindex` that is not ours; None where there is none."""
    from importlib import metadata  # takes longer to load than all else here

    for found in metadata.distributions(name="gindex"):
        if not any(script.value.startswith("gindex_cli.") for script in found.entry_points):  # our own former name
            return f"gindex {found.version}"
    return None
