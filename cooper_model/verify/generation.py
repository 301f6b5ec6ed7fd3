"""Sections of contexts with images, of one velocity with its guidance, and of whole generated images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cooper_model import transforms
from cooper_model.backends.base import Guidance
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import SamplerConfig
from cooper_model.context import Context
from cooper_model.flow import guidance_active, guide, timesteps
from cooper_model.network.embeddings import grid_ids, time_sinusoids
from cooper_model.network.vision import patch_rows
from cooper_model.verify.blocks import check_cache, check_greedy
from cooper_model.verify.case import Case, sampler_of
from cooper_model.verify.record import CALL, LEVEL, Section, Tolerance, in_sequence, recorded

TIMES = Tolerance(1e-6)


@torch.inference_mode()
def verify_context(case: Case, section: Section) -> None:
    """Compare every segment of the stages, the caches behind them, and text decoded after all."""
    shared, config = case.contexts, case.config
    section.check('image_resized_uint8', shared.seen, LEVEL)
    section.check('vae_image', shared.pixels[None])
    section.check('vae_latent', shared.latents)
    section.check('vit_patches', patch_rows(torch.from_numpy(shared.vision)[None], config.vision.patch_size)[0])
    _check_layout(case, section)
    steps = shared.steps
    for prefix, stage in (('vae', 'vae_image'), ('vit', 'vit_image')):
        section.check(f'{prefix}_query_in', steps[stage].inputs)
        section.check(f'{prefix}_hidden', steps[stage].hidden)
    section.check('sys_hidden', steps['sys_text'].hidden)
    section.check('q_hidden', steps['question_text'].hidden)
    section.check('q_logits', case.model.logits(steps['question_text'].hidden))
    section.check('cfg_img_q_hidden', steps['cfg_img_question_text'].hidden)
    check_cache(section, shared.full, 'gen_')
    check_cache(section, shared.no_image, 'cfg_img_')
    check_greedy(case, section, shared.full.fork())


def _check_layout(case: Case, section: Section) -> None:
    """Compare ids, positions and lengths of all stages."""
    shared, config = case.contexts, case.config
    patch = config.latent_patch_size
    grids = {
        'packed_vae_position_ids': ([side // patch for side in shared.latents.shape[2:]], config.max_latent_side),
        'packed_vit_position_ids': (
            [side // config.vision.patch_size for side in shared.vision.shape[1:]],
            config.vision.max_side,
        ),
    }
    for name, step in shared.steps.items():
        stage = case.stage(name)
        length, position = shared.after[name]
        section.same(f'{name}.kv_len_after', length, stage['kv_len_after'])
        section.same(f'{name}.rope_after', position, stage['rope_after'])
        recorded_positions = stage.get('packed_position_ids', stage.get('packed_text_position_ids'))
        section.same(f'{name}.positions', step.positions, recorded_positions)
        for key, ((rows, columns), side) in grids.items():
            if key in stage:
                section.same(f'{name}.{key}', grid_ids(rows, columns, side).tolist(), stage[key])
    for key, walk in (('gen', shared.full), ('cfg_text', shared.no_text), ('cfg_img', shared.no_image)):
        section.same(f'context_kv_lens.{key}', len(walk.context), case.layout['context_kv_lens'][key])
        section.same(f'context_ropes.{key}', walk.context.position, case.layout['context_ropes'][key])


@torch.inference_mode()
def verify_flow(case: Case, section: Section) -> None:
    """Embed times, predict the velocity in three contexts as one batch, and guide it in every recorded way."""
    model, backend = case.model, case.backend
    times = case.tensor(section.tensor('t'))
    section.check('time_freq', time_sinusoids(times))
    section.check('time_embed', model.time_embedder(times))
    section.check('time_grid_embed', model.time_embedder(case.tensor(section.tensor('time_grid'))))
    x, t = case.tensor(section.tensor('x_t')), float(times[0])
    grid = _stage_grid(case, 'edit_query_gen')
    edit = case.edit_guidance
    with recorded(decoder=model.language_model.model) as calls:
        branches = list(backend.velocity([edit.full, edit.no_text, edit.no_image], x, grid, t))
    (streams, positions, _), hidden = calls['decoder'][0]
    section.check('query_in', in_sequence(streams))
    section.check('query_hidden', in_sequence(hidden))
    for row, name in enumerate(('packed_position_ids', 'cfg_packed_position_ids', 'cfg_packed_position_ids')):
        stage = ('edit_query_gen', 'edit_query_cfg_text', 'edit_query_cfg_img')[row]
        section.same(f'{stage}.{name}', positions[row].tolist(), case.stage(stage)[name])
    for name, velocity in zip(('v_gen', 'v_cfg_text', 'v_cfg_img'), branches, strict=True):
        section.check(name, velocity)
    base = sampler_of(case.json('generate')['calls']['main']['args'])
    for name in section.names():
        sampler = _named_sampler(name, _stated_scales(case, name, base))
        if sampler is not None:
            section.check(name, guide(*branches, sampler))
    text = case.text_guidance
    x_grid = _stage_grid(case, 't2i_query_gen')
    full, no_text = backend.velocity([text.full, text.no_text], x, x_grid, t)
    section.check('t2i_v_gen', full)
    sampler = replace(_stated_scales(case, 't2i_v_global', base), image_scale=1.0, renorm='global')
    section.check('t2i_v_global', guide(full, no_text, None, sampler))


def _named_sampler(name: str, base: SamplerConfig) -> SamplerConfig | None:
    """Return the guidance that the name of a velocity states, or None for another tensor."""
    scales = re.fullmatch(r'v_textscale(\d+)_imgscale(\d+)', name)
    if scales:
        return replace(base, text_scale=float(scales[1]), image_scale=float(scales[2]))
    renorm = re.fullmatch(r'v_(global|channel|text_channel)(?:_min(\d+)|(_textonly))?', name)
    if not renorm:
        return None
    least = float(f'{renorm[2][0]}.{renorm[2][1:]}') if renorm[2] else 0.0
    return replace(
        base, renorm=renorm[1], renorm_min=least, image_scale=1.0 if renorm[3] else base.image_scale
    )


def _stated_scales(case: Case, name: str, base: SamplerConfig) -> SamplerConfig:
    """Return ``base`` with the scales of the tensor's row in the case's description, its only place, if given."""
    readme = case.folder / 'README.md'
    text = readme.read_text(encoding='utf-8') if readme.is_file() else ''
    row = re.search(rf'^\| {re.escape(name)} \|.*?text scale ([\d.]+), image scale ([\d.]+)', text, re.MULTILINE)
    return replace(base, text_scale=float(row[1]), image_scale=float(row[2])) if row else base


def _stage_grid(case: Case, stage: str) -> tuple[int, int]:
    return case.grid_of(case.stage(stage)['packed_vae_position_ids'], case.config.max_latent_side)


class _KeptDecode(nn.Module):
    """Passes through to an autoencoder and keeps what was decoded last."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.inner = autoencoder

    def encode(self, images: Tensor) -> Tensor:
        return self.inner.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        self.latents, self.images = latents, self.inner.decode(latents)
        return self.images


