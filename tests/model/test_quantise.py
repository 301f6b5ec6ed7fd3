"""Quantised weights: settings, bytes counted against what torchao holds, errors of rounding, what stays as it is."""

from __future__ import annotations

import sys

import pytest
import torch

from cooper_model.backends.failures import BackendUnavailable
from cooper_model.checkpoint import load_model
from cooper_model.loading import default_checkpoint, load_backend
from cooper_model.quantise import PRESETS, Quantisation, linear_bytes, part_of, quantise, round_tokens

ON_CPU = {'int8': True, 'w8a8': True, 'int4': False, 'fp8': False}


def logits(backend):
    context = backend.new_context()
    backend.append_text(context, range(4, 40))
    hidden = backend._feed_text(context, [5])
    return backend._logits(hidden[:, -1]).float()


def velocity(backend):
    context = backend.new_context()
    backend.append_text(context, range(4, 40))
    x = torch.from_numpy(backend.noise(96, 128, 0))[None]
    return backend.velocity([context], x, (6, 8), 0.5).float()


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture(scope='module')
def exact():
    return load_backend(backend='torch', device='cpu')


def test_settings_are_read_and_written():
    assert Quantisation.parse('int4') == Quantisation('int4', 'w8a8')
    given = Quantisation.parse('int4-fp8,lm_head=int8,group=32')
    assert given == Quantisation('int4', 'fp8', 'int8', 32)
    assert Quantisation.parse(str(given)) == given
    assert Quantisation.parse('generation=fp8') == Quantisation(generation='fp8')
    assert all(Quantisation.parse(str(preset)) == preset for preset in PRESETS.values())


@pytest.mark.parametrize(
    ('text', 'named'),
    [('int3', "'int3'"), ('', "''"), ('int4,head=int8', "'head=int8'"), ('int4,group=48', 'group=48'),
     ('int4,group=x', 'group=x'), ('understanding=w8a8', 'understanding=w8a8'), ('int8,lm_head', "'lm_head'")],
)  # fmt: skip
def test_unknown_settings_are_named(text, named):
    with pytest.raises(ValueError, match='quantise: ') as caught:
        Quantisation.parse(text)
    assert named in str(caught.value)


# Largest errors that rounding may make in logits and in velocity; exactly none in the part that is left as it is.
@pytest.mark.parametrize(
    ('text', 'most_logits', 'most_velocity'),
    [
        ('understanding=int8', 0.02, 0.02),
        ('understanding=int4,group=32', 0.25, 0.25),
        ('generation=w8a8', 0.0, 0.05),
        ('generation=fp8', 0.0, 0.1),
        ('lm_head=int8', 0.02, 0.0),
    ],
)
def test_rounding_shows_where_it_was_asked_for_and_stays_small(exact, text, most_logits, most_velocity):
    pytest.importorskip('torchao')
    rounded = load_backend(device='cpu', quantise=text)
    for compute, most in ((logits, most_logits), (velocity, most_velocity)):
        error = relative(compute(rounded), compute(exact))
        assert 0 < error < most if most else error == 0, compute.__name__
    assert {form: runs for _, form, runs in rounded.quantised.parts}.items() <= ON_CPU.items()
    told = str(rounded.quantised)
    assert ('no kernel on cpu' in told) == any(not ON_CPU[form] for _, form, _ in rounded.quantised.parts)


def held_bytes(module):
    total = 0
    for tensor in module.parameters():
        if type(tensor.data) is torch.Tensor:
            total += tensor.nbytes
        else:
            names, _ = tensor.__tensor_flatten__()
            total += sum(getattr(tensor, name).nbytes for name in names)
    return total


def test_bytes_are_those_that_are_held():
    pytest.importorskip('torchao')
    model, _ = load_model(default_checkpoint())
    before = held_bytes(model)
    report = quantise(model, Quantisation('int8', 'w8a8', 'int8'))
    assert report.before - report.after == before - held_bytes(model)
    assert report.after < 0.3 * report.before


def test_only_linears_of_the_language_model_change():
    pytest.importorskip('torchao')
    folder = default_checkpoint()
    exact, _ = load_model(folder)
    model, _ = load_model(folder)
    quantise(model, Quantisation('int8', 'w8a8', 'int8'))
    changed = {name for name, value in model.named_parameters() if type(value.data) is not torch.Tensor}
    decoder = [f'language_model.{name}.weight' for name, module in exact.language_model.named_modules()
               if isinstance(module, torch.nn.Linear)]  # fmt: skip
    assert changed == set(decoder)
    assert {part_of(name) for name in changed} == {'understanding', 'generation', 'lm_head'}
    for name, value in exact.named_parameters():
        if name not in changed:
            assert torch.equal(value, model.get_parameter(name))


def test_counted_bytes_of_int4_are_four_and_a_half_bits():
    # Widths of the published model: 3584 inputs fill up to 4096, 18944 to 19456.
    assert linear_bytes('int4', 3584, 3584, 64) == 3584 * 4096 // 2 + 3584 * 64 * 4
    assert linear_bytes('int4', 3584, 18944, 64) == 3584 * 19456 // 2 + 3584 * 304 * 4
    assert linear_bytes('none', 3, 5, 64) == 30


@pytest.mark.parametrize('form', ['w8a8', 'fp8'])
def test_rounded_tokens_keep_their_largest_number(form):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 64) * torch.tensor([1e-3, 1.0, 50.0, 1.0, 0.0])[:, None]
    rounded = round_tokens(x, form)
    assert torch.allclose(rounded.abs().amax(-1), x.abs().amax(-1), rtol=1e-5)
    assert relative(rounded, x) < 0.05
    assert not torch.equal(rounded, x)
    assert torch.equal(rounded[:, 4], x[:, 4])


def test_a_group_that_does_not_divide_names_those_that_do():
    with pytest.raises(ValueError, match=r'group=128 does not divide the 192 inputs .* group=32 or 64'):
        load_backend(device='cpu', quantise='int4,group=128')


def test_without_torchao_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchao', None)
    with pytest.raises(BackendUnavailable, match=r'cooper_ros\[quant\]'):
        load_backend(device='cpu', quantise='int8')


def test_other_backends_refuse():
    with pytest.raises(ValueError, match='for the torch backend'):
        load_backend(backend='onnx', device='cpu', quantise='int8')
