"""Which models are chains: known from their modules and from the order in which one forward pass calls them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

from ..nn import SparseConv2d, SparseLinear
from ..nn.fused import halves
from ..ops.conv import Conv
from ..ops.conv_chain import Block, Head
from ..pattern import Pattern

LETTERS = {
    nn.Conv2d: "C", SparseConv2d: "C", nn.BatchNorm2d: "N", nn.ReLU: "A", nn.LeakyReLU: "A", nn.MaxPool2d: "P",
    nn.Flatten: "F", nn.Linear: "L", SparseLinear: "L",
}  # fmt: skip
BLOCK = "CN?AP?"
CHAIN = re.compile(f"(?:{BLOCK})+F?L")
FORM = "(convolution, batch norm or none, ReLU or leaky ReLU, 2x2 max-pooling or none) once or more, then a linear head"
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """The modules without children, by name."""
    return {name: module for name, module in model.named_modules() if not any(module.children())}


def objections(model: nn.Module) -> list[str]:
    """Why no order of calls makes ``model`` a chain."""
    found = [f"{name} is a {type(m).__name__}" for name, m in leaves(model).items() if type(m) not in LETTERS]
    found += [f"{name or 'the model'} has hooks" for name, m in model.named_modules() if hooked(m)]
    return found + [f"{name} {reason}" for name, m in leaves(model).items() for reason in layer_objections(m)]


def layer_objections(layer: nn.Module) -> Iterator[str]:
    if "forward" in vars(layer):
        yield "has a forward of its own"
    if getattr(layer, "backend", None) == "dense":
        yield 'asks for backend "dense"'
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        yield f"pads with {layer.padding_mode}"
    if getattr(layer, "groups", 1) != 1:
        yield f"has {layer.groups} groups"
    if isinstance(layer, nn.BatchNorm2d) and not layer.affine:
        yield "has no weight and bias"
    if isinstance(layer, nn.LeakyReLU) and not layer.negative_slope >= 0:
        yield f"has the slope {layer.negative_slope}, below 0"
    if isinstance(layer, nn.MaxPool2d) and not halves(layer):
        yield "does not pool 2x2"
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        yield "does not flatten all but the first axis"


def facts(model: nn.Module) -> list:
    """All that recognising reads of ``model``. While these are the same objects, so is what it finds."""
    found: list = []
    for module in model.modules():
        found += type(module), hooked(module), *(value for name, value in vars(module).items() if name[0] != "_")
    for name, p in model.named_parameters(remove_duplicate=False):
        found += sys.intern(name), p, p.dtype, p.is_cpu, p.requires_grad
    return found


def hooked(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in HOOKS)


@torch.no_grad()
def calls(model: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor) -> list[nn.Module]:
    """The leaves in the order of their calls in ``forward(images)``; empty where something else lies between them."""
    seen: list[tuple[nn.Module, tuple, Tensor]] = []
    hooks = [m.register_forward_hook(lambda *call: seen.append(call)) for m in leaves(model).values()]
    try:
        with torch.random.fork_rng(devices=[]):
            logits = forward(images)
    except Exception:  # who runs the model next shows what is wrong with it
        return []
    finally:
        for hook in hooks:
            hook.remove()
    given = [images, *(output for *_, output in seen)]
    taken = [*(inputs[0] if len(inputs) == 1 else None for _, inputs, _ in seen), logits]
    joined = all(a is b or flattened(a, b) for a, b in zip(given, taken, strict=True))
    return [module for module, *_ in seen] if joined else []


def flattened(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.dim() == 4 and torch.equal(a.flatten(1), b)


def split(modules: list[nn.Module]) -> tuple[list[list[nn.Module]], nn.Module] | None:
    """The blocks' modules and the head, or None if they are no chain."""
    letters = "".join(LETTERS[type(module)] for module in modules)
    if not CHAIN.fullmatch(letters):
        return None
    return [modules[match.start() : match.end()] for match in re.finditer(BLOCK, letters)], modules[-1]


def block_of(modules: list[nn.Module]) -> Block:
    """What the operation needs to know of a block's modules."""
    conv, act = modules[0], next(m for m in modules if LETTERS[type(m)] == "A")
    norm = next((m for m in modules if isinstance(m, nn.BatchNorm2d)), None)
    shape = Conv.make(pattern_of(conv), conv.stride, conv.padding, conv.dilation, 1, "cpu")
    pool = 2 if isinstance(modules[-1], nn.MaxPool2d) else 1
    eps = norm.eps if norm else 0.0
    return Block(shape, conv.bias is not None, norm is not None, eps, getattr(act, "negative_slope", 0.0), pool)


def head_of(linear: nn.Module) -> Head:
    return Head(pattern_of(linear), linear.bias is not None)


def pattern_of(layer: nn.Module) -> Pattern:
    """The pattern of a sparse layer; of a dense one the full pattern."""
    return layer.pattern if hasattr(layer, "pattern") else full(tuple(layer.weight.shape))


@cache
def full(shape: tuple[int, ...]) -> Pattern:
    return Pattern.from_mask(torch.ones(shape, dtype=torch.bool))
