"""Stage 1 trains on any mixture of data sets, with images of several sizes in one batch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_sim.dataset import write_dataset
from training import stage1
from training.data import open_mixture
from training.datasets.base import DataEntry
from training.evaluation import evaluate_parts
from training.latents import Encoder
from training.stage1 import Batch, Stage1, Stage1Config

SETTINGS = Stage1Config(batch=2, shift=1.0)


@pytest.fixture(scope='module')
def words(words):
    """Return a tiny model's input with the classes of the simulation."""
    from cooper_sim.types import KINDS

    code = replace(
        words.config.colour_code, names=KINDS, red_green=tuple((20 * n, 255 - 20 * n) for n in range(len(KINDS)))
    )
    return replace(words, config=replace(words.config, colour_code=code))


@pytest.fixture(scope='module')
def model(words):
    torch.manual_seed(0)
    return Cooper(words.config)


@pytest.fixture(scope='module')
def autoencoder(words):
    torch.manual_seed(1)
    return build_autoencoder(words.config.autoencoder).eval()


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_dataset(folder, 6, 0, size=(64, 48), workers=1)
    return str(folder)


@pytest.fixture
def pairs(write_png, write_list):
    """Return a list of a wide and a high image with depth; the upper half of the high one has none."""
    rng = np.random.default_rng(0)
    wide, high = np.full((40, 120), 2000, np.uint16), np.full((130, 64), 1500, np.uint16)
    high[:65] = 0
    rows = []
    for name, raw in (('wide', wide), ('high', high)):
        image = rng.integers(0, 256, (*raw.shape, 3), np.uint8)
        rows.append({'rgb_image': write_png(f'{name}.png', image), 'depth_image': write_png(f'{name}_d.png', raw)})
    return str(write_list('list.jsonl', rows))


def test_a_mixture_follows_its_weights(words, autoencoder, scenes, pairs):
    mixture = open_mixture(
        [DataEntry('simulation', scenes, weight=3), DataEntry('nyu', pairs)], words, autoencoder
    )
    drawn = mixture.draw(200, np.random.default_rng(0))
    simulated = sum(sample.example.record is not None for sample in drawn)
    assert 125 < simulated < 175
    again = mixture.draw(200, np.random.default_rng(0))
    assert all(np.array_equal(a.example.image, b.example.image) for a, b in zip(drawn, again, strict=True))


def test_several_sizes_in_one_batch_equal_single_images(words, model, autoencoder, scenes, pairs, monkeypatch):
    mixture = open_mixture([DataEntry('simulation', scenes), DataEntry('nyu', pairs)], words, autoencoder)
    monkeypatch.setattr(stage1, 'draw_times', lambda count, shift: torch.full((count,), 0.6))
    monkeypatch.setattr(torch, 'randn_like', torch.ones_like)
    stage = Stage1(model, words)
    samples = [mixture.samples([part], [(n, part.data.example(n))])[0] for part in mixture.parts for n in (0, 1)]
    shapes = [sample.example.image.shape[:2] for sample in samples]
    assert shapes == [(48, 64), (48, 64), (16, 64), (64, 32)]
    rng = np.random.default_rng(0)
    with torch.no_grad():
        together = stage.loss(samples, SETTINGS, rng)
        single = [stage.loss([sample], SETTINGS, rng) for sample in samples]
    # Tokens that count: 12 of each scene, all 4 of the wide image, the lower half of the high one.
    counts = [12, 12, 4, 4]
    expected = sum(n * float(loss['depth']) for n, loss in zip(counts, single, strict=True)) / sum(counts)
    assert float(together['depth']) == pytest.approx(expected, rel=1e-5)
    expected = sum(float(loss['segmentation']) for loss in single[:2]) / 2
    assert float(together['segmentation']) == pytest.approx(expected, rel=1e-5)
    assert float(together['total']) == pytest.approx(float(together['depth'] + together['segmentation']), rel=1e-6)


def test_what_is_not_valid_changes_no_loss(words, model, autoencoder, pairs):
    mixture = open_mixture([DataEntry('nyu', pairs)], words, autoencoder)
    stage = Stage1(model, words)
    sample = mixture.samples(mixture.parts, [(1, mixture.parts[0].data.example(1))])[0]
    counted = sample.counted['depth']
    assert counted.tolist() == [False] * 4 + [True] * 4
    made = Batch()
    stage.append(made, sample, SETTINGS, np.random.default_rng(0))
    assert made.counted[0].tolist() == counted.tolist()
    torch.manual_seed(0)
    loss = stage.loss([sample], SETTINGS, np.random.default_rng(0))['depth']
    torch.manual_seed(0)
    everything = stage.loss([replace(sample, counted={})], SETTINGS, np.random.default_rng(0))['depth']
    assert float(loss.detach()) != float(everything.detach())


