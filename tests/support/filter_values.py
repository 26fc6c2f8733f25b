"""Values of metadata and of filters to draw, and the rule of their comparisons, written anew in plain Python."""

import math
from typing import Any

from hypothesis import strategies as st

ORDERS = ("<", "<=", ">", ">=")

characters = st.sampled_from(
    ["a", "B", "b", "\0", "%", "_", '"', "\\", "é", "字", "\U0001f600", "u0000", "\\u0000", "\n"]
)
texts = st.lists(characters, max_size=5).map("".join)
integers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**63, 2**64, 10**400]).flatmap(lambda n: st.integers(n - 2, n + 2)),
    st.sampled_from([2**53, 2**63, 2**64, 10**400]).flatmap(lambda n: st.integers(-n - 2, -n + 2)),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
literals = st.one_of(texts, integers, floats, st.booleans())
plain = st.one_of(literals, st.none())
values = st.one_of(plain, st.lists(plain, max_size=3), st.lists(st.lists(plain)), st.dictionaries(texts, plain))


def near(wanted: Any) -> st.SearchStrategy[Any]:
    """Values of all kinds, half of them those that lie beside one: equal, and next to it."""
    beside: list[Any] = [wanted, [wanted], [None, wanted], {"a": wanted}, str(wanted), [str(wanted)]]
    if not isinstance(wanted, (str, bool)):
        beside += [wanted - 1, wanted + 1, [wanted + 1]]
        try:
            same = float(wanted)
        except OverflowError:
            same = math.inf
        if math.isfinite(same):
            around = [same, math.nextafter(same, math.inf), math.nextafter(same, -math.inf)]
            beside += [value for value in around if math.isfinite(value)] + [int(same), int(same) + 1, same == 1]
    return st.one_of(st.sampled_from(beside), values)


def rule(found: Any, comparison: str, wanted: Any) -> bool:
    if isinstance(found, list):
        return any(rule(item, comparison, wanted) for item in found if not isinstance(item, list))
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (found, wanted)]
    if not (all(numbers) or type(found) is type(wanted)) or isinstance(found, dict) or found is None:
        return False
    if comparison == "like":
        return naive_like(lowered(found), lowered(wanted))
    return {
        "=": found == wanted, "<": found < wanted, "<=": found <= wanted, ">": found > wanted, ">=": found >= wanted
    }[comparison]  # fmt: skip


def lowered(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


def naive_like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(naive_like(text[start:], pattern[1:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and naive_like(text[1:], pattern[1:])
