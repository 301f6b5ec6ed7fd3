"""The section of packed training: one forward pass over several samples, its losses and every gradient."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cooper_model.flow import interpolate, shift_time, velocity_target
from cooper_model.network.decoder import GENERATION, Streams
from cooper_model.network.embeddings import grid_ids
from cooper_model.packing import Output, Packed, PackedImages, Segment, pack, packed_forward
from cooper_model.transforms import latent_tokens, tokens_to_latents
from cooper_model.verify.case import Case, by_plain_layers
from cooper_model.verify.record import TRAINED, Section, Tolerance, recorded

# Exactly zero on paper, rounding noise in float32.
VANISHING = Tolerance(1e-6)


@dataclass(frozen=True)
class Plan:
    """The recorded sequence cut into segments.

    :param samples: segments of each sample
    :param understanding, generation: places of each sample's tokens in the sequence, by expert
    """

    samples: list[list[Segment]]
    understanding: list[list[int]]
    generation: list[list[int]]


@dataclass(frozen=True)
class Truth:
    """Latent images before noise is mixed in, in order: ``(tokens, latent_dim)`` each; which are generated."""

    clean: list[Tensor]
    noise: list[Tensor]
    noisy: list[bool]


def verify_train(case: Case, section: Section) -> None:
    """Rebuild the recorded batch by our own packing, run it, and compare masks, losses and gradients."""
    settings = case.json('train')
    plan = _plan(case, section, settings)
    batch = pack(plan.samples, case.config)
    _check_packing(section, plan, batch, settings)
    images, truth = _images(case, section, plan, settings)
    model = case.model.requires_grad_(True)
    try:
        with by_plain_layers(model), recorded(decoder=model.language_model.model) as calls:
            output = packed_forward(model, batch, images)
        hidden = _unpack(calls['decoder'][0].output, plan)
        section.check('hidden', hidden)
        losses = (_text_loss(case, section, settings, hidden), _flow_loss(section, truth, output))
        total = sum(w * loss for w, loss in zip(_loss_weights(settings), losses, strict=True))
        section.check('loss_total', total, TRAINED)
        total.backward()
        _check_gradients(case, section, settings)
    finally:
        model.requires_grad_(False)
        for parameter in model.parameters():
            parameter.grad = None


def _plan(case: Case, section: Section, settings: dict[str, Any]) -> Plan:
    """Cut the sequence at the recorded splits; latent and ViT splits are told by the places of their tokens."""
    ids = dict(zip(*(section.array(n).tolist() for n in ('packed_text_indexes', 'packed_text_ids')), strict=True))
    vae = set(section.array('packed_vae_token_indexes').tolist())
    vit_places = section.array('packed_vit_token_indexes').tolist()
    vit_ids = dict(zip(vit_places, section.array('packed_vit_position_ids').tolist(), strict=True))
    labels = dict(zip(*(section.array(n).tolist() for n in ('ce_loss_indexes', 'packed_label_ids')), strict=True))
    splits = iter(zip(settings['split_lens'], settings['attn_modes'], strict=True))
    grids = iter(settings['patchified_vae_latent_shapes'])
    plan = Plan([], [], [])
    start = latents = visions = 0
    for length in settings['sample_lens']:
        segments: list[Segment] = []
        end = start + length
        plan.understanding.append([i for i in range(start, end) if i not in vae])
        plan.generation.append([i for i in range(start, end) if i in vae])
        while start < end:
            size, mode = next(splits)
            places = range(start, start + size)
            sees = tuple(i for i, earlier in enumerate(segments) if earlier.kind != 'noise')
            if mode == 'causal':
                named = tuple(labels.get(i, -100) for i in places)
                segment = Segment('text', sees, tuple(ids[i] for i in places), named)
            elif start + 1 in vae:
                kind = 'noise' if mode == 'noise' else 'latents'
                segment = Segment(kind, sees, image=latents, grid=tuple(next(grids)))
                latents += 1
            else:
                grid = case.grid_of([vit_ids[i] for i in places[1:-1]], case.config.vision.max_side)
                segment = Segment('vision', sees, image=visions, grid=grid)
                visions += 1
            segments.append(segment)
            start += size
        plan.samples.append(segments)
    return plan


def _check_packing(section: Section, plan: Plan, batch: Packed, settings: dict[str, Any]) -> None:
    """Compare who sees whom, positions and ids of our packed batch with the recorded ones."""
    total = settings['sequence_length']
    allowed = np.zeros((total, total), dtype=np.uint8)
    positions = np.zeros(total, dtype=np.int64)
    ids = np.zeros(total, dtype=np.int64)
    width_u = batch.ids.shape[1]
    for row, (und, gen) in enumerate(zip(plan.understanding, plan.generation, strict=True)):
        places = np.array([*und, *gen])
        columns = np.array([*range(len(und)), *range(width_u, width_u + len(gen))])
        allowed[np.ix_(places, places)] = batch.mask[row].numpy()[np.ix_(columns, columns)]
        positions[places] = batch.positions[row].numpy()[columns]
        ids[und] = batch.ids[row, : len(und)].numpy()
    section.check('attention_allowed', allowed)
    section.check('packed_position_ids', positions)
    section.check('packed_text_ids', ids[section.array('packed_text_indexes')])
    vision = [segment for sample in plan.samples for segment in sample if segment.kind == 'vision']
    section.check('vit_token_seqlens', [segment.tokens - 2 for segment in vision])


def _images(
    case: Case, section: Section, plan: Plan, settings: dict[str, Any]
) -> tuple[PackedImages, Truth]:
    """Return the batch's images, and what its latent images are made of."""
    config, patch = case.config, case.config.latent_patch_size
    segments = [segment for sample in plan.samples for segment in sample]
    with torch.no_grad():
        padded = case.autoencoder.encode(case.tensor(section.tensor('padded_images')))
    section.check('padded_latent', padded)
    raw = section.tensor('packed_timesteps')
    effective = shift_time(raw.sigmoid(), settings['timestep_shift'])
    section.check('timesteps_effective', effective)
    all_noise = case.tensor(section.tensor('noise'))
    latents, times, grids, entries = [], [], [], []
    truth = Truth([], [], [])
    start = 0
    for segment in segments:
        if segment.kind not in ('latents', 'noise'):
            continue
        rows, columns = segment.grid
        count = rows * columns
        own = latent_tokens(padded[segment.image, :, : rows * patch, : columns * patch], patch)
        time = float(effective[start])
        section.same(f'latent image {segment.image} is clean', time == 0, segment.kind == 'latents')
        truth.clean.append(own)
        truth.noise.append(all_noise[start : start + count])
        truth.noisy.append(segment.kind == 'noise')
        latents.append(interpolate(own, truth.noise[-1], time))
        times.append(time)
        grids.append(segment.grid)
        entries.append(grid_ids(rows, columns, config.max_latent_side))
        start += count
    section.check('packed_latent_position_ids', torch.cat(entries))
    vision = _vision_images(case, section, segments)
    return PackedImages(vision, latents, times, grids), truth


