"""The context length of a model, by its settings.

Some models stretch their positions with the length of the input: beyond the length that they were trained at, a
document's logits would depend on the longest document of its batch. Such a model takes no more than that length here.
"""

from typing import Any

NO_LIMIT = 1 << 30
"""Most tokens of a model that states no limit."""

_NAMES = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length")
"""Names of the limit in settings."""

_BEHIND_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Kinds of models, RoBERTa and its family, whose positions begin behind that of the padding; the limit counts all."""

_STRETCHED = ("dynamic", "longrope", "su")
"""Kinds of rotary positions whose angles depend on the length."""


def most_tokens(settings: Any) -> int:
    """Return the most tokens of a document whose positions the model knows.

    Args:
        settings: A configuration of transformers.
    """
    text = settings.get_text_config(decoder=True) if hasattr(settings, "get_text_config") else settings
    stated = [int(value) for name in _NAMES if (value := getattr(text, name, None))]
    most = stated[0] if stated else NO_LIMIT
    if getattr(text, "model_type", None) in _BEHIND_PADDING:
        most -= 1 + (getattr(text, "pad_token_id", None) or 0)
    return min([most, *_unstretched(text, most)])


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
