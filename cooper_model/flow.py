"""Rectified flow: times, guidance, and the methods that follow the velocity from noise to a clean sample.

Noise is reached at t = 1 and the clean latents at t = 0: ``x_t = (1 - t) * clean + t * noise``, and the model
predicts ``v = noise - clean``. Everything here is elementwise arithmetic and sums that torch tensors and
NumPy arrays both know; velocities are ``(..., tokens, channels)``, leading axes are independent samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import groupby, pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

import numpy as np

from cooper_model.config import SamplerConfig, SamplingMethod

if TYPE_CHECKING:
    from torch import Tensor

ArrayT = TypeVar('ArrayT', 'Tensor', np.ndarray)
TimeT = TypeVar('TimeT', 'Tensor', np.ndarray, float)

_EPSILON = 1e-8
_NUMBERS: dict[Any, Callable[[str], Any]] = {'int': int, 'float': float}  # types as annotations spell them


def shift_time(t: TimeT, shift: float) -> TimeT:
    """Return ``shift * t / (1 + (shift - 1) * t)``: more time at high noise for a shift above 1."""
    return shift * t / (1 + (shift - 1) * t)


def timesteps(num: int, shift: float) -> list[float]:
    """Return ``num`` shifted times from 1 down to 0, hence ``num - 1`` Euler steps.

    Values are float32, each rounded once and counted from its nearer end as torch.linspace does, so that they
    are the times of the published implementation.

    :raises ValueError: fewer than two points
    """
    if num < 2:
        raise ValueError(f'{num} time points make no step; give 2 or more')
    step = float(np.float32(-1) / np.float32(num - 1))
    index = np.arange(num)
    linear = np.where(index < num // 2, 1 + step * index, -step * (num - 1 - index)).astype(np.float32)
    return [float(t) for t in shift_time(linear, shift)]


def guidance_active(t: float, sampler: SamplerConfig) -> bool:
    """Return whether the step at time ``t`` is guided: ``lo < t <= hi`` and a text scale above 1.

    A text scale of 1 or less switches image guidance off too, as in the published implementation.
    """
    low, high = (np.float32(bound) for bound in sampler.interval)
    return bool(sampler.text_scale > 1 and low < np.float32(t) <= high)


def guide(v_full: ArrayT, v_no_text: ArrayT, v_no_image: ArrayT | None, sampler: SamplerConfig) -> ArrayT:
    """Combine the velocities of the guidance branches and renormalise the result.

    :param v_full: velocity under the full context, ``(..., tokens, channels)``
    :param v_no_text: the same under the context without the instruction
    :param v_no_image: the same under the context without the camera image; may be None where the image scale
        is 1 or less, which switches this branch off
    :raises ValueError: the sampler needs the branch without the image and it is None
    """
    if sampler.text_scale <= 1:
        return v_full
    guided = v_no_text + sampler.text_scale * (v_full - v_no_text)
    per_token = sampler.renorm != 'global'
    if sampler.renorm == 'text_channel':
        guided = _renormalised(guided, v_full, per_token, sampler.renorm_min)
    if sampler.image_scale > 1:
        if v_no_image is None:
            raise ValueError(
                f'sampler.image_scale is {sampler.image_scale} but there is no velocity without the image; '
                'compute that branch or set the scale to 1'
            )
        guided = v_no_image + sampler.image_scale * (guided - v_no_image)
    if sampler.renorm == 'text_channel':
        return guided
    return _renormalised(guided, v_full, per_token, sampler.renorm_min)


def _renormalised(guided: ArrayT, reference: ArrayT, per_token: bool, minimum: float) -> ArrayT:
    scale = _norm(reference, per_token) / (_norm(guided, per_token) + _EPSILON)
    return guided * scale.clip(minimum, 1.0)


def _norm(values: ArrayT, per_token: bool) -> ArrayT:
    # Over the channels of a token, or over all tokens of one sample; never across samples.
    return (values * values).sum(axis=-1 if per_token else (-2, -1), keepdims=True) ** 0.5


def euler_step(x: ArrayT, velocity: ArrayT, t: float, t_next: float) -> ArrayT:
    """Return the sample at ``t_next`` (< ``t``), given the one at ``t`` and the velocity there."""
    return x - velocity * (t - t_next)


# (sample, time) -> velocity there
Velocity = Callable[[ArrayT, float], ArrayT]


def euler(velocity: Velocity[ArrayT], x: ArrayT, times: Sequence[float]) -> Iterator[ArrayT]:
    """Yield the sample after each step, by the velocity at its beginning: first order, as published."""
    for t, t_next in pairwise(times):
        x = euler_step(x, velocity(x, t), t, t_next)
        yield x


def heun(velocity: Velocity[ArrayT], x: ArrayT, times: Sequence[float]) -> Iterator[ArrayT]:
    """Yield the sample after each step, by the mean of the velocities at its beginning and at its Euler end.

    Second order, two evaluations a step (Karras et al. 2022, arXiv 2206.00364, algorithm 1). Unlike there the last
    step is no exception: a flow's velocity is defined at t = 0.
    """
    for t, t_next in pairwise(times):
        first = velocity(x, t)
        second = velocity(euler_step(x, first, t, t_next), t_next)
        x = euler_step(x, (first + second) / 2, t, t_next)
        yield x


def adams(velocity: Velocity[ArrayT], x: ArrayT, times: Sequence[float]) -> Iterator[ArrayT]:
    """Yield the sample after each step, by the line through the last two velocities; the first step is Euler's.

    Second order, one evaluation a step: the two-step Adams-Bashforth method for steps of any length (Hairer, Norsett
    and Wanner, Solving Ordinary Differential Equations I, section III.5).
    """
    last, before = None, 0.0
    for t, t_next in pairwise(times):
        now = velocity(x, t)
        ahead = now if last is None else now + (now - last) * ((t - t_next) / (2 * (before - t)))
        x = euler_step(x, ahead, t, t_next)
        last, before = now, t
        yield x


METHODS: dict[SamplingMethod, Callable[[Velocity[Any], Any, Sequence[float]], Iterator[Any]]] = {
    'euler': euler,
    'heun': heun,
    'adams': adams,
}


def sample(
    velocity: Callable[[ArrayT, float, bool], ArrayT], noise: ArrayT, sampler: SamplerConfig
) -> Iterator[ArrayT]:
    """Yield the sample after each step of a sampler, at last the clean one.

    Whether a step is guided is decided at its beginning. Guidance jumps where its interval ends, so that methods and
    reuse begin anew there.

    :param velocity: of a sample at a time, and whether it is to be guided
    """
    x, times = noise, timesteps(sampler.num_timesteps, sampler.shift)
    steps = groupby(pairwise(times), lambda step: guidance_active(step[0], sampler))
    for guided, stretch in steps:
        ends = [*next(stretch), *(t_next for _, t_next in stretch)]
        asked = Reused(lambda x, t, guided=guided: velocity(x, t, guided), sampler.reuse)
        for following in METHODS[sampler.method](asked, x, ends):
            x = following
            yield x


class Reused(Generic[ArrayT]):
    """A velocity that is taken again while it is expected to have changed by less than a threshold.

    What is expected is the relative change between the last two evaluations, grown in proportion to time. The idea is
    that of TeaCache (Liu et al. 2024, arXiv 2411.19108), which watches the model's inputs instead. Of a batch the
    sample that changes most decides.

    :param threshold: relative change; 0 evaluates always
    """

    def __init__(self, velocity: Velocity[ArrayT], threshold: float) -> None:
        self._velocity, self._threshold = velocity, threshold
        self._last: tuple[float, ArrayT] | None = None
        self._rate: float | None = None

    def __call__(self, x: ArrayT, t: float) -> ArrayT:
        if self._threshold == 0:
            return self._velocity(x, t)
        if self._last is not None and self._rate is not None:
            before, velocity = self._last
            if self._rate * (before - t) < self._threshold:
                return velocity
        now = self._velocity(x, t)
        if self._last is not None and self._last[0] > t:
            before, velocity = self._last
            change = _norm(now - velocity, False) / (_norm(now, False) + _EPSILON)
            self._rate = float(change.max()) / (before - t)
        self._last = t, now
        return now


class Guided(Generic[ArrayT]):
    """The guided velocity over the steps of one image.

    With a ``guidance_period`` above 1 the branches without text and image are not computed every time: what they
    differed from the full one by last is taken again, since it changes less from step to step than they do (as in
    FasterCache, Lv et al. 2024, arXiv 2410.19355).

    :param branches: of a sample at a time, and whether all are wanted: the velocities under the full context and,
        where wanted, without the text and (above an image scale of 1) without the image
    """

    def __init__(self, branches: Callable[[ArrayT, float, bool], Sequence[ArrayT]], sampler: SamplerConfig) -> None:
        self._branches, self._sampler = branches, sampler
        self._offsets: list[ArrayT] = []
        self._count = 0

    def __call__(self, x: ArrayT, t: float, guided: bool) -> ArrayT:
        if not guided:
            return self._branches(x, t, False)[0]
        due = self._count % self._sampler.guidance_period == 0
        self._count += 1
        full, *others = self._branches(x, t, due)
        if not due:
            others = [full - offset for offset in self._offsets]
        elif self._sampler.guidance_period > 1:
            self._offsets = [full - other for other in others]
        return guide(full, others[0], others[1] if len(others) > 1 else None, self._sampler)


def parse_sampler(text: str) -> dict[str, Any]:
    """Read settings of a sampler: ``adams``, ``steps=4``, ``heun,steps=8,text_scale=1,reuse=0.1``.

    A word alone is a method, ``steps`` are one less than time points, all else are fields of :class:`SamplerConfig`.

    :returns: fields to change, by name
    :raises ValueError: a name is unknown or given twice, or a value is none that it can have
    """
    found: dict[str, Any] = {}
    for part in (part.strip() for part in text.split(',')):
        name, value = _setting(part) if part else ('', None)
        if name in found:
            raise ValueError(f'sampler setting {part!r} comes after another {name}; give one')
        if name:
            found[name] = value
    SamplerConfig(**found)
    return found


def _setting(part: str) -> tuple[str, Any]:
    numbers = {field.name: _NUMBERS[field.type] for field in fields(SamplerConfig) if field.type in _NUMBERS}
    name, given, value = part.partition('=')
    if not given and name in get_args(SamplingMethod):
        return 'method', name
    if name in ('method', 'renorm'):
        return name, value
    if name != 'steps' and name not in numbers:
        words = ', '.join([*get_args(SamplingMethod), 'steps=', *(f'{each}=' for each in numbers), 'renorm='])
        raise ValueError(f'sampler setting {part!r} is unknown; expected some of {words}')
    try:
        found = ('num_timesteps', int(value) + 1) if name == 'steps' else (name, numbers[name](value))
    except ValueError as error:
        raise ValueError(f'sampler setting {part!r} is no number') from error
    if not isfinite(found[1]) or (name == 'steps' and found[1] < 2):
        raise ValueError(f'sampler setting {part!r} cannot be; expected a finite number, and steps from 1')
    return found


def interpolate(clean: ArrayT, noise: ArrayT, t: TimeT) -> ArrayT:
    """Return ``(1 - t) * clean + t * noise``; ``t`` is a number or broadcasts against ``clean``."""
    return (1 - t) * clean + t * noise


def velocity_target(clean: ArrayT, noise: ArrayT) -> ArrayT:
    """Return what the model learns to predict at every noisy latent token."""
    return noise - clean