def _vision_images(case: Case, section: Section, segments: list[Segment]) -> list[Tensor]:
    """Put the recorded patch rows together again to images ``(3, height, width)``."""
    patch = case.config.vision.patch_size
    rows = case.tensor(section.tensor('packed_vit_tokens'))
    grids = [segment.grid for segment in segments if segment.kind == 'vision']
    parts = rows.split([a * b for a, b in grids])
    return [tokens_to_latents(part, grid, patch) for part, grid in zip(parts, grids, strict=True)]


def _unpack(streams: Streams, plan: Plan) -> Tensor:
    """Return the final hidden states in the order of the recorded sequence, ``(tokens, dim)``."""
    places, rows = [], []
    for row, (und, gen) in enumerate(zip(plan.understanding, plan.generation, strict=True)):
        places += [*und, *gen]
        rows.append(streams.understanding[row, : len(und)])
        if gen:
            rows.append(streams.generation[row, : len(gen)])
    joined = torch.cat(rows)
    return joined[torch.tensor(places, device=joined.device).argsort()]


def _loss_weights(settings: dict[str, Any]) -> tuple[float, float]:
    found = re.match(r'([\d.]+)\*mean\(ce\) \+ ([\d.]+)\*mean', settings['loss_definition'])
    if not found:
        raise ValueError(f'train.json: loss_definition {settings["loss_definition"]!r} is not understood')
    return float(found[1]), float(found[2])


