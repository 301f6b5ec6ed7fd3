from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cooper_model.checkpoint import load_model, save_checkpoint
from cooper_model.network import vision
from cooper_model.verify import SECTIONS, verify
from cooper_model.verify.record import CALL, LEVEL, TRAINED, Section, Tolerance
from tests.model.naive_case import write_case

ALPHA = Path(__file__).parents[1] / 'golden' / 'alpha'
SETTINGS = ('llm_config', 'vit_config', 'case_config', 'layout', 'generate', 'train', 'preprocess')


def part_of_alpha(folder: Path, *sections: str) -> Path:
    for name in SETTINGS:
        shutil.copyfile(ALPHA / f'{name}.json', folder / f'{name}.json')
    for name in ('ema', 'ae', *sections):
        shutil.copyfile(ALPHA / f'{name}.safetensors', folder / f'{name}.safetensors')
    return folder


def change(path: Path, name: str, value: np.ndarray | None) -> None:
    tensors = load_file(path)
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    save_file(tensors, path)


@pytest.fixture(scope='module')
def naive_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('naive')
    write_case(folder)
    return folder


def test_alpha_passes_in_every_section_and_nothing_is_left_out() -> None:
    results = verify(ALPHA)
    assert list(results) == list(SECTIONS)
    for name, result in results.items():
        assert result.passed, (name, result.failures)
        assert result.unchecked == (), name
        assert result.max_error <= result.tolerance
    # The worst of a single call, as another implementation reached on the same numbers.
    assert max(results[name].max_error for name in results) < 5e-5


def test_the_model_agrees_with_a_naive_one_of_other_sizes(naive_case: Path) -> None:
    results = verify(naive_case)
    assert list(results) == [name for name in SECTIONS if name != 'preprocess']
    for name, result in results.items():
        assert result.passed, (name, result.failures)
        assert result.unchecked == (), name


def test_weights_may_come_in_shards(tmp_path: Path) -> None:
    part_of_alpha(tmp_path, 'text')
    save_checkpoint(tmp_path, *load_model(ALPHA), dtype=torch.float32, shard_bytes=1_000_000)
    assert not (tmp_path / 'ema.safetensors').exists()
    results = verify(tmp_path)
    assert list(results) == ['text'] and results['text'].passed


def test_a_wrong_number_fails_its_section_alone(tmp_path: Path) -> None:
    part_of_alpha(tmp_path, 'text', 'vae')
    logits = load_file(ALPHA / 'text.safetensors')['logits']
    logits[3, 7] += 0.01
    change(tmp_path / 'text.safetensors', 'logits', logits)
    results = verify(tmp_path)
    assert results['vae'].passed and not results['text'].passed
    assert results['text'].worst == 'logits'
    assert results['text'].max_error == pytest.approx(0.01, rel=0.01)
    assert results['text'].failures == ('logits: 1 of 5632 values beyond tolerance',)


def test_the_subtlest_fault_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of_alpha(tmp_path, 'vit')

    class ErfLayer(vision.SiglipEncoderLayer):
        def __init__(self, config) -> None:
            super().__init__(config)
            self.mlp.activation_fn = torch.nn.GELU()

    monkeypatch.setattr(vision, 'SiglipEncoderLayer', ErfLayer)
    result = verify(tmp_path)['vit']
    assert not result.passed
    assert result.max_error < 5e-3


def test_what_nobody_read_is_listed(tmp_path: Path) -> None:
    part_of_alpha(tmp_path, 'text')
    change(tmp_path / 'text.safetensors', 'unheard_of', np.zeros(3, np.float32))
    save_file({'odd': np.zeros(2, np.float32)}, tmp_path / 'novel.safetensors')
    results = verify(tmp_path)
    assert results['text'].unchecked == ('unheard_of',)
    assert results['novel'].unchecked == ('odd',) and results['novel'].compared == 0


def test_other_layouts_fail(tmp_path: Path) -> None:
    part_of_alpha(tmp_path, 'text', 'context')
    layout = json.loads((ALPHA / 'layout.json').read_text())
    layout['context_ropes']['gen'] += 1
    layout['prompts']['P'][0] += 1
    (tmp_path / 'layout.json').write_text(json.dumps(layout))
    results = verify(tmp_path)
    assert results['context'].failures == ('context_ropes.gen: 20, expected 21',)
    assert not results['text'].passed


def test_folders_that_are_no_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='not a folder'):
        verify(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='no golden case'):
        verify(tmp_path)
    part_of_alpha(tmp_path, 'text')
    change(tmp_path / 'text.safetensors', 'hidden', None)
    with pytest.raises(ValueError, match='lacks tensor hidden'):
        verify(tmp_path)
    (tmp_path / 'text.safetensors').write_bytes(b'short')
    with pytest.raises(ValueError, match='damaged'):
        verify(tmp_path)


@pytest.fixture
def section(tmp_path: Path) -> Section:
    save_file(
        {'real': np.array([1.0, 100.0], np.float32), 'ids': np.array([1, 2]), 'picture': np.array([7], np.uint8)},
        tmp_path / 'numbers.safetensors',
    )
    return Section(tmp_path / 'numbers.safetensors', CALL)


@pytest.mark.parametrize(
    ('name', 'actual', 'tolerance', 'passed'),
    [
        ('real', [1.00005, 100.0], None, True),
        ('real', [1.0001, 100.0], None, False),
        ('real', [1.0, 100.002], None, True),
        ('real', [1.0, 100.02], TRAINED, False),
        ('real', [1.0, float('nan')], None, False),
        ('real', [1.0], None, False),
        ('ids', [1, 2], None, True),
        ('ids', [1, 3], None, False),
        ('picture', [8], LEVEL, True),
        ('picture', [9], LEVEL, False),
    ],
)
def test_errors_are_held_against_their_tolerance(
    section: Section, name: str, actual: list[float], tolerance: Tolerance | None, passed: bool
) -> None:
    section.check(name, actual, tolerance)
    result = section.result()
    assert result.passed == passed
    assert name not in result.unchecked
    assert (result.max_error <= result.tolerance) == passed
