"""The memory that the docs state for 7B, from a model on the meta device; what a layer keeps, by measurement."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from cooper_model.config import CooperConfig, DecoderConfig
from cooper_model.network.decoder import DecoderLayer, Streams, masked_attention, rotary
from training.memory import GB, Planned, Work, layer_bytes, worked_out
from training.settings import read_settings

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
CONFIGS = ROOT / 'training' / 'configs' / '7b'
# What a GPU computes at once: an image of 1,024 x 768 pixels, a long trace, eight rollouts that share an image.
WORK = {
    'stage1': Work(7200),
    'sft': Work(10240, learned=512),
    'grpo': Work(22000, learned=4000, cached=96000),
    'stage1_lora': Work(7200),
}
ROW = re.compile(r'^\| (\w[\w ,.]*) \|((?: *[\d.]+ \|)+)$', re.M)


@pytest.mark.parametrize(('heads', 'kv_heads', 'inner'), [(4, 2, 512), (8, 4, 256)])
def test_a_layer_keeps_what_is_worked_out(heads, kv_heads, inner):
    config = DecoderConfig(128, 1, heads, kv_heads, inner, 100)
    layer = DecoderLayer(config).bfloat16()
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    streams = Streams(*torch.randn(2, 1, 64, 128, dtype=torch.bfloat16).requires_grad_())
    turn = rotary(torch.arange(128)[None], config)
    mask = torch.ones(1, 128, 128, dtype=torch.bool)
    given = own | {tensor.untyped_storage().data_ptr() for tensor in (*turn, mask)}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no other takes its place
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast('cpu', torch.bfloat16):
        layer(streams, turn, masked_attention(mask, fused=True), 0)
    measured = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in given)
    assert measured / 128 == pytest.approx(layer_bytes(config), rel=0.06)


def test_fused_attention_is_the_same_attention():
    q, k, v = torch.randn(3, 2, 12, 4, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.5
    mask |= torch.eye(12, dtype=torch.bool)
    plain = masked_attention(mask)(0, q, k[:, :, :2], v[:, :, :2])
    fused = masked_attention(mask, fused=True)(0, q, k[:, :, :2], v[:, :, :2])
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_the_docs_state_what_is_worked_out():
    stated = {name: [float(value) for value in values.split('|')[:-1]] for name, values in ROW.findall(DOCS)}
    for number, (name, work) in enumerate(WORK.items()):
        loop = read_settings(CONFIGS / f'{name}.yaml', Planned, partly=True).loop
        found = worked_out(CooperConfig(), loop, 1 if loop.lora else 8, work)
        for part, size in found.items():
            assert stated[part][number] == pytest.approx(size / GB, abs=0.051), (part, name)
        assert max(found.values()) < 72 * GB  # the rest of 80 GB is for what cannot be worked out


def test_the_docs_state_how_many_weights_there_are():
    with torch.device('meta'):
        from cooper_model.network.model import Cooper

        model = Cooper(CooperConfig())
    layer = model.language_model.model.layers[0]
    for module in (model, layer, model.vit_model, model.language_model.lm_head):
        assert f'{sum(p.numel() for p in module.parameters()):,}' in DOCS
