"""The linear maps of a model that have no module of their own: experts, routers, and what torch's own modules hold."""

from torch import nn

from gindex.model.experts import expert_owners
from gindex.model.inner_linears import InnerLinear
from gindex.model.torch_attention import attention_owners
from gindex.model.torch_recurrence import recurrent_owners


def inner_linears(model: nn.Module) -> dict[str, InnerLinear]:
    """The linear maps of a model that have no module of their own, by the name that they are tracked under.

    That is the name of the weight, such as `model.layers.0.mlp.experts.down_proj` or `lstm.weight_ih_l0`, or of the
    router.
    """
    found: dict[str, InnerLinear] = {}
    for name, module in model.named_modules():
        for owner in (*expert_owners(module), *attention_owners(module), *recurrent_owners(module)):
            for inner, linear in owner.linears.items():
                linear.owner = owner
                found[".".join(filter(None, (name, inner)))] = linear
    return found
