"""Writes a golden case folder from the naive implementation: other sizes, shapes, images and splits than alpha's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from cooper_model.checkpoint import config_files
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from tests.model.naive import Naive, guided, sinusoids
from tests.model.naive_inputs import (
    CONFIG,
    GIVEN,
    GRID,
    LATENT_SIDES,
    PROMPTS,
    VIT_SIDES,
    cells,
    pixels_of,
    random_weights,
    seeded,
)
from tests.model.naive_train import TrainWriter


class Writer:
    def __init__(self, folder: Path):
        self.folder = folder
        with torch.device('meta'):
            shapes = Cooper(CONFIG), build_autoencoder(CONFIG.autoencoder)
        weights, vae_weights = (random_weights(module, seed) for seed, module in enumerate(shapes))
        self.vae = build_autoencoder(CONFIG.autoencoder)
        self.vae.load_state_dict(vae_weights)
        self.naive = Naive(weights, CONFIG)
        save_file(weights, folder / 'model.safetensors')
        save_file(vae_weights, folder / 'ae.safetensors')
        for name, content in config_files(CONFIG).items():
            (folder / name).write_text(json.dumps(content))
        pixels = torch.rand(*GIVEN, 3, generator=seeded(5)) * 255
        self.image = pixels.to(torch.uint8).numpy()
        seen = Image.fromarray(self.image).resize(LATENT_SIDES[::-1], Image.Resampling.BICUBIC)
        self.seen = np.array(seen)
        self.pixels = pixels_of(seen)
        self.vit_pixels = pixels_of(seen.resize(VIT_SIDES[::-1], Image.Resampling.BICUBIC))
        with torch.no_grad():
            self.latent = self.vae.encode(self.pixels[None])
        grid = (LATENT_SIDES[0] // 16, LATENT_SIDES[1] // 16)
        ask = self.text('Q')
        seen_pieces = [self.naive.latents(cells(self.latent[0]), grid, 0.0), self.naive.vision(self.vit_pixels)]
        self.full = [self.text('SYS'), *seen_pieces, ask]
        self.no_text, self.no_image = self.full[:-1], [self.full[0], ask]
        self.pipeline = ([*seen_pieces, ask], seen_pieces, [ask])
        self.layout: dict[str, Any] = {'prompts': PROMPTS}

    def text(self, name):
        return self.naive.text([CONFIG.tokens.start, *PROMPTS[name], CONFIG.tokens.end])

    def save(self, name, tensors):
        plain = {key: torch.as_tensor(value).detach() for key, value in tensors.items()}
        cast = {k: (v.float() if v.is_floating_point() else v).contiguous().clone() for k, v in plain.items()}
        save_file(cast, self.folder / f'{name}.safetensors')

    def dump(self, name, content):
        (self.folder / f'{name}.json').write_text(json.dumps(content))

    @torch.no_grad()
    def write_parts(self):
        image = torch.rand(1, 3, 24, 40, generator=seeded(7)) * 2 - 1
        latent = torch.randn(1, 16, 3, 5, generator=seeded(8))
        vae, c = self.vae, CONFIG.autoencoder
        moments = vae.encoder(image)
        mean = (moments[:, :16] - c.shift) * c.scale
        sampled = (moments[:, :16] + (moments[:, 16:] / 2).exp() * latent - c.shift) * c.scale
        decoded = [vae.decoder(z / c.scale + c.shift) for z in (latent, mean)]
        self.save('vae', {
            'image': image, 'noise': latent, 'moments': moments, 'latent_mean': mean, 'latent_sampled': sampled,
            'decode_latent': latent, 'decode_image': decoded[0], 'roundtrip_image': decoded[1],
        })  # fmt: skip
        images = [torch.rand(3, 14 * h, 14 * w, generator=seeded(h)) for h, w in ((2, 5), (3, 1), (1, 1))]
        runs = [self.naive.vit(image) for image in images]
        lengths = torch.tensor([10, 3, 1])
        side = CONFIG.vision.max_side
        self.save('vit', {
            **{key: torch.cat([run[key] for run in runs]) for key in runs[0]},
            **{f'image{i}': image for i, image in enumerate(images, 1)},
            'seqlens': lengths, 'cu_seqlens': torch.tensor([0, 10, 13, 14]),
            'position_ids': torch.tensor([*range(5), *range(side, side + 5), 0, side, 2 * side, 0]),
        })  # fmt: skip

    @torch.no_grad()
    def write_text(self):
        prompt = self.text('P')
        run, n = self.naive.run([prompt]), len(prompt.rows)
        logits, ids, last = self.naive.greedy([prompt], 7)
        d = CONFIG.decoder
        angles = torch.arange(n)[:, None] * d.rope_theta ** (-torch.arange(0, d.head_dim, 2).double() / d.head_dim)
        ids_in = [CONFIG.tokens.start, *PROMPTS['P'], CONFIG.tokens.end]
        tensors = {
            'input_ids': ids_in, 'position_ids': list(range(n)), 'embeddings': prompt.rows,
            'rope_cos': torch.cat([angles.cos()] * 2, -1), 'rope_sin': torch.cat([angles.sin()] * 2, -1),
            'hidden': run['hidden'][0], 'logits': self.naive.logits(run['hidden'][0]), 'decode_logits': logits,
            'decode_argmax': ids[1:], 'decode_returned_ids': ids[:-1],
        }  # fmt: skip
        for i in range(CONFIG.decoder.num_layers):
            tensors |= {f'layer{i}': run['layers'][i], f'k{i}': run['k'][i], f'v{i}': run['v'][i]}
            tensors |= {f'decoded_k{i}': last['k'][i], f'decoded_v{i}': last['v'][i]}
        self.save('text', tensors)
        start = {'packed_start_tokens': [3], 'packed_query_position_ids': [n], 'key_values_lens': [n]}
        self.layout['text_case'] = {'prefill': {'packed_text_ids': ids_in}, 'start': start}

    @torch.no_grad()
    def write_context(self):
        names = ['sys', 'vae', 'vit', 'q']
        run, bare = self.naive.run(self.full), self.naive.run(self.no_image)
        hidden = dict(zip(names, run['hidden'], strict=True))
        logits, ids, _ = self.naive.greedy(self.full, 3)
        tensors = {
            'image_uint8': self.image, 'image_resized_uint8': self.seen, 'vae_image': self.pixels[None],
            'vae_latent': self.latent, 'vit_patches': self.naive.vit(self.vit_pixels)['patches'],
            'vae_query_in': self.full[1].rows, 'vit_query_in': self.full[2].rows,
            'q_logits': self.naive.logits(hidden['q']), 'cfg_img_q_hidden': bare['hidden'][1],
            'decode_logits': logits, 'decode_argmax': ids[1:],
            **{f'{name}_hidden': value for name, value in hidden.items()},
        }  # fmt: skip
        for prefix, walked in (('gen_', run), ('cfg_img_', bare)):
            for i in range(CONFIG.decoder.num_layers):
                tensors |= {f'{prefix}k{i}': walked['k'][i], f'{prefix}v{i}': walked['v'][i]}
        self.save('context', tensors)
        self._write_stages(run, bare)

    def _write_stages(self, run, bare):
        side, vit_side = CONFIG.max_latent_side, CONFIG.vision.max_side
        entries = {
            'vae_image': {'packed_vae_position_ids': [r * side + c for r in range(3) for c in range(7)]},
            'vit_image': {'packed_vit_position_ids': [r * vit_side + c for r in range(2) for c in range(5)]},
        }
        kinds = {'vae_image': 'prepare_vae_images', 'vit_image': 'prepare_vit_images'}
        stages, start = [], 0
        for name, piece in zip(('sys_text', 'vae_image', 'vit_image', 'question_text'), self.full, strict=True):
            end = start + len(piece.rows)
            stage = {'stage': name, 'kind': kinds.get(name, 'prepare_prompts'), 'kv_len_after': end}
            stage['packed_position_ids'] = run['positions'][start:end]
            stage['rope_after'] = run['positions'][end] if end < len(run['positions']) else run['next']
            stages.append(stage | entries.get(name, {}))
            start = end
        for stage, key in ((stages[0], 'SYS'), (stages[3], 'Q')):
            stage['packed_text_ids'] = [CONFIG.tokens.start, *PROMPTS[key], CONFIG.tokens.end]
        total, after = len(bare['positions']), bare['next']
        stages.append(stages[3] | {
            'stage': 'cfg_img_question_text', 'kv_len_after': total, 'rope_after': after,
            'packed_position_ids': bare['positions'][len(self.full[0].rows):],
        })  # fmt: skip
        spot = [r * side + c for r in range(GRID[0]) for c in range(GRID[1])]
        places = {'edit_query_gen': run['next'], 'edit_query_cfg_text': stages[2]['rope_after'],
                  'edit_query_cfg_img': after, 't2i_query_gen': len(PROMPTS['T2I']) + 2}  # fmt: skip
        for name, place in places.items():
            positions = [place] * (len(spot) + 2)
            stages.append({'stage': name, 'kind': 'prepare_vae_latent', 'packed_vae_position_ids': spot,
                           'packed_position_ids': positions, 'cfg_packed_position_ids': positions})  # fmt: skip
        self.layout['stages'] = stages
        self.layout['context_kv_lens'] = {'gen': start, 'cfg_text': stages[2]['kv_len_after'], 'cfg_img': total}
        self.layout['context_ropes'] = {'gen': run['next'], 'cfg_text': stages[2]['rope_after'], 'cfg_img': after}
        self.dump('layout', self.layout)

    @torch.no_grad()
    def write_flow(self):
        x, t = torch.randn(10, 64, generator=seeded(9)), torch.tensor([0.37])
        contexts = (self.full, self.no_text, self.no_image)
        branches = [self.naive.velocity(pieces, x.double(), GRID, float(t)) for pieces in contexts]
        query = self.naive.latents(x.double(), GRID, float(t))
        grid = torch.tensor([0.0, 0.1, 1.0])
        text_only = [self.naive.velocity(p, x.double(), GRID, float(t)) for p in ([self.text('T2I')], [])]
        tensors = {
            't': t, 'x_t': x, 'time_freq': sinusoids(t), 'time_embed': self.naive.time(t), 'time_grid': grid,
            'time_grid_embed': self.naive.time(grid), 'query_in': query.rows,
            'query_hidden': self.naive.run([*self.full, query])['hidden'][-1],
            **dict(zip(('v_gen', 'v_cfg_text', 'v_cfg_img'), branches, strict=True)),
            'v_textscale1_imgscale2': branches[0], 't2i_v_gen': text_only[0],
            't2i_v_global': guided(*text_only, text_only[0], 3.0, 1.0, 'global', 0.0),
        }  # fmt: skip
        for renorm in ('global', 'channel', 'text_channel'):
            tensors[f'v_{renorm}'] = guided(*branches, 3.0, 1.5, renorm, 0.0)
            tensors[f'v_{renorm}_min07'] = guided(*branches, 3.0, 1.5, renorm, 0.7)
            tensors[f'v_{renorm}_textonly'] = guided(*branches, 3.0, 1.0, renorm, 0.0)
        self.save('flow', tensors)

    @torch.no_grad()
    def write_generate(self):
        base = {'num_timesteps': 4, 'timestep_shift': 2.0, 'cfg_text_scale': 3.0, 'cfg_img_scale': 1.5,
                'cfg_interval': [0.0, 1.0], 'cfg_renorm_min': 0.0, 'cfg_renorm_type': 'global'}  # fmt: skip
        changes = {'main': {}, 'steps7': {'num_timesteps': 7}, 'channel': {'cfg_renorm_type': 'channel'},
                   'interval': {'cfg_interval': [0.55, 0.9]}, 'nocfg': {'cfg_text_scale': 1.0, 'cfg_img_scale': 1.0},
                   't2i': {'cfg_img_scale': 1.0}}  # fmt: skip
        noise = torch.randn(10, 64, generator=seeded(10))
        contexts, text = (self.full, self.no_text, self.no_image), [self.text('T2I')]
        tensors, calls = {'initial_noise': noise}, {}
        for name, change in changes.items():
            args = base | change
            kept, calls[name] = self._generate((text, [], text) if name == 't2i' else contexts, noise, GRID, args)
            tensors[f'{name}_latent'] = kept['x'][-1]
            if name == 'main':
                tensors |= {'main_x': torch.stack(kept['x'][:-1]), 'main_v': torch.stack(kept['v'])}
                tensors |= self._picture('main', kept['x'][-1], GRID)
        grid = (LATENT_SIDES[0] // 16, LATENT_SIDES[1] // 16)
        tensors['pipeline_noise'] = noise = torch.randn(grid[0] * grid[1], 64, generator=seeded(11))
        args = base | {'cfg_renorm_type': 'text_channel'}
        kept, _ = self._generate(self.pipeline, noise, grid, args)
        tensors |= self._picture('pipeline', kept['x'][-1], grid)
        self.save('generate', tensors)
        self.dump('generate', {'calls': calls, 'pipeline': {'noise_shape': list(noise.shape), 'args': args}})

    def _generate(self, contexts, noise, grid, args):
        line = torch.linspace(1, 0, args['num_timesteps']).double()
        times = (args['timestep_shift'] * line / (1 + (args['timestep_shift'] - 1) * line)).tolist()
        kept = {'x': [noise.double()], 'v': []}
        scales = []
        for t, after in zip(times[:-1], times[1:], strict=True):
            x, (low, high) = kept['x'][-1], args['cfg_interval']
            scales.append((args['cfg_text_scale'], args['cfg_img_scale']) if low < t <= high else (1.0, 1.0))
            branches = [self.naive.velocity(pieces, x, grid, t) for pieces in contexts]
            kept['v'].append(guided(*branches, *scales[-1], args['cfg_renorm_type'], args['cfg_renorm_min']))
            kept['x'].append(x - kept['v'][-1] * (t - after))
        text, image = (list(part) for part in zip(*scales, strict=True))
        return kept, {'args': args, 't_per_call': times[:-1], 'cfg_text_per_call': text, 'cfg_img_per_call': image}

    def _picture(self, name, tokens, grid):
        latent = tokens.float().reshape(*grid, 2, 2, 16).permute(4, 0, 2, 1, 3).reshape(1, 16, grid[0] * 2, grid[1] * 2)
        raw = self.vae.decode(latent)
        picture = (raw[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
        return {f'{name}_latent_chw': latent, f'{name}_decoded_raw': raw, f'{name}_depth': picture.mean(-1),
                f'{name}_image_uint8': (picture * 255).to(torch.uint8)}  # fmt: skip

    def write_train(self):
        TrainWriter(self).write()

    def write(self):
        for write in (self.write_parts, self.write_text, self.write_context, self.write_flow, self.write_generate):
            write()
        self.write_train()


def write_case(folder: Path) -> None:
    """Write every section but preprocessing, which no model computes."""
    Writer(folder).write()
