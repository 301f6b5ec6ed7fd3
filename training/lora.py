"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by Hugging Face's peft, for a model that one GPU holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from training.state import SavedState

# Every matrix of the language model's layers, of both experts.
DECODER = r'language_model\.model\.layers\.\d+\.(self_attn|mlp\w*)\.\w+_proj\w*'


@dataclass(frozen=True)
class LoraSettings:
    """What is trained in place of the weights.

    :param rank: of the product that is added to each matrix
    :param alpha: the product is multiplied by ``alpha / rank``
    :param matrices: regular expression of the full names of linears that get one
    """

    rank: int = 64
    alpha: float = 128
    matrices: str = DECODER

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f'rank is {self.rank}, expected 1 or more')


def add_adapters(model: nn.Module, settings: LoraSettings, seed: int = 0) -> None:
    """Put an adapter on each matrix and freeze all else; the model's outputs are as before.

    :raises ValueError: the expression fits no linear of the model
    """
    # Imported here: it takes longer than all else that training needs.
    from peft import LoraConfig, inject_adapter_in_model

    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not any(re.fullmatch(settings.matrices, name) for name in linears):
        raise ValueError(f'lora: no linear is called {settings.matrices!r}, they are called like {linears[0]!r}')
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=settings.matrices)
        inject_adapter_in_model(config, model)


def merge_adapters(model: nn.Module) -> None:
    """Add each adapter to its matrix and take it away."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, module.get_base_layer())


def load_merged(saved: SavedState, model: nn.Module) -> None:
    """Merge the averaged adapters of a run into a model that has the weights which the run began with.

    :raises ValueError: the adapters are of another model
    """
    add_adapters(model, LoraSettings(**saved.lora))
    saved.fill('average', {name: p for name, p in model.named_parameters() if p.requires_grad})
    merge_adapters(model)