class _KeptSteps(TorchBackend):
    """The back end as it is, keeping the state, time and velocity of every step of generation."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.model, _KeptDecode(case.autoencoder))
        self.states: list[Tensor] = []
        self.times: list[float] = []
        self.velocities: list[Tensor] = []

    def _sample(
        self, velocity: Callable[[Tensor, float, bool], Tensor], noise: Tensor, sampler: SamplerConfig
    ) -> Iterator[Tensor]:
        def kept(x: Tensor, t: float, guided: bool) -> Tensor:
            found = velocity(x, t, guided)
            self.states.append(x[0].clone())
            self.times.append(t)
            self.velocities.append(found[0].clone())
            return found

        return super()._sample(kept, noise, sampler)

    def run(
        self, guidance: Guidance[Context], grid: tuple[int, int], sampler: SamplerConfig, noise: np.ndarray
    ) -> np.ndarray:
        """Generate one image and return it, ``(height, width, 3)`` in 0..1."""
        stride = self.config.latent_stride
        *_, picture = self.generate(guidance, grid[0] * stride, grid[1] * stride, sampler, noise)
        return picture


@torch.inference_mode()
def verify_generate(case: Case, section: Section) -> None:
    """Generate with the arguments of every recorded call, through the back end's own loop."""
    settings = case.json('generate')
    patch = case.config.latent_patch_size
    noise = section.array('initial_noise')
    for name, call in settings['calls'].items():
        text_only = name.startswith('t2i')
        guidance = case.text_guidance if text_only else case.edit_guidance
        grid = _stage_grid(case, 't2i_query_gen' if text_only else 'edit_query_gen')
        sampler = sampler_of(call['args'])
        backend = _KeptSteps(case)
        picture = backend.run(guidance, grid, sampler, noise)
        _check_schedule(section, name, call, sampler, backend.times)
        latents = backend.autoencoder.latents
        section.check_known(f'{name}_latent', transforms.latent_tokens(latents, patch)[0])
        section.check_known(f'{name}_x', torch.stack(backend.states))
        section.check_known(f'{name}_v', torch.stack(backend.velocities))
        _check_picture(section, name, backend, picture)
    if 'pipeline' in settings:
        _check_pipeline(case, section, settings['pipeline'])


