"""The published 7B configuration, built on the meta device, against the published names and shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cooper_model.config import CooperConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper


@pytest.fixture(scope='module')
def full_size() -> dict[str, torch.nn.Module]:
    config = CooperConfig()
    with torch.device('meta'):
        return {
            'bagel_7b_mot_tensors': Cooper(config),
            'ae_tensors': build_autoencoder(config.autoencoder),
        }


def listing(shared: Path, name: str) -> dict[str, Any]:
    return json.loads((shared / 'spec' / 'tensors' / f'{name}.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize(('name', 'count'), [('bagel_7b_mot_tensors', 1223), ('ae_tensors', 244)])
def test_every_published_tensor_has_its_name_and_shape(
    shared: Path, full_size: dict[str, torch.nn.Module], name: str, count: int
) -> None:
    expected = {tensor: tuple(shape) for tensor, (shape, _) in listing(shared, name)['tensors'].items()}
    found = {tensor: tuple(value.shape) for tensor, value in full_size[name].state_dict().items()}
    assert len(expected) == count
    assert found == expected


def test_counts_match_the_published_totals(full_size: dict[str, torch.nn.Module]) -> None:
    # Totals of the published files, so that this much holds where the full listings are not at hand.
    for name, tensors, numbers in (
        ('bagel_7b_mot_tensors', 1223, 14_607_260_128),
        ('ae_tensors', 244, 83_819_683),
    ):
        state = full_size[name].state_dict()
        assert len(state) == tensors
        assert sum(value.numel() for value in state.values()) == numbers


def test_nothing_is_allocated(full_size: dict[str, torch.nn.Module]) -> None:
    for module in full_size.values():
        assert {value.device.type for value in module.state_dict().values()} == {'meta'}


def test_the_published_settings_are_the_defaults(shared: Path, tmp_path: Path) -> None:
    settings = listing(shared, 'bagel_7b_mot_tensors')['meta']['config']
    for name in ('llm', 'vit'):
        (tmp_path / f'{name}_config.json').write_text(json.dumps(settings[name]), encoding='utf-8')
    assert CooperConfig.load(tmp_path) == CooperConfig()
