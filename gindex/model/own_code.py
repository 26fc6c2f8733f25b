"""A model whose class is its own: made the ordinary way, with the weights that were loaded.

transformers makes a model without memory, loads weights into it, and then fills what no checkpoint holds (buffers such
as rotary angles) by rules that know its own classes alone. In any other class such buffers are left uninitialised: they
are whatever was in the memory before.
"""

import torch
from torch import nn

from gindex.errors import ModelError


def made_anew(name: str, model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model as its constructor makes it, with the loaded weights; that takes its memory twice for a while.

    Args:
        name: The model, as messages call it.
        model: What transformers loaded.
        dtype: Number format that it was loaded in.

    Raises:
        ModelError: The constructor ties weights that the folder keeps apart.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # should a buffer be drawn, it is the same one in every load
        made: nn.Module = type(model)._from_config(model.config, dtype=dtype)  # type: ignore[attr-defined]
    made.load_state_dict(model.state_dict())
    loaded = dict(model.named_parameters(remove_duplicate=False))
    for key, weight in made.named_parameters(remove_duplicate=False):
        if not torch.equal(weight.nan_to_num(), loaded[key].nan_to_num()):
            raise ModelError(
                field=name,
                expected=f"{key} as the folder has it",
                found=f"that {type(model).__name__} ties it to another",
                remedy="set tie_word_embeddings to false in config.json, or leave the tied weight out of the folder",
            )
    return made
