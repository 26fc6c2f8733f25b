"""Kinds by name: the core's own and those that packages add."""

import pytest

from gindex.errors import ConfigError
from gindex.registry import Registry

KINDS = Registry("gindex.projections", "projection", {"plain": "gindex.errors:GindexError"})


def test_own_kinds_come_first_and_added_ones_follow():
    assert KINDS.names() == ("plain", "kronecker", "rademacher")
    assert KINDS.get("plain").__name__ == "GindexError"


def test_an_unknown_kind_is_refused_by_name():
    for act in (KINDS.check, KINDS.get):
        with pytest.raises(
            ConfigError, match=r"projection: expected one of plain, kronecker, rademacher, found 'dense'"
        ):
            act("dense")


def test_own_kinds_cannot_be_replaced_by_a_package():
    registry = Registry("gindex.projections", "projection", {"kronecker": "gindex.errors:GindexError"})
    assert registry.get("kronecker").__name__ == "GindexError"


def test_the_core_brings_the_first_kind():
    assert KINDS.default == "plain" == KINDS.names()[0]
