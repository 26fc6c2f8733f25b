"""The documents of a corpus that are taken, where not all are: its beginning, or a draw."""

import logging
from collections.abc import Iterator
from itertools import islice
from random import Random

from gindex.corpus.records import Document
from gindex.errors import CorpusChangedError

logger = logging.getLogger(__name__)


def first(documents: Iterator[Document], count: int) -> Iterator[Document]:
    """Yield the first `count` documents; nothing after them is read. Says how many there were, where that is fewer."""
    taken = 0
    for document in islice(documents, count):
        taken += 1
        yield document
    if taken < count:
        logger.warning(
            "all %s documents taken: the corpus has fewer than the `limit` of %s", f"{taken:,}", f"{count:,}"
        )
    else:
        logger.warning("the first %s documents taken, by `limit`; what follows is not read", f"{taken:,}")


def drawn(documents: Iterator[Document], again: Iterator[Document], count: int, seed: int) -> Iterator[Document]:
    """Yield `count` documents in their order, every set of so many as likely as any other.

    The corpus is read twice: to count its documents, and to take each with the probability that those which are still
    to be drawn have among those which are left. Neither texts nor numbers are kept.

    Args:
        documents: The corpus, which is counted.
        again: The same, which is drawn from.
        count: Documents to draw; all are taken where there are fewer.
        seed: Decides the draw, together with both numbers.

    Raises:
        CorpusChangedError: There is another number of documents when the corpus is read again.

    Source: Fan, Muller and Rezucha 1962; algorithm S in Knuth, The Art of Computer Programming 2, section 3.4.2.
    """
    total = sum(1 for _ in documents)
    if total < count:
        logger.warning(
            "all %s documents taken: the corpus has fewer than the `sample` of %s", f"{total:,}", f"{count:,}"
        )
    else:
        logger.warning("%s of %s documents taken, by `sample`", f"{count:,}", f"{total:,}")
    generator, wanted, number = Random(seed), min(count, total), 0
    for number, document in enumerate(again, 1):
        left = total - number + 1
        if left > 0 and generator.random() * left < wanted:
            wanted -= 1
            yield document
    if number != total:
        raise CorpusChangedError(
            field="corpus",
            expected=f"{total:,} documents, as when they were counted",
            found=f"{number:,}",
            remedy="build again when nothing writes to the sources",
        )
