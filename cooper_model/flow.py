"""Rectified flow: times, guidance and the Euler step as pure functions.

Noise is reached at t = 1 and the clean latents at t = 0: ``x_t = (1 - t) * clean + t * noise``, and the model
predicts ``v = noise - clean``. Everything here is elementwise arithmetic and sums that torch tensors and
NumPy arrays both know; velocities are ``(..., tokens, channels)``, leading axes are independent samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cooper_model.config import SamplerConfig

if TYPE_CHECKING:
    from torch import Tensor

ArrayT = TypeVar('ArrayT', 'Tensor', np.ndarray)
TimeT = TypeVar('TimeT', 'Tensor', np.ndarray, float)

_EPSILON = 1e-8


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


def interpolate(clean: ArrayT, noise: ArrayT, t: TimeT) -> ArrayT:
    """Return ``(1 - t) * clean + t * noise``; ``t`` is a number or broadcasts against ``clean``."""
    return (1 - t) * clean + t * noise


def velocity_target(clean: ArrayT, noise: ArrayT) -> ArrayT:
    """Return what the model learns to predict at every noisy latent token."""
    return noise - clean