def test_damaged_latents_are_named(words, autoencoder, scenes, tmp_path):
    path = tmp_path / 'latents.npy'
    entry = DataEntry('simulation', scenes, held_out=2, latents=str(path))
    open_mixture([entry], words, autoencoder)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r'latents.npy or .* is damaged .*delete both'):
        open_mixture([entry], words, autoencoder)


def test_kept_latents_are_those_of_the_pictures(words, autoencoder, scenes, tmp_path):
    entry = DataEntry('simulation', scenes, held_out=2, latents=str(tmp_path / 'latents.npy'))
    kept = open_mixture([entry], words, autoencoder)
    fresh = open_mixture([replace(entry, latents='')], words, autoencoder)
    assert kept.parts[0].count == 4 and list(kept.parts[0].held_out) == [4, 5]
    for a, b in zip(*(mixture.draw(4, np.random.default_rng(1)) for mixture in (kept, fresh)), strict=True):
        assert np.array_equal(a.example.image, b.example.image)
        torch.testing.assert_close(a.image, b.image, atol=0.02, rtol=0.02)  # half precision on disk
        torch.testing.assert_close(a.targets['depth'], b.targets['depth'], atol=0.02, rtol=0.02)
        torch.testing.assert_close(a.targets['segmentation'], b.targets['segmentation'], atol=0.02, rtol=0.02)


def test_kept_latents_remember_what_counts(words, autoencoder, write_png, write_list, tmp_path):
    raw = np.full((48, 64), 1500, np.uint16)
    raw[:16] = 0
    row = {'rgb_image': write_png('a.png', np.zeros((48, 64, 3), np.uint8)), 'depth_image': write_png('d.png', raw)}
    entry = DataEntry('nyu', str(write_list('list.jsonl', [row, row])), latents=str(tmp_path / 'kept.npy'))
    for _ in range(2):  # written, then read
        sample = open_mixture([entry], words, autoencoder).draw(1, np.random.default_rng(0))[0]
        assert sample.counted['depth'].tolist() == [False] * 4 + [True] * 8


def test_what_cannot_be_read_is_not_kept(words, autoencoder, write_png, write_list, tmp_path, caplog):
    depth, image = np.full((48, 64), 1500, np.uint16), np.zeros((48, 64, 3), np.uint8)
    good = {'rgb_image': write_png('a.png', image), 'depth_image': write_png('d.png', depth)}
    empty = {'rgb_image': 'a.png', 'depth_image': write_png('none.png', np.zeros_like(depth))}
    path = str(write_list('list.jsonl', [empty, good]))
    mixture = open_mixture([DataEntry('nyu', path, latents=str(tmp_path / 'kept.npy'))], words, autoencoder)
    assert f'{path}:1 left out (nothing valid)' in caplog.text
    part = mixture.parts[0]
    first, second = (mixture.samples([part], [(n, part.data.example(n, maps=False))])[0] for n in (0, 1))
    assert not first.targets and second.targets['depth'].shape == (12, words.config.latent_dim)
    assert all(sample.targets for sample in mixture.draw(8, np.random.default_rng(0)))


def test_latents_of_several_sizes_cannot_be_kept(words, autoencoder, pairs, tmp_path):
    entry = DataEntry('nyu', pairs, latents=str(tmp_path / 'kept.npy'))
    with pytest.raises(ValueError, match='nyu: pictures differ in size, so no latents can be kept; drop latents'):
        open_mixture([entry], words, autoencoder)


def test_a_dropped_condition_is_not_seen(words, model, autoencoder, scenes):
    mixture = open_mixture([DataEntry('simulation', scenes)], words, autoencoder)
    sample = mixture.draw(1, np.random.default_rng(0))[0]
    stage, rng = Stage1(model, words), np.random.default_rng(0)

    def kinds_seen(**dropped):
        made = Batch()
        stage.append(made, sample, replace(SETTINGS, **dropped), rng)
        segments = made.sequences[0]
        noisy = [segment for segment in segments if segment.kind == 'noise']
        assert len(noisy) == 2
        return [segments[i].kind for i in noisy[0].sees]

    assert kinds_seen() == ['latents', 'vision', 'text']
    assert kinds_seen(drop_text=1.0) == ['latents', 'vision']
    assert kinds_seen(drop_image=1.0) == ['text']
    with pytest.raises(ValueError, match='drop_image is 2, expected a probability'):
        Stage1Config(batch=1, shift=1.0, drop_image=2)


