"""The GPU benchmark, whole, with a tiny model on the CPU; floors by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from cooper_cli.floors import Ceilings, Floors
from cooper_cli.full_size import QUESTION, SCHEDULES
from cooper_cli.machine import finisher
from cooper_cli.main import app
from cooper_cli.random_model import TINY
from cooper_model.config import CooperConfig

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU here')


@pytest.fixture(scope='module')
def record():
    done = CliRunner().invoke(app, ['bench', '--full', '--random', 'tiny', '--device', 'cpu', '--json'])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_figure_of_the_workload_has_a_floor_and_a_share(record):
    names = {'prefill_512_s', 'decode_1k_tok_per_s', 'decode_4k_tok_per_s', 'image_context_s', 'first_token_s',
             'vit_s', 'vae_encode_s', 'vae_decode_s', *SCHEDULES}  # fmt: skip
    assert set(record['floors']) == set(record['shares']) == names
    assert all(record[name] > 0 and record['floors'][name] > 0 and record['shares'][name] > 0 for name in names)
    assert record['workload'] == 'full' and record['size'] == 'tiny' and record['dtype'] == 'float32'
    assert all(value > 0 for value in record['ceilings'].values()) and record['peak_memory_mb'] > 0
    assert record['tokens'] == {'latents': 18, 'vision': 18, 'image_side': 64}


def test_shares_are_of_time_or_of_rate(record):
    name, rate = 'prefill_512_s', 'decode_1k_tok_per_s'
    assert record['shares'][name] == pytest.approx(record['floors'][name] / record[name], rel=1e-4)
    assert record['shares'][rate] == pytest.approx(record[rate] / record['floors'][rate], rel=1e-4)


def test_the_floor_of_an_image_is_that_of_all_its_parts(record):
    ceilings, tokens, floors = record['ceilings'], record['tokens'], record['floors']
    least = Floors(TINY, Ceilings(ceilings['copy_gb_per_s'] * 1e9, ceilings['matrix_tflop_per_s'] * 1e12))
    shown = least.picture('generation', tokens['latents'], QUESTION)
    shown += least.picture('understanding', tokens['vision'], QUESTION + tokens['latents'])
    assert floors['image_context_s'] == pytest.approx(shown + floors['vit_s'] + floors['vae_encode_s'], rel=1e-3)
    assert floors['first_token_s'] > floors['image_context_s']


def test_the_clock_waits_for_the_gpu_that_computes():
    place = torch.device('cuda:1')
    assert finisher(SimpleNamespace(device=place)).args == (place,)


def test_floors_of_the_published_size_are_those_of_its_arithmetic():
    # 3.35 TB/s and 800 TFLOP/s: 233 tokens/s at 4k, 14.8 TFLOP or 18.5 ms a branch of a 512x512 picture.
    least = Floors(CooperConfig(), Ceilings(3.35e12, 800e12))
    assert 1 / least.token(4096) == pytest.approx(233, rel=0.01)
    assert least.denoising(1024, [1024 + 1369 + 60]) == pytest.approx(18.5e-3, rel=0.02)
    # A single branch on a machine short of bandwidth is bound by reading both experts.
    assert Floors(CooperConfig(), Ceilings(273e9, 257e12)).denoising(1024, [2453]) == pytest.approx(95.6e-3, rel=0.01)


@without_gpu
def test_without_a_gpu_it_says_what_it_needs():
    done = CliRunner().invoke(app, ['bench', '--full'])
    assert done.exit_code == 2
    text = ' '.join(done.output.split())
    assert 'needs a CUDA GPU with 3' in text and '--random tiny' in text


@pytest.mark.parametrize('further', [['--random', 'huge'], ['--quantise', 'int8'], ['--save', 'somewhere']])
def test_what_does_not_go_together_is_refused(further):
    done = CliRunner().invoke(app, ['bench', '--full', *further])
    assert done.exit_code == 2 and done.output
