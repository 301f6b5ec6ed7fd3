"""The commands on a real, if random, checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cooper_cli.main import app
from tests.random_checkpoint import tiny_config, write_random_checkpoint

ROOT = Path(__file__).parents[2]
QUESTION = 'Which is closer, the red ball or the blue box?'


def run(*arguments: object) -> Result:
    """Run the command in this process and require success."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize('mode, images', [('direct', []), ('text', []), ('perception', ['depth', 'segmentation'])])
def test_ask_prints_one_object(checkpoint, picture, tmp_path, mode, images):
    arguments = ('--image', picture, '--mode', mode, '--json', '--out', tmp_path, '--checkpoint', checkpoint)
    done = run('ask', QUESTION, *arguments)
    record = json.loads(done.stdout)
    assert {'answer', 'mode', 'thoughts', 'images', 'relations', 'timings'} <= set(record)
    assert record['mode'] == mode
    assert [image['modality'] for image in record['images']] == images
    for image in record['images']:
        assert np.asarray(Image.open(image['path'])).shape == (72, 96, 3)
    assert record['timings']['total'] > 0


def test_ask_is_repeatable_and_seeds_matter(checkpoint, picture, tmp_path):
    def drawn(seed: int) -> bytes:
        out = tmp_path / str(seed)
        arguments = ('--image', picture, '--mode', 'perception', '--out', out, '--seed', seed)
        run('ask', QUESTION, *arguments, '--checkpoint', checkpoint)
        return (out / '0_depth.png').read_bytes()

    assert drawn(1) == drawn(1) != drawn(2)


def test_ask_offers_choices(checkpoint, picture):
    arguments = ('--image', picture, '--choices', 'red ball, blue box', '--json', '--checkpoint', checkpoint)
    assert json.loads(run('ask', QUESTION, *arguments).stdout)['answer'] is not None


def test_ask_shows_people_the_answer(checkpoint, picture):
    shown = run('ask', QUESTION, '--image', picture, '--mode', 'perception', '--checkpoint', checkpoint).stdout
    assert '[depth ...]' in shown and 'Answer: ' in shown
    quiet = run(
        'ask', QUESTION, '--image', picture, '--mode', 'perception', '--no-stream', '--checkpoint', checkpoint
    ).stdout
    assert '[depth ...]' not in quiet and 'Answer: ' in quiet


def test_perceive_writes_maps_of_the_image_s_size(checkpoint, picture, tmp_path):
    out = tmp_path / 'new' / 'folder'
    record = json.loads(
        run('perceive', '--image', picture, '--out', out, '--fov', 60, '--json', '--checkpoint', checkpoint).stdout
    )
    assert (record['width'], record['height'], record['metric']) == (96, 72, True)
    files = {name: Path(path) for name, path in record['files'].items()}
    assert set(files) == {
        'depth_color', 'depth_relative', 'depth_m', 'depth_mm',
        'mask', 'instances', 'confidence', 'segmentation', 'overlay',
    }  # fmt: skip
    for path in files.values():
        pixels = np.load(path) if path.suffix == '.npy' else np.asarray(Image.open(path))
        assert pixels.shape[:2] == (72, 96)
    metres, millimetres = np.load(files['depth_m']), np.asarray(Image.open(files['depth_mm']))
    assert millimetres.dtype == np.uint16 and abs(millimetres / 1000 - metres).max() <= 0.0005 + 1e-6
    assert {item['id'] for item in record['objects']} <= set(np.unique(np.asarray(Image.open(files['instances']))))


def test_perceive_calls_metres_only_what_is_metric(capsys):
    from cooper_cli.perceive import _show

    item = {'name': 'ball', 'area': 9, 'depth': 0.5, 'confidence': 1.0}
    objects = [{**item, 'metric': False}, {**item, 'metric': True}]
    _show({'metric': True, 'objects': objects, 'relations': [], 'files': {}})
    shown = capsys.readouterr().out
    assert shown.count('0.50 of the range') == shown.count('0.50 m') == 1


def test_perceive_without_a_depth_range_writes_no_metres(picture, tmp_path):
    folder = write_random_checkpoint(tmp_path / 'relative', config=replace(tiny_config(), depth_range=None))
    out = tmp_path / 'out'
    record = json.loads(run('perceive', '--image', picture, '--out', out, '--json', '--checkpoint', folder).stdout)
    assert not record['metric']
    assert not (out / 'depth_mm.png').exists() and (out / 'depth_relative.npy').exists()
    assert all(item['metric'] is False for item in record['objects'])