def _check_schedule(
    section: Section, name: str, call: dict[str, Any], sampler: SamplerConfig, times: list[float]
) -> None:
    section.close(f'{name}.t_per_call', times, call['t_per_call'], TIMES)
    section.close(f'{name}.times', timesteps(sampler.num_timesteps, sampler.shift)[:-1], times, TIMES)
    active = [guidance_active(t, sampler) for t in times]
    text = [sampler.text_scale if on else 1.0 for on in active]
    section.same(f'{name}.cfg_text_per_call', text, call['cfg_text_per_call'])
    if sampler.text_scale > 1:
        image = [sampler.image_scale if on else 1.0 for on in active]
        section.same(f'{name}.cfg_img_per_call', image, call['cfg_img_per_call'])


def _check_picture(section: Section, name: str, backend: _KeptSteps, picture: np.ndarray) -> None:
    section.check_known(f'{name}_latent_chw', backend.autoencoder.latents)
    section.check_known(f'{name}_decoded_raw', backend.autoencoder.images)
    section.check_known(f'{name}_image_uint8', transforms.to_uint8(picture), LEVEL)
    section.check_known(f'{name}_depth', transforms.picture_to_relative(picture))
    if f'{name}_depth_colored' in section:
        # Colours jump from one entry of the map to the next, so they are compared for the same depth.
        colours = transforms.colour_depth(section.array(f'{name}_depth'))
        section.check(f'{name}_depth_colored', colours.transpose(2, 0, 1))
        section.check_known(f'{name}_depth_colored_uint8', transforms.to_uint8(colours), LEVEL)


def _check_pipeline(case: Case, section: Section, settings: dict[str, Any]) -> None:
    """Run the front end's use: image, then question, no system text; each branch leaves out one of the two."""
    image = case.section('context', CALL).array('image_uint8')
    question = case.prompts['Q']
    backend = _KeptSteps(case)
    no_text, no_image = backend.new_context(), backend.new_context()
    backend.append_image(no_text, image, latents=True, vision=True)
    full = backend.fork(no_text)
    backend.append_text(full, question)
    backend.append_text(no_image, question)
    noise = section.array('pipeline_noise')
    section.same('pipeline.noise_shape', list(noise.shape), settings['noise_shape'])
    stride = case.config.latent_stride
    height, width = backend.image_size(*image.shape[:2])
    guidance = Guidance(full, no_text, no_image)
    picture = backend.run(guidance, (height // stride, width // stride), sampler_of(settings['args']), noise)
    _check_picture(section, 'pipeline', backend, picture)