def _text_loss(case: Case, section: Section, settings: dict[str, Any], hidden: Tensor) -> Tensor:
    """Compare the cross-entropy of every label, and return its mean."""
    logits = case.model.logits(hidden[case.tensor(section.tensor('ce_loss_indexes'))])
    labels = case.tensor(section.tensor('packed_label_ids'))
    each = F.cross_entropy(logits, labels, reduction='none')
    weights = case.tensor(_label_weights(case, section, settings))
    section.check('ce_logits', logits)
    section.check('ce', each)
    section.check('ce_loss_weights', weights)
    section.check('loss_ce_mean', each.mean(), TRAINED)
    section.check('loss_ce_reweighted', (each * weights).sum() / weights.sum(), TRAINED)
    return each.mean()


def _flow_loss(section: Section, truth: Truth, output: Output) -> Tensor:
    """Compare the squared error of every predicted velocity, and return its mean."""
    pairs = zip(truth.clean, truth.noise, truth.noisy, strict=True)
    target = torch.cat([velocity_target(clean, noise) for clean, noise, noisy in pairs if noisy])
    predicted = torch.cat(output.velocities)
    squared = (predicted - target).square()
    lengths = [len(tokens) for tokens in truth.clean]
    places = section.array('packed_vae_token_indexes')[np.repeat(truth.noisy, lengths)]
    section.check('mse_loss_indexes', places)
    section.check('mse_pred', predicted)
    section.check('mse', squared)
    section.check('loss_mse_mean', squared.mean(), TRAINED)
    return squared.mean()


def _label_weights(case: Case, section: Section, settings: dict[str, Any]) -> Tensor:
    """Return one over the root of a text's number of labels; 1 for the marker label behind a text."""
    labels = section.tensor('packed_label_ids')
    ends = torch.tensor(settings['split_lens']).cumsum(0)
    split = torch.bucketize(section.tensor('ce_loss_indexes'), ends, right=True)
    marker = labels == case.config.tokens.image_start
    counts = torch.bincount(split[~marker], minlength=len(ends))
    return torch.where(marker, torch.ones(()), counts[split].float().rsqrt())


def _check_gradients(case: Case, section: Section, settings: dict[str, Any]) -> None:
    """Compare the norm of every parameter's gradient, of every group, and the recorded gradients in full."""
    gradients = {name: value.grad for name, value in case.model.named_parameters()}
    norms = {name: float(g.norm()) for name, g in gradients.items() if g is not None}
    without = {*settings['grad_none'], *settings['grad_zero']}
    section.same('parameters with a gradient', {n for n in norms if n not in without}, set(settings['grad_norms']))
    for name in without & set(norms):
        section.close(f'gradient norm of {name}', norms[name], 0.0, VANISHING)
    vanishing = set(settings['grad_mathematically_zero'])
    for name, expected in settings['grad_norms'].items():
        tolerance = VANISHING if name in vanishing else TRAINED
        section.close(f'gradient norm of {name}', norms.get(name, 0.0), expected, tolerance)
    for group, expected in settings['grad_norm_groups'].items():
        members = [norm for name, norm in norms.items() if _belongs(name, group)]
        section.close(f'gradient norm of group {group}', float(np.linalg.norm(members)), expected, TRAINED)
    for name in section.names():
        if name.startswith('grad.'):
            expected = section.array(name)
            # Single elements may be near zero: the error is measured against the tensor's typical element too.
            typical = float(np.sqrt(np.square(expected, dtype=np.float64).mean()))
            tolerance = Tolerance(TRAINED.relative * typical, TRAINED.relative)
            section.check(name, gradients.get(name.removeprefix('grad.'), torch.zeros(())), tolerance)


def _belongs(name: str, group: str) -> bool:
    if group in ('llm_und', 'llm_gen'):
        return name.startswith('language_model.model.layers.') and (GENERATION in name) == (group == 'llm_gen')
    return name == group or name.startswith(f'{group}.')
