"""The words of texts: what the full-text index of a document table holds of them, and what is looked for in it.

Both are brought to one form first: compatible characters are one (ａ and a, ｶﾞ and ガ), letters have no case, Latin
letters no accents, and what readers do not see or may leave out is left out. Words are what stands between anything
that is neither letter, digit nor mark. Scripts that are written without spaces are cut as Lucene does, into pairs of
neighbouring characters, and the last character by itself:

    "Python学习法" is python, 学习, 习法 and 法

A word of such a script is thus looked for as its pairs, one after another; a single character as the beginning of any.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from unicodedata import category, normalize

MAX_WORDS = 500
"""Words of a text that are looked for, the first of them."""

LONGEST_WORD = 16
"""Most characters in a row of a script without spaces that are looked for as a whole too; more are a sentence."""

_UNSPACED = (
    "\u1100-\u11ff\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u318f\u31a0-\u31bf\u31f0-\u31ff"  # CJK
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u104a-\u108f\u109a-\u109f"  # Thai, Lao, Myanmar
    "\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f\u1780-\u17d3\u17dc-\u17dd"  # more of Myanmar; Khmer
    "\u1950-\u197f\u1980-\u19cf\u1a20-\u1a7f\uaa80-\uaadf\ua000-\ua48f"  # the Tai scripts; Yi
)
_RUN = re.compile(f"[{_UNSPACED}]+")
_PIECE = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_ACCENTS = re.compile("(?<=[a-z\u00df-\u024f])[\u0300-\u036f]+")
_OPTIONAL = re.compile(  # invisible characters; Hebrew points; Arabic vowel signs and lengthening
    "[\u00ad\u200c-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u0652\u0670]+"
)


def indexed(text: str) -> str:
    """Return a text as the full-text index takes it: words with spaces between them, or ASCII as it is."""
    return text if text.isascii() else _RUN.sub(lambda run: f" {_pairs(run[0])} {run[0][-1]} ", _one_form(text))


def is_cut_in_pairs(text: str) -> bool:
    """Say whether a text has characters of a script that is written without spaces."""
    return not text.isascii() and _RUN.search(_one_form(text)) is not None


def words_of(text: str) -> list[str]:
    """Return what is looked for of a text, in order and each once, at most `MAX_WORDS`: phrases of FTS5."""
    found: dict[str, None] = {}
    for word in _one_form(text).split():
        found |= dict.fromkeys(_phrases(word))
        if len(found) >= MAX_WORDS:
            break
    return list(found)[:MAX_WORDS]


def words_in(text: str) -> Iterator[str]:
    """The words of a text in their order, with those that come again; of a script without spaces its pairs."""
    for word in _one_form(text).split():
        for piece in _PIECE.findall(word):
            yield from _pairs(piece).split() if len(piece) > 1 and _RUN.match(piece) else [piece]


def plain_words_of(text: str) -> list[str]:
    """Return the same for a full-text index that holds texts as they are, without pairs."""
    return [f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", text.lower()))][:MAX_WORDS]


def _phrases(word: str) -> Iterator[str]:
    for piece in _PIECE.findall(word):
        if not _RUN.match(piece):
            if piece.strip("_"):
                yield f'"{piece}"'
        elif len(piece) == 1:
            yield f'"{piece}"*'
        else:
            if 2 < len(piece) <= LONGEST_WORD:
                yield f'"{_pairs(piece)}"'
            yield from (f'"{pair}"' for pair in _pairs(piece).split())


def _pairs(run: str) -> str:
    return " ".join(map("".join, pairwise(run)))


def _one_form(text: str) -> str:
    """Return words with spaces between them; `_` is left in, where FTS5 divides words that a query finds in a row."""
    if not text.isascii():
        text = normalize("NFKC", text).casefold()
        text = normalize("NFC", _ACCENTS.sub("", normalize("NFD", text)))
        text = _OPTIONAL.sub("", text)
    return _between_words().sub(" ", text.lower())


@cache
def _between_words() -> re.Pattern[str]:
    r"""Return what finds characters that are no part of words; `\w` lacks the marks that are vowels in many scripts."""
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if category(chr(code)).startswith("M"))
    return re.compile(rf"(?:^|[^\w{marks}\ue000-\uf8ff]+)[{marks}]*")  # a mark alone is no word
