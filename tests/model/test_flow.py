from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cooper_model import flow
from cooper_model.config import SamplerConfig

ALPHA = Path(__file__).parents[1] / 'golden' / 'alpha'
SAMPLER = SamplerConfig(text_scale=4.0, image_scale=2.0, interval=(0.4, 1.0))


@pytest.fixture
def branches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 8, generator=generator) for _ in range(3)]


@pytest.mark.parametrize('num', [2, 3, 6, 7, 30, 50])
@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_times_are_those_of_a_float32_linspace(num: int, shift: float) -> None:
    expected = flow.shift_time(torch.linspace(1, 0, num), shift)
    np.testing.assert_allclose(flow.timesteps(num, shift), expected.numpy(), rtol=0, atol=6e-8)


def test_times_of_the_golden_case_are_exact() -> None:
    calls = json.loads((ALPHA / 'generate.json').read_text())['calls']
    for call in calls.values():
        args = call['args']
        assert flow.timesteps(args['num_timesteps'], args['timestep_shift'])[:-1] == call['t_per_call']


def test_a_single_time_point_is_refused() -> None:
    with pytest.raises(ValueError, match='2 or more'):
        flow.timesteps(1, 3.0)


def test_guidance_interval_is_open_below_and_closed_above() -> None:
    assert flow.guidance_active(1.0, SAMPLER)
    assert not flow.guidance_active(float(np.float32(0.4)), SAMPLER)
    assert flow.guidance_active(0.41, SAMPLER)
    assert not flow.guidance_active(0.9, replace(SAMPLER, text_scale=1.0))
    assert not flow.guidance_active(1.0, replace(SAMPLER, interval=(0.5, 0.95)))


@pytest.mark.parametrize('renorm', ['global', 'channel', 'text_channel'])
def test_a_batch_is_guided_sample_by_sample(renorm: str, branches: list[torch.Tensor]) -> None:
    sampler = replace(SAMPLER, renorm=renorm)
    together = flow.guide(*branches, sampler)
    apart = torch.stack([flow.guide(*(v[i] for v in branches), sampler) for i in range(2)])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize('renorm', ['global', 'channel', 'text_channel'])
def test_arrays_and_tensors_agree(renorm: str, branches: list[torch.Tensor]) -> None:
    sampler = replace(SAMPLER, renorm=renorm, renorm_min=0.7)
    arrays = flow.guide(*(v.numpy() for v in branches), sampler)
    np.testing.assert_allclose(flow.guide(*branches, sampler).numpy(), arrays, rtol=2e-6, atol=1e-6)


def test_global_renormalisation_never_exceeds_the_unguided_norm(branches: list[torch.Tensor]) -> None:
    guided = flow.guide(*branches, SAMPLER)
    assert (guided.norm(dim=(1, 2)) <= branches[0].norm(dim=(1, 2)) * (1 + 1e-5)).all()
    raised = flow.guide(*branches, replace(SAMPLER, renorm_min=1.0))
    assert (raised.norm(dim=(1, 2)) > branches[0].norm(dim=(1, 2))).all()


def test_a_text_scale_of_one_switches_everything_off(branches: list[torch.Tensor]) -> None:
    assert flow.guide(*branches, replace(SAMPLER, text_scale=1.0)) is branches[0]


def test_image_guidance_without_its_branch_is_refused(branches: list[torch.Tensor]) -> None:
    full, no_text, _ = branches
    with pytest.raises(ValueError, match='without the image'):
        flow.guide(full, no_text, None, SAMPLER)
    flow.guide(full, no_text, None, replace(SAMPLER, image_scale=1.0))


def test_euler_steps_along_the_true_velocity_reach_the_clean_sample(branches: list[torch.Tensor]) -> None:
    clean, noise, _ = branches
    times = flow.timesteps(6, 3.0)
    x = flow.interpolate(clean, noise, times[0])
    for t, t_next in pairwise(times):
        torch.testing.assert_close(x, flow.interpolate(clean, noise, t))
        x = flow.euler_step(x, flow.velocity_target(clean, noise), t, t_next)
    torch.testing.assert_close(x, clean)
