"""Writes the training section of the naive case: one packed sequence, its losses and all gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from tests.model.naive_inputs import CONFIG, cells, seeded

if TYPE_CHECKING:
    from tests.model.naive_case import Writer


class TrainWriter:
    """Three samples: an image read, an image drawn from text, and an image drawn, seen again and talked about."""

    SAMPLES = (
        (('vit', (2, 3)), ('loss', [70, 71, 72, 73])),
        (('text', [80]), ('noise', (2, 2), 0.9), ('text', [81, 82])),
        (('vae', (3, 1)), ('noise', (1, 4), -0.4), ('vae', (1, 4)), ('vit', (1, 2)), ('marked', [90, 91]),
         ('loss', [92])),
    )  # fmt: skip

    def __init__(self, writer: Writer):
        self.writer, self.naive = writer, writer.naive
        self.sequence: list[tuple] = []
        self.out: dict[str, list] = {key: [] for key in (
            'packed_text_ids', 'packed_text_indexes', 'packed_vae_token_indexes', 'packed_vit_token_indexes',
            'packed_vit_position_ids', 'packed_latent_position_ids', 'vit_token_seqlens', 'ce_loss_indexes',
            'packed_label_ids', 'mse_loss_indexes', 'packed_position_ids', 'ce_loss_weights',
        )}  # fmt: skip
        self.settings: dict[str, Any] = {
            'sample_lens': [], 'split_lens': [], 'attn_modes': [], 'patchified_vae_latent_shapes': [],
            'timestep_shift': 2.0, 'loss_definition': '0.5*mean(ce) + 2.0*mean over the rest',
        }  # fmt: skip

    def write(self):
        shapes = [s[1] for sample in self.SAMPLES for s in sample if s[0] in ('vae', 'noise')]
        padded = torch.zeros(len(shapes), 3, 48, 64)
        for i, (rows, columns) in enumerate(shapes):
            padded[i, :, : rows * 16, : columns * 16] = torch.rand(3, rows * 16, columns * 16, generator=seeded(i))
        with torch.no_grad():
            latent = self.writer.vae.encode(padded)
        self.latents = [cells(z[:, : r * 2, : c * 2]).double() for z, (r, c) in zip(latent, shapes, strict=True)]
        self.noises = [torch.randn(r * c, 64, generator=seeded(40 + i)).double() for i, (r, c) in enumerate(shapes)]
        self.settings['patchified_vae_latent_shapes'] = shapes
        self.pieces, self.modes, self.owner, self.raw, self.targets, self.patches = [], [], [], [], [], []
        for number, sample in enumerate(self.SAMPLES):
            start, place = sum(self.settings['sample_lens']), 0
            for entry in sample:
                place += self._split(number, place, *entry)
            self.settings['sample_lens'].append(sum(self.settings['split_lens']) - start)
        self._finish(padded, latent)

    def _split(self, number, place, kind, content, raw=None):
        start, tokens = sum(self.settings['split_lens']), CONFIG.tokens
        if isinstance(content, list):
            ids = [tokens.start, *content, tokens.end]
            piece = self.naive.text(ids)
            inside, mode = range(start, start + len(ids)), 'causal'
            if kind != 'text':
                self.out['ce_loss_indexes'] += list(inside)[: len(ids) - (kind == 'loss')]
                self.out['packed_label_ids'] += [*ids[1:], *[tokens.image_start] * (kind == 'marked')]
                count = len(ids) - 1
                self.out['ce_loss_weights'] += [count**-0.5] * count + [1.0] * (kind == 'marked')
        else:
            ids, mode = [tokens.image_start, tokens.image_end], 'noise' if kind == 'noise' else 'full'
            inner = range(start + 1, start + 1 + content[0] * content[1])
            inside = [start, inner.stop]
            table = [r * (CONFIG.vision.max_side if kind == 'vit' else CONFIG.max_latent_side) + c
                     for r in range(content[0]) for c in range(content[1])]  # fmt: skip
            if kind == 'vit':
                image = torch.rand(3, content[0] * 14, content[1] * 14, generator=seeded(start))
                piece = self.naive.vision(image)
                self.patches.append(self.naive.vit(image)['patches'])
                self.out['packed_vit_token_indexes'] += inner
                self.out['packed_vit_position_ids'] += table
                self.out['vit_token_seqlens'].append(len(table))
            else:
                piece = self._latents(content, kind, raw)
                self.out['packed_vae_token_indexes'] += inner
                self.out['packed_latent_position_ids'] += table
                if kind == 'noise':
                    self.out['mse_loss_indexes'] += inner
        self.out['packed_text_ids'] += ids
        self.out['packed_text_indexes'] += inside
        n = len(piece.rows)
        self.out['packed_position_ids'] += range(place, place + n) if mode == 'causal' else [place] * n
        self.settings['split_lens'].append(n)
        self.settings['attn_modes'].append(mode)
        self.pieces.append(piece)
        self.modes += [mode] * n
        self.owner += [number] * n
        return piece.consumed

    def _latents(self, grid, kind, raw):
        clean, noise = self.latents[len(self.raw)], self.noises[len(self.raw)]
        s = 1 / (1 + np.exp(-raw)) if kind == 'noise' else 0.0
        t = 2.0 * s / (1 + s)
        self.raw.append((raw if kind == 'noise' else -np.inf, t, len(clean)))
        if kind == 'noise':
            self.targets.append(noise - clean)
        return self.naive.latents((1 - t) * clean + t * noise, grid, t, consumed=kind != 'noise')

    def _finish(self, padded, latent):
        lengths = torch.tensor(self.settings['split_lens'])
        split = torch.arange(len(lengths)).repeat_interleave(lengths)
        owner, n = torch.tensor(self.owner), int(lengths.sum())
        noisy, causal = (torch.tensor([m == mode for m in self.modes]) for mode in ('noise', 'causal'))
        same, earlier = split[:, None] == split, split[:, None] > split
        inside = same & (~causal[:, None] | torch.ones(n, n).tril().bool())
        allowed = (inside | (earlier & ~noisy)) & (owner[:, None] == owner)
        flags = [flag for piece in self.pieces for flag in piece.generation]
        rows = torch.cat([piece.rows for piece in self.pieces])
        hidden = self.naive.decode(rows, flags, self.out['packed_position_ids'], allowed)[0]
        logits = self.naive.logits(hidden[self.out['ce_loss_indexes']])
        ce = F.cross_entropy(logits, torch.tensor(self.out['packed_label_ids']), reduction='none')
        predicted = self.naive.linear('llm2vae', hidden[self.out['mse_loss_indexes']])
        mse = (predicted - torch.cat(self.targets)).pow(2)
        total = 0.5 * ce.mean() + 2.0 * mse.mean()
        total.backward()
        grads = {name: value.grad for name, value in self.naive.w.items()}
        norms = {name: float(g.norm()) for name, g in grads.items()}
        zero = [name for name in norms if 'vision_model' in name and name.endswith('k_proj.bias')]
        weights = torch.tensor(self.out.pop('ce_loss_weights'))
        raw, times, counts = (torch.tensor(part) for part in zip(*self.raw, strict=True))
        shown = ['llm2vae.weight', 'vae2llm.weight', 'vit_model.vision_model.encoder.layers.0.mlp.fc1.weight',
                 'language_model.model.layers.1.self_attn.k_norm_moe_gen.weight']  # fmt: skip
        self.writer.save('train', {
            **{key: torch.tensor(value) for key, value in self.out.items()},
            **{f'grad.{name}': grads[name] for name in shown},
            'attention_allowed': allowed.to(torch.uint8), 'hidden': hidden, 'ce': ce, 'ce_logits': logits,
            'ce_loss_weights': weights, 'loss_ce_mean': ce.mean(), 'mse_pred': predicted, 'mse': mse,
            'loss_ce_reweighted': (ce * weights).sum() / weights.sum(), 'loss_mse_mean': mse.mean(),
            'loss_total': total, 'noise': torch.cat(self.noises), 'padded_images': padded, 'padded_latent': latent,
            'packed_timesteps': raw.repeat_interleave(counts), 'packed_vit_tokens': torch.cat(self.patches),
            'timesteps_effective': times.repeat_interleave(counts),
        })  # fmt: skip
        layer = 'language_model.model.layers.'
        groups = {'connector': 'connector.', 'vit_model': 'vit_model.'}
        members = {key: [v for k, v in norms.items() if k.startswith(root)] for key, root in groups.items()}
        members['llm_gen'] = [v for k, v in norms.items() if k.startswith(layer) and '_moe_gen' in k]
        members['llm_und'] = [v for k, v in norms.items() if k.startswith(layer) and '_moe_gen' not in k]
        self.writer.dump('train', self.settings | {
            'sequence_length': n, 'grad_norms': norms, 'grad_none': [], 'grad_zero': [],
            'grad_mathematically_zero': zero,
            'grad_norm_groups': {key: float(np.linalg.norm(value)) for key, value in members.items()},
        })  # fmt: skip
