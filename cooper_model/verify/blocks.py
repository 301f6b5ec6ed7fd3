"""Sections of single parts: the autoencoder, the ViT with its connector, text with a cache."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from cooper_model.backends.torch import TorchBackend
from cooper_model.network.decoder import rotary
from cooper_model.network.embeddings import grid_ids
from cooper_model.network.vision import patch_rows
from cooper_model.verify.case import Case, Walk, by_plain_layers
from cooper_model.verify.record import FEATURES, Section, recorded


@torch.inference_mode()
def verify_vae(case: Case, section: Section) -> None:
    """Encode by mean and by sample, decode, and both in a row."""
    vae, image = case.autoencoder, case.tensor(section.tensor('image'))
    section.check('moments', vae.moments(image))
    mean = vae.encode(image)
    section.check('latent_mean', mean)
    section.check('latent_sampled', vae.encode(image, case.tensor(section.tensor('noise'))))
    section.check('decode_image', vae.decode(case.tensor(section.tensor('decode_latent'))))
    section.check('roundtrip_image', vae.decode(mean))


@torch.inference_mode()
def verify_vit(case: Case, section: Section) -> None:
    """Run every image of the section through the tower, layer by layer, and the connector."""
    model, patch, side = case.model, case.config.vision.patch_size, case.config.vision.max_side
    tower = model.vit_model.vision_model
    layers = {f'layer{i}': layer for i, layer in enumerate(tower.encoder.layers)}
    names = [name for name in section.names() if re.fullmatch(r'image\d+', name)]
    found: dict[str, list[torch.Tensor]] = {}
    lengths = [0]
    for name in sorted(names, key=lambda name: int(name.removeprefix('image'))):
        image = case.tensor(section.tensor(name))[None]
        rows, columns = (size // patch for size in image.shape[2:])
        with recorded(
            embeddings=tower.embeddings, post_layernorm=tower.post_layernorm, connector=model.connector, **layers
        ) as calls:
            features = model.embed_vision(image)[0]
        values = {name: called[0].output[0] for name, called in calls.items()}
        values |= {
            'features': features,
            'patches': patch_rows(image, patch)[0],
            'pos_embed': model.vit_pos_embed(rows, columns),
            'position_ids': grid_ids(rows, columns, side),
        }
        for key, value in values.items():
            found.setdefault(key, []).append(value)
        lengths.append(rows * columns)
    for key, parts in found.items():
        section.check(key, torch.cat(parts), FEATURES if key == 'features' else None)
    section.check('seqlens', lengths[1:])
    section.check('cu_seqlens', torch.tensor(lengths).cumsum(0))


@torch.inference_mode()
def verify_text(case: Case, section: Section) -> None:
    """Prefill a text, read every layer and the cache, then decode greedily behind it."""
    model, prefill = case.model, case.layout['text_case']['prefill']
    decoder = model.language_model.model
    ids = section.array('input_ids').tolist()
    section.same('prefill ids', case.with_control_tokens(case.prompts['P']), ids)
    section.same('prefill.packed_text_ids', ids, prefill['packed_text_ids'])
    walk = case.new_walk()
    layers = {f'layer{i}': layer for i, layer in enumerate(decoder.layers)}
    with by_plain_layers(model), recorded(**layers) as calls:
        step = walk.text(ids)
    section.check('embeddings', step.inputs)
    section.check('position_ids', step.positions)
    turn = rotary(torch.tensor([step.positions]), case.config.decoder)
    section.check('rope_cos', turn.cos[0, :, 0])
    section.check('rope_sin', turn.sin[0, :, 0])
    for name, called in calls.items():
        section.check(name, called[0].output.understanding[0])
    section.check('hidden', step.hidden)
    section.check('logits', model.logits(step.hidden))
    check_cache(section, walk, '')
    start = case.layout['text_case']['start']
    section.same('start.packed_start_tokens', [case.config.tokens.start], start['packed_start_tokens'])
    section.same('start.position', [walk.context.position], start['packed_query_position_ids'])
    section.same('start.key_values_lens', [len(walk.context)], start['key_values_lens'])
    check_greedy(case, section, walk)
    # The golden cache ends before the last chosen token, which nobody fed.
    total = len(ids) + len(section.array('decode_argmax'))
    walk.order += range(len(walk.order), len(walk.context))
    check_cache(section, walk, 'decoded_', total)


def check_cache(section: Section, walk: Walk, prefix: str, tokens: int | None = None) -> None:
    """Compare every layer's keys and values with the tensors ``<prefix>k0``, ``<prefix>v0`` and on."""
    for layer in range(walk.backend.config.decoder.num_layers):
        section.check(f'{prefix}k{layer}', walk.keys(layer, tokens))
        section.check(f'{prefix}v{layer}', walk.values(layer, tokens))


def check_greedy(case: Case, section: Section, walk: Walk) -> None:
    """Decode as many tokens as were recorded; the tokens stay in the context of ``walk``."""
    expected = section.array('decode_argmax').tolist()
    backend = TorchBackend(case.model, case.autoencoder)
    # The recorded steps run on past an end token, so none of the recorded ids may end ours.
    other = next(i for i in range(case.config.decoder.vocab_size) if i not in expected)
    backend.config = replace(case.config, usable_vocab=None, tokens=replace(case.config.tokens, end=other))
    with recorded(head=case.model.language_model.lm_head) as calls:
        tokens = [token.id for token in backend.decode(walk.context, max_tokens=len(expected))]
    logits = torch.stack([call.output.reshape(-1) for call in calls['head']])
    section.check('decode_logits', logits)
    section.check('decode_argmax', tokens)
    section.check_known('decode_returned_ids', [case.config.tokens.start, *tokens[:-1]])
