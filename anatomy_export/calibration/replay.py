"""Run a classifier layer by layer over calibration text; between layers only hidden states are kept.

The first layer's call is caught by a hook, then each layer module is called on the stored hidden states with the
arguments that the model itself passed. What the FFN does is read by hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch

from anatomy_export.calibration.batches import Batch
from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.supported_families import model_blocks, model_layers


@dataclass(frozen=True)
class LayerCall:
    """One batch on its way through the layers: `hidden: (B, T, d)` and the layers' other arguments.

    `attention` is what the layer's attention gave for them and `activation: (B, T, n)` what its neurons send, where
    they were run already; `in_tuple` tells how the layers hand on what they give.
    """

    hidden: torch.Tensor
    rest: tuple
    keywords: dict
    attention: torch.Tensor | tuple | None = None
    activation: torch.Tensor | None = None
    in_tuple: bool = False


class _FirstLayerReached(Exception):
    pass


@torch.no_grad()
def first_calls(model, batches: Sequence[Batch]) -> list[LayerCall]:
    """What the model calls its first layer with, batch by batch. Raises AnatomyError where it never does."""
    caught: list[LayerCall] = []

    def catch(module, args, keywords):
        caught.append(LayerCall(args[0], args[1:], keywords))
        raise _FirstLayerReached

    with model_layers(model)[0].register_forward_pre_hook(catch, with_kwargs=True):
        for batch in batches:
            try:
                model(**batch.inputs)
            except _FirstLayerReached:
                continue
            raise AnatomyError("the model's forward pass does not reach its first layer")
    return caught


@contextmanager
def caught_sums(model) -> Iterator[list[torch.Tensor]]:
    """Inside: each layer that is run leaves the sum of its FFN's output and the residual stream, (B, T, d).

    Where a norm follows (BERT), that is the norm's input; else (GPT-2) what the layer gives.
    """
    sums: list[torch.Tensor] = []
    pending = [False]

    def ffn_done(module, args, output):
        pending[0] = True

    def before_norm(module, args):
        if pending[0]:
            pending[0] = False
            sums.append(args[0].detach())

    def layer_done(module, args, output):
        if pending[0]:
            pending[0] = False
            sums.append((output[0] if isinstance(output, tuple) else output).detach())

    with ExitStack() as hooks:
        for block, layer in zip(model_blocks(model), model_layers(model), strict=True):
            hooks.enter_context(block.down.register_forward_hook(ffn_done))
            hooks.enter_context(layer.register_forward_hook(layer_done))
            for module in layer.modules():
                if isinstance(module, torch.nn.LayerNorm):
                    hooks.enter_context(module.register_forward_pre_hook(before_norm))
        yield sums


@dataclass(frozen=True)
class FfnRun:
    """What one layer's FFN did with one batch.

    `activation: (B, T, n)` is what its neurons send, `layer_sum: (B, T, d)` its output plus the residual stream.
    """

    activation: torch.Tensor
    layer_sum: torch.Tensor


@torch.no_grad()
def run_ffn(model, layer: int, call: LayerCall) -> tuple[FfnRun, LayerCall]:
    """What a layer's FFN does with one batch, and the call with what attention and neurons gave on the way.

    Raises:
        AnatomyError: the layer's forward pass does not reach its FFN.
    """
    activations: list[torch.Tensor] = []
    attention: list[torch.Tensor | tuple] = []
    down = model_blocks(model)[layer].down
    with (
        down.register_forward_pre_hook(lambda module, args: activations.append(args[0])),
        _attention(model, layer).register_forward_hook(lambda module, args, output: attention.append(output)),
        caught_sums(model) as sums,
    ):
        run_layer(model, layer, call)
    if not activations:
        raise AnatomyError(f"layer {layer}: its forward pass does not reach the FFN's down-projection")
    half_way = replace(call, attention=_first_only(attention[0]) if attention else None, activation=activations[0])
    return FfnRun(activations[0], sums[0]), half_way


@torch.no_grad()
def run_layer(model, layer: int, call: LayerCall) -> LayerCall:
    """Run one layer on one batch, without its attention and its up-projection where the call has what those gave."""
    with ExitStack() as replaced:
        if call.attention is not None:
            replaced.enter_context(_forward(_attention(model, layer), lambda *args, **keywords: call.attention))
        if call.activation is not None:
            block = model_blocks(model)[layer]
            project = block.down.forward
            replaced.enter_context(_forward(block.up, lambda hidden: hidden[..., :0]))
            replaced.enter_context(_forward(block.down, lambda nothing: project(call.activation)))
        output = model_layers(model)[layer](call.hidden, *call.rest, **call.keywords)
    in_tuple = isinstance(output, tuple)
    hidden = output[0] if in_tuple else output
    return replace(call, hidden=hidden, attention=None, activation=None, in_tuple=in_tuple)


@torch.no_grad()
def run_head(model, inputs: dict[str, torch.Tensor], call: LayerCall) -> torch.Tensor:
    """Logits (B, C) of a batch that went through every layer; `inputs` are the model's."""

    def give(*args, **keywords):
        return (call.hidden,) if call.in_tuple else call.hidden

    with ExitStack() as stack:
        for layer in model_layers(model):
            stack.enter_context(_forward(layer, give))
        return model(**inputs).logits


def _attention(model, layer: int) -> torch.nn.Module:
    """The layer's largest part that holds nothing of the FFN."""
    block = model_blocks(model)[layer]
    apart = [
        child for child in model_layers(model)[layer].children() if not {block.up, block.down} & set(child.modules())
    ]
    return max(apart, key=lambda child: sum(parameter.numel() for parameter in child.parameters()))


def _first_only(output: torch.Tensor | tuple) -> torch.Tensor | tuple:
    """The output without attention weights, which nothing here reads."""
    return (output[0], *[None] * (len(output) - 1)) if isinstance(output, tuple) else output


@contextmanager
def _forward(module: torch.nn.Module, function: Callable) -> Iterator[None]:
    """Inside: the module does `function` instead of its own forward pass."""
    module.forward = function
    try:
        yield
    finally:
        del module.forward
