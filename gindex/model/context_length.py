"""The context length of a model, by its settings and those of its tokenizer.

Models call it by several names. RoBERTa and its relatives have more positions than tokens, since theirs begin after
that of the padding. Some models stretch their positions with the length of the input: beyond the length that they were
trained at, a document's logits would depend on the longest document of its batch. Such a model takes no more than that
length here.
"""

from collections.abc import Mapping
from typing import Any

NO_LIMIT = 1 << 30
"""Most tokens of a model that states no limit."""

_NAMES = (
    "max_position_embeddings", "max_target_positions", "max_seq_len", "max_sequence_length", "seq_length",
    "n_positions", "n_ctx", "model_max_length",
)  # fmt: skip
"""Names of the limit in settings, of which the first that is there counts; transformers gives most models the first."""

_AFTER_PADDING = {
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "prophetnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Kinds of models whose first token has the position after that of the padding, which is its token's id."""

_STRETCHED = ("dynamic", "longrope", "su")
"""Kinds of rotary positions whose angles depend on the length."""


def most_tokens(settings: Any, tokenizer_settings: Mapping[str, Any] | None = None) -> int:
    """Return the most tokens of a document whose positions the model knows.

    Args:
        settings: A configuration of transformers.
        tokenizer_settings: The tokenizer_config.json beside it, which counts where the configuration states no limit.
    """
    text = settings.get_text_config(decoder=True) if hasattr(settings, "get_text_config") else settings
    stated = [most for name in _NAMES if (most := _length(getattr(text, name, None))) is not None]
    if not stated:
        return _length((tokenizer_settings or {}).get("model_max_length")) or NO_LIMIT
    most = stated[0]
    if getattr(text, "model_type", None) in _AFTER_PADDING:
        most -= 1 + (getattr(text, "pad_token_id", None) or 0)
    return min([most, *_unstretched(text, most)])


def _length(value: object) -> int | None:
    """Return a stated limit; None for what stands for none, such as -1 or a tokenizer's 1e30."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < NO_LIMIT:
        return None
    return int(value)


def _unstretched(settings: Any, most: int) -> list[int]:
    """Return the lengths up to which rotary positions do not depend on the length of the input."""
    rope = getattr(settings, "rope_parameters", None) or getattr(settings, "rope_scaling", None) or {}
    if not isinstance(rope, dict):
        return []
    lengths = []
    for kind in [rope, *(value for value in rope.values() if isinstance(value, dict))]:  # one, or one a type of layer
        if kind.get("rope_type", kind.get("type")) in _STRETCHED:
            own = kind.get("original_max_position_embeddings")
            lengths.append(int(own or getattr(settings, "original_max_position_embeddings", None) or most))
    return lengths
