"""Kinds of layers by what they do in a model: attention, MLP, embeddings, output head, norms, others.

They are found by the names and classes of the modules around a layer, from the nearest outwards, and by structure: in a
block that has attention, what is neither that nor a norm is its MLP. What mixes tokens counts as attention: state
spaces, linear attention and recurrences too. Experts and their routers are of the MLP.
"""

import re
from collections.abc import Iterator

from torch import nn

ATTENTION, MLP, EMBEDDINGS, HEAD, NORMS, OTHER = KINDS = ("attention", "mlp", "embeddings", "head", "norms", "other")

_MIXER_CLASS = re.compile(r"Attention|Attn|Mixer|Mamba|DeltaNet|mLSTM|LSTM|GRU|RNN|Recurrent|ShortConv|SSM|Retention")
_MLP_CLASS = re.compile(r"(MLP|Mlp|FeedForward|FFN|FFNLayer|MoE|MoeBlock|MoeSparseMoe|Experts?|Router|MLPBlock)$")
_NORM_CLASS = re.compile(r"Norm(\d?d|alization)?$|LayerNorm|RMSNorm")
_MIXER_NAME = re.compile(r"^(.*_)?(attn|attention|mixer|mamba|mamba2|ssm|time_mix)(_\d+)?$", re.IGNORECASE)
_ATTENTION_NAME = re.compile(r"^(.*_)?(attn|attention)$", re.IGNORECASE)
_MLP_NAME = re.compile(r"^(.*_)?(mlp|ffn|feed_?forward|moe|experts?|router)(_\d+)?$", re.IGNORECASE)
_PROJECTION = re.compile(
    r"^(w?[qkvo]|w?qkv|[qkvo]_(proj|lin|a_proj|b_proj)|qkv_proj|query|key|value|c_attn|in_proj)$", re.I
)
"""Names of layers that are attention's own where nothing around them is."""


class LayerKinds:
    """The kinds of a model's layers and parameters by name."""

    def __init__(self, model: nn.Module, head: nn.Module | None = None) -> None:
        """Look at the modules of a model.

        Args:
            model: The model.
            head: Its output head.
        """
        self._modules, self._head = dict(model.named_modules()), head
        mixed = {self._block(name) for name in self._modules if name and self._by_surroundings(name) == ATTENTION}
        self._transformer_blocks = mixed - {None}

    def of(self, name: str) -> str:
        """The kind of a layer, a parameter, or a fused weight by its name."""
        module = self._modules.get(self._holder(name))
        if module is not None and module is self._head:
            return HEAD
        if isinstance(module, nn.Embedding):
            return EMBEDDINGS
        if _NORM_CLASS.search(type(module).__name__):
            return NORMS
        if kind := self._by_surroundings(name):
            return kind
        return MLP if self._block(name) in self._transformer_blocks else OTHER

    def _holder(self, name: str) -> str:
        """The nearest module on the way to a name: a layer itself, or what holds a parameter."""
        return next(way for way in _outwards(name) if way in self._modules)

    def _block(self, name: str) -> str | None:
        """The outermost numbered module that a name is in, None where it is in none."""
        return next((way for way in reversed(list(_outwards(name))) if way.rpartition(".")[2].isdigit()), None)

    def _by_surroundings(self, name: str) -> str | None:
        block, leaf = self._block(name), self._holder(name).rpartition(".")[2]
        for way in _outwards(name):
            module = self._modules.get(way)
            if module is None:
                continue
            if way in ("", block):
                break
            kind, own = type(module).__name__, way.rpartition(".")[2]
            if _MLP_CLASS.search(kind) or _MLP_NAME.search(own):
                around = way.split(".")[:-1]  # a mixture may be one of attention's own projections
                return ATTENTION if any(map(_ATTENTION_NAME.search, around)) else MLP
            if _MIXER_CLASS.search(kind) or _MIXER_NAME.search(own):
                return ATTENTION
            if "Embed" in kind or "embed" in own:
                return EMBEDDINGS
        return ATTENTION if _PROJECTION.search(leaf) else None


def _outwards(name: str) -> Iterator[str]:
    """A name, that of the module around it, and so on to the model, whose name is empty."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""
