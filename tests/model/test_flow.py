from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from cooper_model import flow
from cooper_model.config import SamplerConfig, SamplingMethod

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


SPREAD = 0.3


def gaussian_velocity(x: np.ndarray, t: float, guided: bool = False) -> np.ndarray:
    """Return the true velocity where clean samples are normal with deviation SPREAD: ``E[noise - clean | x]``."""
    return x * (t - (1 - t) * SPREAD**2) / ((1 - t) ** 2 * SPREAD**2 + t**2)


@pytest.mark.parametrize(('method', 'order', 'evaluations'), [('euler', 1, 1), ('heun', 2, 2), ('adams', 2, 1)])
@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_methods_converge_to_the_solution_by_their_order(
    method: str, order: int, evaluations: int, shift: float
) -> None:
    noise, errors = np.array([[1.0, -2.0]]), []
    for steps in (64, 128):
        asked: list[float] = []

        def velocity(x: np.ndarray, t: float, guided: bool, asked: list[float] = asked) -> np.ndarray:
            asked.append(t)
            return gaussian_velocity(x, t)

        sampler = SamplerConfig(steps + 1, shift, text_scale=1.0, method=method)
        found = list(flow.sample(velocity, noise, sampler))
        assert len(found) == steps and len(asked) == steps * evaluations
        # The deviation shrinks from 1 to SPREAD, and every sample with it.
        errors.append(np.abs(found[-1] - SPREAD * noise).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_one_step_is_the_same_for_euler_and_adams() -> None:
    noise = np.ones((1, 2))
    one, other = (
        list(flow.sample(gaussian_velocity, noise, SamplerConfig(2, text_scale=1.0, method=method)))
        for method in ('euler', 'adams')
    )
    np.testing.assert_array_equal(one, other)


def test_every_method_has_a_name_that_settings_know() -> None:
    assert set(flow.METHODS) == set(get_args(SamplingMethod))
    with pytest.raises(ValueError, match=r"sampler\.method is 'rk4', expected one of euler"):
        SamplerConfig(method='rk4')  # type: ignore[arg-type]


@pytest.mark.parametrize('method', ['euler', 'heun', 'adams'])
def test_methods_begin_anew_where_guidance_ends(method: str) -> None:
    def velocity(x: np.ndarray, t: float, guided: bool) -> np.ndarray:
        return np.full_like(x, 10.0 if guided else 1.0)

    sampler = replace(SAMPLER, num_timesteps=6, shift=1.0, interval=(0.5, 1.0), method=method)
    *_, last = flow.sample(velocity, np.zeros((1, 2)), sampler)
    # Steps from 1, 0.8 and 0.6 are guided, those from 0.4 and 0.2 are not; each stretch has a constant velocity.
    np.testing.assert_allclose(last, -(0.6 * 10 + 0.4 * 1), rtol=1e-6)


def test_velocities_are_reused_while_they_hardly_change() -> None:
    asked: list[float] = []

    def velocity(x: np.ndarray, t: float, guided: bool) -> np.ndarray:
        asked.append(t)
        return np.full_like(x, 1 + 0.1 * t)

    noise = np.zeros((2, 3, 4))
    exact = list(flow.sample(velocity, noise, SamplerConfig(21, 1.0, text_scale=1.0)))
    assert len(asked) == 20
    asked.clear()
    near = list(flow.sample(velocity, noise, SamplerConfig(21, 1.0, text_scale=1.0, reuse=0.02)))
    assert len(near) == 20 and 2 < len(asked) <= 10 and asked[:2] == pytest.approx([1.0, 0.95])
    assert 0 < np.abs(near[-1] - exact[-1]).max() < 0.02


def test_a_fast_sample_of_a_batch_is_not_held_back_by_a_slow_one() -> None:
    calls = {'slow': 0, 'both': 0}
    for name, rates in (('slow', (0.0,)), ('both', (0.0, 5.0))):

        def velocity(x: np.ndarray, t: float, guided: bool, name: str = name, rates=rates) -> np.ndarray:
            calls[name] += 1
            return np.stack([np.full(x.shape[1:], 1 + rate * t) for rate in rates])

        list(flow.sample(velocity, np.zeros((len(rates), 3, 4)), SamplerConfig(11, 1.0, text_scale=1.0, reuse=0.01)))
    assert calls == {'slow': 2, 'both': 10}


def test_offsets_of_branches_are_reused_between(branches: list[torch.Tensor]) -> None:
    wanted: list[bool] = []

    def velocities(x: torch.Tensor, t: float, guided: bool) -> list[torch.Tensor]:
        wanted.append(guided)
        return [x + v for v in branches[: 3 if guided else 1]]

    always, seldom = (flow.Guided(velocities, replace(SAMPLER, guidance_period=n)) for n in (1, 3))
    for number in range(4):
        x = torch.full_like(branches[0], float(number))
        # What branches differ by does not change here, so that nothing is lost.
        torch.testing.assert_close(seldom(x, 0.9, True), always(x, 0.9, True))
    assert wanted[::2] == [True, False, False, True] and all(wanted[1::2])
    assert seldom(x, 0.3, False) is not None and wanted[-1] is False


def test_settings_are_read_from_words() -> None:
    assert flow.parse_sampler('adams') == {'method': 'adams'}
    found = flow.parse_sampler('heun, steps=8,text_scale=1,renorm=channel,reuse=0.1')
    assert found == {'method': 'heun', 'num_timesteps': 9, 'text_scale': 1.0, 'renorm': 'channel', 'reuse': 0.1}
    assert flow.parse_sampler('') == {}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('rk4', "'rk4' is unknown; expected some of euler, heun, adams, steps="),
        ('steps=many', "'steps=many' is no number"),
        ('steps=0', "'steps=0' cannot be; expected a finite number, and steps from 1"),
        ('text_scale=nan', "'text_scale=nan' cannot be"),
        ('steps=4,heun,num_timesteps=9', "'num_timesteps=9' comes after another num_timesteps"),
        ('heun,adams', "'adams' comes after another method"),
        ('guidance_period=0', 'expected 1 or more'),
        ('reuse=-1', 'reuse is -1.0'),
        ('interval=1', 'unknown'),
    ],
)
def test_settings_that_make_no_sense_are_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        flow.parse_sampler(text)
