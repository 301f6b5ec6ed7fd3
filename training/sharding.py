"""Weights split over processes (FSDP2): each holds a part of every weight, and a layer is whole only while it runs.

PyTorch's ``fully_shard`` is called here directly: accelerate's wrapper of it refuses CPUs, on which this is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from cooper_model.network.decoder import DecoderLayer

T = TypeVar('T')
_LAYER = re.compile(r'(.*\.)?layers\.\d+')


class Root(nn.Module):
    """Runs a loss below itself: a loss enters the model at several places, and sharding must know when it begins."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[], T]) -> T:
        return loss()


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the repeated layers of all towers of a model."""
    return [module for name, module in model.named_modules() if _LAYER.fullmatch(name)]


def split_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that are split one by one: the decoder's, through which every loss goes just once.

    The ViT runs once for each size of picture. How many there are differs from process to process, and whoever gathers
    a layer of it would wait for the others: it is split with the rest of the model, which is whole for all of a loss.
    """
    return [module for module in model.modules() if isinstance(module, DecoderLayer)]


def checkpoint_layers(model: nn.Module) -> None:
    """Keep only what enters a layer; the backward pass computes the rest of it again."""
    for layer in layers_of(model):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def master_weights(module: nn.Module) -> None:
    """Hold what is trained in float32; what is frozen stays in the precision that it came in."""
    for p in module.parameters():
        if p.requires_grad and p.dtype != torch.float32:
            p.data = p.data.float()


def shard(root: Root, processes: int, bf16: bool) -> None:
    """Split the weights of a model over all processes, each layer of the decoder for itself.

    Layers go to the device one by one, so that no more than one is ever whole there.
    """
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    mesh = init_device_mesh(device, (processes,))
    # Inputs are not cast: rotary angles need float32. Autocast does the rest.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    layers = split_layers(root.model)
    below = {id(p) for layer in layers for p in layer.parameters()}
    rest = [name for name, p in root.named_parameters() if p.requires_grad and id(p) not in below]
    for layer in layers:
        own = [name for name, p in layer.named_parameters() if p.requires_grad]
        _shard_unit(layer, own, mesh, policy)
    _shard_unit(root, rest, mesh, policy)
    # Whoever runs first becomes the root.
    with torch.no_grad():
        root(dict)
    root.reshard()


def _shard_unit(unit: nn.Module, trained: list[str], mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    master_weights(unit)
    fully_shard(unit, mesh=mesh, mp_policy=policy)

    def fill(gradient: Tensor) -> None:
        # Gradients are shared unit by unit: a weight that a process did not touch would leave the others waiting.
        for name in trained:
            p = unit.get_parameter(name)
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(fill)

    unit.register_forward_hook(after)


@contextmanager
def whole(root: Root) -> Iterator[None]:
    """Gather all weights for the time of the block, in which processes may call the model as often as each likes."""
    units = [module for module in root.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not root, recurse=False)
            unit.reshard()


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, sharing its memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_part(full: Tensor, like: Tensor) -> Tensor:
    """Return the rows of a whole tensor that this process holds of ``like``, on its device."""
    if isinstance(like, DTensor):
        mesh = like.device_mesh
        parts = full.chunk(mesh.size())
        own = mesh.get_local_rank()
        full = parts[own] if own < len(parts) else full[:0]
    return full.to(like.device)


def sharded_like(part: Tensor, like: Tensor) -> Tensor:
    """Return a part as a tensor split as ``like`` is."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