def test_a_folder_that_is_no_checkpoint(picture, tmp_path):
    done = CliRunner().invoke(app, ['ask', QUESTION, '--image', str(picture), '--checkpoint', str(tmp_path)])
    assert done.exit_code == 2
    assert str(tmp_path) in done.stderr and 'llm_config.json' in done.stderr


def evaluate(checkpoint: Path, *arguments: str) -> dict:
    """Evaluate in a process of its own, which has a rendering context of its own."""
    command = [sys.executable, '-m', 'cooper_cli.main', 'eval', '--json', '--checkpoint', str(checkpoint), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if 'no rendering context' in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_eval_says_the_same_in_one_process_and_in_two(checkpoint, tmp_path):
    arguments = ('--scenes', '3', '--seed', '5', '--modes', 'direct,perception', '--threads', '1')
    arguments += ('--answers', str(tmp_path / 'answers' / 'direct.jsonl'))
    one, two = (evaluate(checkpoint, *arguments, '--workers', workers) for workers in '12')
    assert one['scenes'] == 3 and 0 < one['questions'] <= 12
    assert one['distribution_version']
    for part in ('depth', 'segmentation'):
        assert one[part] == two[part]
        assert all(np.isfinite(value).all() for value in one[part].values())
    timed = {'seconds'}
    for mode in ('direct', 'perception'):
        kept = [{key: value for key, value in each['by_mode'][mode].items() if key not in timed} for each in (one, two)]
        assert kept[0] == kept[1]
    assert one['answers']['mode'] == 'direct' and one['perceive_rate'] == 0
    assert one['by_mode']['perception']['perceive_rate'] == 1
    assert sum(entry['n'] for entry in one['answers']['by_category'].values()) == one['questions']
    assert 0 < one['answers']['most_frequent'] <= 1
    lines = [json.loads(line) for line in (tmp_path / 'answers' / 'direct.jsonl').read_text().splitlines()]
    assert np.mean([line['score'] for line in lines]) == pytest.approx(one['answers']['overall'], abs=1e-5)
    assert len(lines) == one['questions'] == len({line['index'] for line in lines})


def test_bench_of_a_checkpoint_without_a_tokenizer(checkpoint, tmp_path):
    folder = tmp_path / 'weights'
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.name not in ('tokenizer.json', 'prompts.json'):
            (folder / path.name).symlink_to(path)
    record = json.loads(run('bench', '--json', '--checkpoint', folder).stdout)
    figures = ('text_prefill_256_s', 'decode_tok_per_s', 'image_context_s', 'of_which_vae_encode_s', 'generate_image_s')
    assert all(record[name] > 0 for name in figures)
    assert any(name.startswith('vae_decode_') for name in record)
    assert record['of_which_vae_encode_s'] < record['image_context_s']
    assert {'threads', 'device', 'dtype', 'versions', 'peak_memory_mb', 'date', 'machine'} <= set(record)


def test_bench_shows_people_what_it_could_not_measure(monkeypatch):
    from cooper_cli import bench
    from cooper_cli.random_model import SIZES, random_backend

    figures = {'direct_answer_s': 0.25, 'cooper_answer_s': None}
    monkeypatch.setattr(bench, '_nano', lambda *_: ('nano', backend, figures))
    monkeypatch.setitem(SIZES, 'tiny', tiny_config())
    backend = random_backend('tiny', 0)
    rows = [line.split() for line in run('bench').stdout.splitlines()]
    assert ['direct_answer_s', '0.25'] in rows and ['cooper_answer_s', '-'] in rows


def test_a_saved_random_model_is_the_one_measured(tmp_path, monkeypatch):
    from cooper_cli.random_model import SIZES, random_backend
    from cooper_model.loading import load_backend

    monkeypatch.setitem(SIZES, 'tiny', tiny_config())
    run('bench', '--random', 'tiny', '--seed', 3, '--save', tmp_path / 'saved', '--json')
    saved, built = load_backend(tmp_path / 'saved'), random_backend('tiny', 3)
    for mine, other in ((saved.model, built.model), (saved.autoencoder, built.autoencoder)):
        state = other.state_dict()
        assert all((value == state[name]).all() for name, value in mine.state_dict().items())
    assert {path.name for path in (tmp_path / 'saved').iterdir()} >= {'ema.safetensors', 'ae.safetensors'}


def test_mid_has_the_stated_size():
    import torch

    from cooper_cli.random_model import MID
    from cooper_model.network.autoencoder import build_autoencoder
    from cooper_model.network.model import Cooper

    with torch.device('meta'):
        model, autoencoder = Cooper(MID), build_autoencoder(MID.autoencoder)
    counts = [sum(value.numel() for value in part.state_dict().values()) / 1e6 for part in (model, autoencoder)]
    assert counts == pytest.approx([89.2, 21.0], abs=0.05)
