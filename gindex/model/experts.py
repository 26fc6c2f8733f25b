"""Mixtures of experts of transformers: which modules hold fused weights or route tokens, and what they compute.

Each way in which transformers runs experts is written here once more with `ExpertLinears` in the place of its products.
A family whose experts are kept in another way stays untracked, with the reason.

Axes: R tokens of all documents, K experts of a token, E experts, S pairs of a token and an expert, H hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gindex.model.inner_linears import ExpertLinears, InnerLinear, Owner, OwnLinear, Pairs, own_products


def expert_owners(module: nn.Module) -> Iterator[Owner]:
    """Yield the owners of the fused weights in a module, or of a router's weight."""
    kind = type(module).__name__
    if kind in _BY_CLASS:
        yield from _BY_CLASS[kind](module)
    elif _has_fused_weights(module):
        yield _fused(module)
    elif _has_own_weight(module):
        linear = OwnLinear(module.weight, _bias_of_own(module))  # type: ignore[arg-type]
        yield Owner(module=module, forward=own_products, linears={"": linear})


def _has_fused_weights(module: nn.Module) -> bool:
    """Say whether a module is one that transformers' interface of experts runs, or alike."""
    first = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"
    weights = [module._parameters.get(name) for name in (first, "down_proj")]
    return all(weight is not None and weight.dim() == 3 for weight in weights)


def _has_own_weight(module: nn.Module) -> bool:
    """Say whether a module is a router: it has a weight [E, H], and a forward of its own that multiplies it."""
    weight, kind = module._parameters.get("weight"), type(module)
    routes = any(hasattr(module, name) for name in ("top_k", "num_experts"))
    return routes and weight is not None and weight.dim() == 2 and kind.forward is not nn.Linear.forward


def _bias_of_own(module: nn.Module) -> nn.Parameter | None:
    bias = module._parameters.get("bias")
    return bias if bias is not None and bias.shape == module.weight.shape[:1] else None  # type: ignore[index]


def _fused(module: nn.Module) -> Owner:
    first = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"
    linears = {}
    for name in (first, "down_proj"):
        weight: nn.Parameter = module._parameters[name]  # type: ignore[assignment]
        bias = module._parameters.get(f"{name}_bias")
        transposed = getattr(module, "is_transposed", False)
        linears[name] = ExpertLinears(weight, bias, len(weight), is_transposed=transposed)
    return Owner(module=module, forward=_run_fused, linears=linears)


