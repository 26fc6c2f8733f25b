"""The documents that a model is tried on: three of the corpus, or made up where there is none."""

from collections.abc import Sequence

import numpy as np

from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.documents.table import DocumentTable
from gindex.model.causality import ordinary_tokens
from gindex.model.tracked_model import TrackedModel

COUNT = 3

LONGEST = 128
"""Tokens of a text that are taken, so that a trial takes seconds."""

MADE_LENGTHS, MADE_PICTURES = (48, 31, 64), 256

AFTER = 16
"""Tokens that are put behind a text, to see that they leave its gradient as it is."""


def corpus_documents(table: DocumentTable) -> list[Objective]:
    """Three parts of a corpus that have something to predict: of its beginning, its middle and its end."""
    usable = np.flatnonzero(table.part_targets() > 0)
    places = np.linspace(0, len(usable) - 1, min(COUNT, len(usable))).round().astype(int)
    return [objective.window(LONGEST) for objective in table.objectives(usable[places].tolist())]


def made_up_documents(model: TrackedModel) -> list[Objective]:
    """Three documents of different lengths of random ordinary tokens; of random pixels, where the model reads these.

    With a fourth that has a picture beside its tokens, where the model reads both.
    """
    tokens = np.arange(MADE_PICTURES)
    if model.task.reads_tokens:
        tokens = np.asarray(ordinary_tokens(model.loaded.tokenizer, model.task.vocabulary))
    generator = np.random.default_rng(0)
    lengths = [min(length, model.loaded.max_tokens) for length in MADE_LENGTHS]
    made = [model.task.trial(generator.choice(tokens, length).astype(np.uint32)) for length in lengths]
    pictured = model.task.trial_alone()
    return made if pictured is None else [*made, pictured]


def followed(model: TrackedModel, objectives: Sequence[Objective]) -> list[Objective]:
    """The same documents with other tokens behind each text, as many as the model takes, which do not count.

    Texts that are labelled, and those of an encoder-decoder, stay as they are: what is behind them would be read. So do
    those with pictures, which their processor makes anew.
    """
    tokens = np.asarray(ordinary_tokens(model.loaded.tokenizer, model.task.vocabulary))
    generator = np.random.default_rng(1)
    longer = []
    for objective in objectives:
        texts = []
        for text in objective.texts:
            if text.labels is not None or text.is_decoded or text.has_pictures:
                texts.append(text)
                continue
            more = generator.choice(tokens, max(0, min(AFTER, model.loaded.max_tokens - len(text))))
            ids = np.concatenate([text.ids, more]).astype(np.uint32)
            texts.append(WeightedTokens(ids, np.concatenate([text.weights, np.zeros(len(more), np.float32)])))
        longer.append(Objective(tuple(texts), objective.preference))
    return longer