def test_each_set_is_scored_by_its_own_metric(words, model, autoencoder, scenes, pairs, tmp_path):
    entries = [DataEntry('simulation', scenes, held_out=1), DataEntry('nyu', pairs, weight=0)]
    parts = open_mixture(entries, words, autoencoder).parts
    found = evaluate_parts(model, autoencoder, parts, Stage1(model, words).requests, tmp_path, 7)
    names = {name.rpartition('/')[0] for name in found}
    assert names >= {'simulation/miou', 'simulation/delta1', 'nyu/abs_rel_aligned'}
    assert not any(name.startswith('nyu/miou') for name in found) and all(np.isfinite(list(found.values())))
    sheets = {path.name: Image.open(path).size for path in (tmp_path / 'samples').iterdir()}
    # Camera image, then generated and true picture of each modality; the wide image above the high one.
    assert sheets == {'000007_simulation.png': (5 * 64, 48), '000007_nyu.png': (3 * 64, 16 + 64)}
    alone = evaluate_parts(model, autoencoder, parts[:1], Stage1(model, words).requests, tmp_path, 8)
    assert 'miou/1 steps' in alone
    assert all(p.requires_grad for p in model.parameters())


def test_weights_in_bfloat16_are_scored_beside_an_autoencoder_in_float32(words, model, autoencoder, scenes, tmp_path):
    # As at full size, where weights are gathered in bfloat16 and frozen ones of adapters are held in it.
    parts = open_mixture([DataEntry('simulation', scenes, held_out=1)], words, autoencoder).parts
    requests = Stage1(model, words).requests
    found = evaluate_parts(deepcopy(model).bfloat16(), autoencoder, parts, requests, tmp_path, 1)
    assert found and all(np.isfinite(list(found.values())))
    assert next(autoencoder.parameters()).dtype == torch.float32


def test_an_image_that_breaks_later_is_reported_and_replaced(words, autoencoder, pairs, tmp_path):
    mixture = open_mixture([DataEntry('nyu', pairs)], words, autoencoder)
    broken = tmp_path / 'wide.png'
    broken.write_bytes(broken.read_bytes()[:200])
    drawn = mixture.draw(8, np.random.default_rng(0))
    assert {sample.example.image.shape[:2] for sample in drawn} == {(64, 32)}
    left_out = mixture.parts[0].data.report.left_out['unreadable image']
    assert len(left_out) == 1 and left_out[0].startswith(f'{pairs}:1: {broken}')


def test_a_set_without_weight_is_only_scored(words, autoencoder, scenes, pairs):
    entries = [DataEntry('nyu', pairs, weight=0), DataEntry('simulation', scenes)]
    mixture = open_mixture(entries, words, autoencoder)
    assert list(mixture.parts[0].held_out) == [0, 1] and not mixture.parts[1].held_out
    assert all(sample.example.record is not None for sample in mixture.draw(20, np.random.default_rng(0)))
    twice = [*entries, DataEntry('nyu', pairs)]
    with pytest.raises(ValueError, match='several sets called nyu; give each a name'):
        open_mixture(twice, words, autoencoder)
    twice[-1] = replace(twice[-1], name='more')
    assert [part.data.name for part in open_mixture(twice, words, autoencoder).parts] == ['nyu', 'simulation', 'more']


def test_nothing_left_to_train_on_is_refused(words, autoencoder, scenes):
    with pytest.raises(ValueError, match='holds 6 examples, of which 6 are held out'):
        open_mixture([DataEntry('simulation', scenes, held_out=6)], words, autoencoder)
    with pytest.raises(ValueError, match='data lists no set with a weight'):
        open_mixture([], words, autoencoder)
    with pytest.raises(ValueError, match=r'every scene has \d+ tokens, at most 50 fit'):
        open_mixture([DataEntry('simulation', scenes)], replace(words, max_tokens=50), autoencoder)


def test_pictures_of_several_sizes_are_encoded_as_alone(words, autoencoder):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((16, 32, 3), (32, 16, 3), (16, 32, 3))]
    encoder = Encoder(autoencoder, words.config)
    for together, picture in zip(encoder.encode(pictures), pictures, strict=True):
        torch.testing.assert_close(together, encoder.encode([picture])[0], atol=2e-2, rtol=2e-2)
        floats = encoder.encode([picture.astype(np.float32) / 255])[0]
        torch.testing.assert_close(together, floats, atol=5e-2, rtol=5e-2)