def _run_fused(
    owner: Owner, _plain: Callable[..., Any], hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Experts as transformers' interface runs them: eager, grouped and batched implementations compute the same."""
    experts: Any = owner.module
    first, down = owner.linears.values()

    def act(x_SO: Tensor) -> Tensor:
        if getattr(experts, "has_gate", True):
            gated: Tensor = experts._apply_gate(x_SO)
            return gated
        acted: Tensor = experts.act_fn(x_SO)
        return acted

    def run(x_SH: Tensor, pairs: Pairs) -> Tensor:
        y_SH: Tensor = down(act(first(x_SH, pairs)), pairs)
        return experts.post_expert_norm(y_SH) if getattr(experts, "has_post_expert_norm", False) else y_SH

    return _mixture(hidden_states, top_k_index, top_k_weights, len(down.weight), run)


def _mixture(
    hidden_states: Tensor,
    top_k_index: Tensor,
    top_k_weights: Tensor,
    experts: int,
    run: Callable[[Tensor, Pairs], Tensor],
) -> Tensor:
    """The weighted sum of the outputs of each token's experts; what is routed to none of them adds nothing."""
    x_RH = hidden_states.reshape(-1, hidden_states.shape[-1])
    pairs, order_S = route(top_k_index.reshape(len(x_RH), -1), experts)
    order_S = order_S.to(x_RH.device)
    rows_S = order_S // (top_k_index.numel() // len(x_RH))
    y_SH = run(x_RH[rows_S], pairs) * top_k_weights.reshape(-1)[order_S, None]
    y_RKH = y_SH.new_zeros(top_k_index.numel(), y_SH.shape[1]).index_copy(0, order_S, y_SH)
    return y_RKH.view(len(x_RH), -1, y_SH.shape[1]).sum(1).to(x_RH.dtype).reshape(hidden_states.shape)


def route(experts_RK: Tensor, experts: int) -> tuple[Pairs, Tensor]:
    """Order pairs of tokens and experts by expert.

    Args:
        experts_RK: The experts of each token [R, K]; a number of E or more stands for none.
        experts: E.

    Returns:
        The pairs, and which of the R * K entries each is [S], both on the CPU.
    """
    flat = experts_RK.detach().reshape(-1).cpu().numpy()  # the one time that an accelerator is waited for
    order_S = np.argsort(flat, kind="stable")
    sizes = np.bincount(flat, minlength=experts)[:experts]
    order_S = order_S[: sizes.sum()]
    rows_S = torch.from_numpy(order_S // experts_RK.shape[1])
    return Pairs(rows_S, tuple(sizes.tolist()), len(experts_RK)), torch.from_numpy(order_S)


def _longcat(module: nn.Module) -> Iterator[Owner]:
    """LongCat-Flash: some experts pass on what they read; one of the two weights has rows for them all the same."""
    gate_up, down = module._parameters["gate_up_proj"], module._parameters["down_proj"]
    linears = {
        "gate_up_proj": ExpertLinears(gate_up, None, len(gate_up)),  # type: ignore[arg-type]
        "down_proj": ExpertLinears(down, None, len(down)),  # type: ignore[arg-type]
    }
    yield Owner(module=module, forward=_run_longcat, linears=linears)


def _run_longcat(
    owner: Owner, _plain: Callable[..., Any], hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    experts: Any = owner.module
    gate_up, down = owner.linears.values()
    count, unused = len(down.weight), len(gate_up.weight) - len(down.weight)

    def run(x_SH: Tensor, pairs: Pairs) -> Tensor:
        wider = Pairs(pairs.rows, pairs.sizes + (0,) * unused, pairs.tokens)
        gate, up = gate_up(x_SH, wider).chunk(2, dim=-1)
        y_SH: Tensor = down(experts.act_fn(gate) * up, pairs)
        return y_SH

    passed_on = (top_k_weights * (top_k_index >= count)).sum(1, keepdim=True)
    mixed = _mixture(hidden_states, top_k_index, top_k_weights, count, run)
    return mixed + (passed_on * hidden_states).to(mixed.dtype)


def _longcat_router(module: nn.Module) -> Iterator[Owner]:
    """LongCat-Flash: the router multiplies the weight of a module that is never called."""
    linear = OwnLinear(module.classifier.weight, None)  # type: ignore[union-attr, arg-type]
    yield Owner(module=module, forward=own_products, linears={"classifier": linear})


def _dbrx(module: nn.Module) -> Iterator[Owner]:
    """DBRX: three weights [E * F, H], of which the last is used the other way round."""
    glu: Any = module.mlp
    linears: dict[str, InnerLinear] = {
        f"mlp.{name}": ExpertLinears(getattr(glu, name), None, glu.moe_num_experts, is_transposed=name == "w2")
        for name in ("w1", "v1", "w2")
    }
    yield Owner(module=module, forward=_run_dbrx, linears=linears)


def _run_dbrx(
    owner: Owner, _plain: Callable[..., Any], hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    glu: Any = owner.module.mlp
    w1, v1, w2 = owner.linears.values()

    def run(x_SH: Tensor, pairs: Pairs) -> Tensor:
        y_SH: Tensor = w2(glu.activation_fn(w1(x_SH, pairs)) * v1(x_SH, pairs), pairs)
        return y_SH

    return _mixture(hidden_states, top_k_index, top_k_weights, glu.moe_num_experts, run)


def _llama4(module: nn.Module) -> Iterator[Owner]:
    """Llama 4: every expert reads all tokens, which are zero where they are not routed to it."""
    linears: dict[str, InnerLinear] = {
        name: ExpertLinears(module._parameters[name], None, module.num_experts, is_transposed=True)  # type: ignore[arg-type]
        for name in ("gate_up_proj", "down_proj")
    }
    yield Owner(module=module, forward=_run_llama4, linears=linears)


def _run_llama4(owner: Owner, _plain: Callable[..., Any], hidden_states: Tensor) -> Tensor:
    experts: Any = owner.module
    gate_up, down = owner.linears.values()
    tokens = len(hidden_states) // experts.num_experts
    read_S = (hidden_states.detach() != 0).any(1).nonzero()[:, 0]
    entries_S = read_S.cpu()
    sizes = torch.bincount(entries_S // tokens, minlength=experts.num_experts).tolist()
    pairs = Pairs(entries_S % tokens, tuple(sizes), tokens)
    gate, up = gate_up(hidden_states[read_S], pairs).chunk(2, dim=-1)
    y_SH = down(up * experts.act_fn(gate), pairs)
    mixed: Tensor = y_SH.new_zeros(hidden_states.shape).index_copy(0, read_S, y_SH)
    return mixed


def _jetmoe(module: nn.Module) -> Iterator[Owner]:
    """JetMoE: experts of attention and of the feed-forward part, which read what a router beside them has sorted."""
    router = Owner(module=module.router, forward=_run_jetmoe_router)  # type: ignore[arg-type]
    for name in ("input_linear", "output_linear"):
        experts: Any = module.get_submodule(name)
        linears = {name: ExpertLinears(experts.weight, None, experts.num_experts)}
        yield Owner(module=experts, forward=_run_jetmoe, linears=linears, before=router)


def _run_jetmoe_router(owner: Owner, plain: Callable[..., Any], hidden_states: Tensor) -> Any:
    topology = _entries, rows_S, _gates, sizes, _logits = plain(hidden_states)
    owner.memory[:] = [Pairs(rows_S.cpu(), tuple(sizes), len(hidden_states))]
    return topology


def _run_jetmoe(owner: Owner, _plain: Callable[..., Any], inputs: Tensor, _sizes: Sequence[int]) -> Tensor:
    (linear,), (pairs,) = owner.linears.values(), owner.before.memory  # type: ignore[union-attr]
    outputs: Tensor = linear(inputs, pairs)
    return outputs


_BY_CLASS: dict[str, Callable[[nn.Module], Iterator[Owner]]] = {
    "LongcatFlashExperts": _longcat,
    "LongcatFlashTopkRouter": _longcat_router,
    "DbrxExperts": _dbrx,
    "Llama4TextExperts": _llama4,
    "JetMoeMoE": _jetmoe,
    "JetMoeMoA": _jetmoe,
}
