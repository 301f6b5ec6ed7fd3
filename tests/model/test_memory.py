"""Memory that is worked out, against what is really held: weights of the shipped model, tensors alive in its parts."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cooper_model import memory
from cooper_model.backends.token_step import TokenStep
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import AutoencoderConfig, CooperConfig, DecoderConfig
from cooper_model.memory import GB, Use, make_plan, weight_bytes
from cooper_model.network import joined
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_model.quantise import Quantisation
from tests.random_checkpoint import tiny_config

FULL_SIZE = CooperConfig()


class Alive(TorchDispatchMode):
    """Counts bytes of storages that were made within it and still live; ``peak`` is the most."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known and not any(
                    isinstance(each, torch.Tensor) and each.untyped_storage()._cdata == storage._cdata for each in args
                ):
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def gone(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.fixture(scope='module')
def backend():
    decoder = DecoderConfig(128, 2, 4, 2, 512, 400)
    autoencoder = AutoencoderConfig(base_channels=32, multipliers=(1, 2, 2, 2), num_res_blocks=1, z_channels=4)
    config = replace(tiny_config(), decoder=decoder, autoencoder=autoencoder, max_latent_side=16)
    torch.manual_seed(0)
    model, coder = Cooper(config), build_autoencoder(autoencoder)
    return TorchBackend(model.to(torch.bfloat16), coder.to(torch.bfloat16), 'sdpa')


def test_weights_of_the_published_model_are_those_of_its_files():
    parts = weight_bytes(FULL_SIZE, Quantisation())
    assert sum(parts.values()) == 2 * (14_607_260_128 + 83_819_683)
    # Sizes that published arithmetic gives: 6.5253e9 numbers an expert's linears, 0.545e9 embeddings and output.
    published = {'understanding': 6.5253, 'generation': 6.5253, 'embeddings': 0.545, 'lm_head': 0.545}
    for part, billions in published.items():
        assert parts[part] / 2e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize(
    ('settings', 'gigabytes'), [('understanding=int4', 19.8), ('int8', 16.3), ('int4', 13.3), ('int4-int4', 10.6)]
)
def test_quantised_weights_are_near_those_estimated_without_padding(settings, gigabytes):
    total = sum(weight_bytes(FULL_SIZE, Quantisation.parse(settings)).values()) / GB
    assert gigabytes * 0.99 < total < gigabytes * 1.1


def own_bytes(backend):
    """Return the bytes of tensors that joined layers hold and that are no part of the model's own storages."""
    own = {value.untyped_storage().data_ptr() for value in backend.model.state_dict().values()}
    dense, packed = {}, 0
    for layer in backend.model.language_model.model.joined._layers:
        for expert in layer._experts:
            products = (expert._qkv, expert._out, expert._widen, expert._narrow)
            parts = (*products, expert._enter, expert._leave, expert._norm)
            held = [value for part in parts for value in part.args if isinstance(value, torch.Tensor) and value.ndim]
            for value in held:
                if value.layout == torch._mkldnn:
                    packed += torch.ops.mkldnn._nbytes(value)
                elif value.untyped_storage().data_ptr() not in own:
                    dense[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(dense.values()), packed


@pytest.mark.parametrize('form', ['rows', 'packed'])
def test_joined_layers_hold_what_is_counted(form, monkeypatch):
    monkeypatch.setattr(joined, '_form', lambda *_: form)  # rows: as on a GPU
    config = replace(tiny_config(), decoder=DecoderConfig(96, 2, 4, 2, 200, 400))
    model, coder = Cooper(config).to(torch.bfloat16), build_autoencoder(config.autoencoder)
    before = sum(value.nbytes for value in model.state_dict().values())
    prepared = TorchBackend(model, coder)
    prepared.prepare()
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in model.state_dict().values()}
    assert sum(each.nbytes() for each in storages.values()) == before
    dense, packed = own_bytes(prepared)
    assert dense == memory.joined_bytes(config)
    if form == 'packed':
        if not torch.cpu._is_avx512_supported():
            pytest.skip('blocks have other sizes on this processor')
        assert packed == memory.packed_bytes(config) > 0


def test_only_copies_that_are_worth_it_are_counted():
    assert memory.packed_bytes(FULL_SIZE) == 0
    assert memory.packed_bytes(tiny_config()) > 0
    plans = {device: make_plan(tiny_config(), 8 * 10**9, device) for device in ('cpu', 'desktop')}
    difference = plans['cpu'].weights['joined'] - plans['desktop'].weights['joined']
    assert difference == memory.packed_bytes(tiny_config())
    assert plans['cpu'].step == 0 < plans['desktop'].step


def test_a_captured_step_holds_what_is_counted(backend):
    capacity = 2048
    with Alive() as alive:
        step = TokenStep(backend.model, capacity, lambda run: run)
    config = backend.config
    assert memory.step_bytes(config, capacity) == alive.now
    context = backend.new_context()
    backend.append_text(context, [5] * 98)
    step.begin(context)
    with Alive() as alive:
        step.feed(5)
    assert 0.8 * alive.peak <= memory.step_pool_bytes(config, capacity) <= 1.5 * alive.peak


def test_the_cache_of_a_step_has_room_for_the_longest_turn():
    use = Use((512, 688))
    capacity = memory.step_tokens(FULL_SIZE, use)
    written = memory.conversation_tokens(FULL_SIZE, use) - use.thought
    assert capacity >= written + FULL_SIZE.max_new_tokens > capacity // 2


def test_a_token_takes_57_kilobytes():
    assert memory.token_bytes(FULL_SIZE) == 57_344


@pytest.mark.parametrize(('rows', 'tokens'), [(1, 64), (3, 64)])
def test_denoising_holds_what_the_formula_says(backend, rows, tokens):
    contexts = [backend.new_context() for _ in range(rows)]
    for context in contexts:
        backend.append_text(context, [5] * 98)
    x = torch.from_numpy(backend.noise(8 * 16, 8 * 16, 0)).to(torch.bfloat16)
    assert len(x) == tokens
    with Alive() as alive:
        backend.velocity(contexts, x, (8, 8), 0.5)
    config = backend.config
    said = memory.layer_bytes(config, rows * (tokens + 2))
    said += memory.attention_bytes(config, tokens + 2, 100, masked=False)
    assert 0.95 * alive.peak <= said <= 1.7 * alive.peak


def test_prefill_holds_what_the_formula_says(backend):
    context = backend.new_context()
    backend.append_text(context, [5] * 98)
    with Alive() as alive:
        backend.append_text(context, [5] * 126)
    said = memory.layer_bytes(backend.config, 128) + memory.attention_bytes(backend.config, 128, 100, masked=True)
    assert alive.peak <= said <= 4 * alive.peak  # scores are within torch's kernel on a CPU


def test_decoding_a_picture_holds_what_the_formula_says(backend):
    latents = torch.randn(1, 4, 16, 16, dtype=torch.bfloat16)
    with torch.inference_mode(), Alive() as alive:
        backend.autoencoder.decode(latents)
    said = memory.decode_picture_bytes(backend.config, (128, 128))
    assert 0.95 * alive.peak <= said <= 1.7 * alive.peak


def test_a_conversation_fits_the_caches_it_is_given_room_for(backend):
    config, use = backend.config, Use((48, 64), thought=30)
    full, twin = backend.new_context(), backend.new_context()
    photo = memory.latent_tokens(config, use.image) + memory.vision_tokens(config, use.image)
    total = memory.conversation_tokens(config, use)
    for context, count in ((full, total), (twin, total - photo)):
        while len(context) < count:
            backend.append_text(context, [5] * min(30, count - len(context)))
    branch = full.fork()
    backend.append_text(branch, [5] * 30)
    blocks = {id(block): block.capacity for context in (full, twin, branch) for block, _ in context.views}
    assert sum(blocks.values()) <= memory.cache_tokens(config, use)


@pytest.mark.parametrize('device', ['jetson', 'desktop', 'cpu'])
def test_more_memory_never_plans_worse(device):
    sizes = [8, 12, 16, 24, 32, 48, 64, 80]
    plans = [make_plan(FULL_SIZE, int(size * GB), device) for size in sizes]
    needs = [plan.needed for plan in plans]
    assert needs == sorted(needs)
    assert [plan.free >= 0 for plan in plans] == sorted(plan.free >= 0 for plan in plans)
    assert plans[-1].quantisation == Quantisation() and plans[-1].use.branches == 3 and not plans[-1].refused
    assert plans[0].free < 0 and plans[0].refused
    for plan in plans:
        assert all(lacking > 0 for _, lacking in plan.refused)


def test_what_is_planned_can_be_loaded():
    for size in (8, 16, 24):
        text = str(make_plan(FULL_SIZE, int(size * GB), 'jetson').quantisation)
        assert str(Quantisation.parse(text)) == text


def test_nothing_fits_into_nothing():
    with pytest.raises(ValueError, match='0 GB'):
        make_plan(FULL_SIZE, 0, 'desktop')
