"""Packed sequences against the cached contexts of inference: two paths to one answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cooper_model import transforms
from cooper_model.backends.base import Guidance
from cooper_model.backends.decoding import TextToDecode, choose_tokens
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import SamplerConfig
from cooper_model.packing import IGNORE, PackedImages, Segment, pack, packed_forward
from tests.random_checkpoint import write_random_checkpoint
from training.segments import model_text, user_text

GRID = (3, 4)
QUESTION, ANSWER = (20, 21, 22), (30, 31)


@pytest.fixture(scope='module')
def backend(tmp_path_factory: pytest.TempPathFactory) -> TorchBackend:
    folder = write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'))
    return TorchBackend.load(folder, device='cpu', dtype=torch.float32)


@pytest.fixture(scope='module')
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@torch.no_grad()
def test_a_branching_pack_equals_separate_contexts(backend: TorchBackend, image: np.ndarray) -> None:
    tokens = backend.config.tokens
    latents = transforms.latent_tokens(backend.encode_image(image), 2)[0]
    pixels = torch.from_numpy(transforms.normalise(image))
    noisy = torch.from_numpy(backend.noise(48, 64, 3))
    segments = [
        Segment('latents', (), image=0, grid=GRID),
        Segment('vision', (0,), image=0, grid=GRID),
        user_text(QUESTION, (0, 1), tokens),
        Segment('noise', (0, 1, 2), image=1, grid=GRID),
        user_text(QUESTION[:1], (0, 1), tokens),
        model_text(ANSWER, (0, 1, 4), tokens),
    ]
    # A second, shorter sample forces padding.
    batch = pack([segments, [user_text(QUESTION, (), tokens)]], backend.config, multiple=8)
    times = [0.0, 0.7]
    pictures = PackedImages([pixels], [latents, noisy], times, [GRID, GRID])
    output = packed_forward(backend.model, batch, pictures)

    context = backend.new_context()
    backend.append_image(context, image, latents=True, vision=True)
    asked = context.fork()
    backend.append_text(asked, QUESTION)
    expected = backend.velocity([asked], noisy, GRID, 0.7)[0]
    torch.testing.assert_close(output.velocities[0], expected, atol=2e-5, rtol=2e-5)

    other = context.fork()
    backend.append_text(other, QUESTION[:1])
    hidden = backend._feed_text(other, [tokens.start, *ANSWER, tokens.end])[0]
    start = sum(2 if s.kind in ('latents', 'noise') else s.tokens for s in segments[:5])
    torch.testing.assert_close(output.understanding[0, start : start + len(hidden)], hidden, atol=2e-5, rtol=2e-5)

    alone = backend._feed_text(backend.new_context(), [tokens.start, *QUESTION, tokens.end])[0]
    torch.testing.assert_close(output.understanding[1, : len(alone)], alone, atol=2e-5, rtol=2e-5)


def test_labels_are_the_next_tokens_of_the_models_own_text(backend: TorchBackend) -> None:
    tokens = backend.config.tokens
    batch = pack([[user_text(QUESTION, (), tokens), model_text(ANSWER, (0,), tokens, given=1)]], backend.config)
    user = [IGNORE] * (len(QUESTION) + 2)
    assert batch.labels[0].tolist() == [*user, IGNORE, ANSWER[1], tokens.end, IGNORE]


def test_positions_count_an_image_once_and_noise_not_at_all(backend: TorchBackend) -> None:
    tokens = backend.config.tokens
    chain = [
        user_text(QUESTION, (), tokens),
        Segment('vision', (0,), image=0, grid=GRID),
        Segment('noise', (0, 1), image=0, grid=GRID),
        user_text(ANSWER, (0, 1), tokens),
    ]
    positions = pack([chain], backend.config).positions[0].tolist()
    vision = 5 + GRID[0] * GRID[1] + 2
    assert positions[:5] == [0, 1, 2, 3, 4]
    assert set(positions[5:vision]) == {5}
    assert set(positions[vision : vision + 2]) == {6}
    assert positions[vision + 2 : vision + 6] == [6, 7, 8, 9]


@torch.no_grad()
def test_guidance_branches_in_one_batch_equal_single_runs(backend: TorchBackend, image: np.ndarray) -> None:
    full, no_image = backend.new_context(), backend.new_context()
    backend.append_image(full, image, latents=True, vision=True)
    no_text = full.fork()
    backend.append_text(full, QUESTION)
    backend.append_text(no_image, QUESTION)
    noisy = torch.from_numpy(backend.noise(48, 64, 1))
    guidance = Guidance(full, no_text, no_image)
    together = backend.velocity([guidance.full, guidance.no_text, guidance.no_image], noisy, GRID, 0.5)
    for row, context in enumerate((full, no_text, no_image)):
        single = backend.velocity([context], noisy, GRID, 0.5)[0]
        torch.testing.assert_close(together[row], single, atol=2e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize('temperature', [0.0, 1.3])
def test_batched_decoding_equals_single(backend: TorchBackend, image: np.ndarray, temperature: float) -> None:
    def contexts() -> list:
        first, second, third = (backend.new_context() for _ in range(3))
        backend.append_text(first, QUESTION)
        backend.append_image(second, image, latents=False, vision=True)
        backend.append_text(second, ANSWER)
        return [first, second, third, first.fork()]

    prefixes = ((), (), QUESTION, QUESTION)
    lengths = (90, 3, 90, 90)  # more than the room that a padded cache begins with
    lone, rows = contexts(), contexts()
    single, texts = [], []
    for row, (context, prefix, length) in enumerate(zip(lone, prefixes, lengths, strict=True)):
        tokens = backend.decode(context, prefix, max_tokens=90, temperature=temperature, seed=row)
        single.append([token for _, token in zip(range(length), tokens, strict=False)])
        tokens.close()
        left = iter(range(length - 1))
        texts.append(TextToDecode(rows[row], prefix, row, lambda _, left=left: next(left, None) is None))
    batched = backend.decode_batch(texts, max_tokens=90, temperature=temperature)
    assert [[token.id for token in text.tokens] for text in batched] == [[t.id for t in row] for row in single]
    for text, expected in zip(batched, single, strict=True):
        for token, other in zip(text.tokens, expected, strict=True):
            assert token.logprob == pytest.approx(other.logprob, abs=1e-4)
        if text.end is not None:
            assert text.end.id == backend.config.tokens.end and text.end.logprob <= 0
    assert [len(context) for context in rows] == [len(context) for context in lone]
    assert [context.position for context in rows] == [context.position for context in lone]
    for context, other in zip(rows, lone, strict=True):
        torch.testing.assert_close(context.keys(1), other.keys(1), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(context.values(1), other.values(1), atol=2e-5, rtol=1e-4)


def test_pictures_and_texts_of_several_contexts_equal_single_ones(backend: TorchBackend, image: np.ndarray) -> None:
    pictures, texts = [image, image[::-1].copy()], [QUESTION, [*QUESTION, 9]]
    together = [backend.new_context() for _ in pictures]
    backend.append_pictures(together, pictures)
    backend.append_texts(together, texts)
    for context, picture, text in zip(together, pictures, texts, strict=True):
        lone = backend.new_context()
        backend.append_image(lone, picture, latents=False, vision=True)
        backend.append_text(lone, text)
        assert context.position == lone.position
        torch.testing.assert_close(context.keys(1), lone.keys(1), atol=2e-5, rtol=1e-4)


def test_a_token_is_drawn_as_often_as_it_is_likely() -> None:
    logits = torch.tensor([2.0, float('-inf'), 1.0, 0.0]).repeat(400, 1)
    uniform = [(n + 0.5) / 400 for n in range(400)]
    drawn = choose_tokens(logits, 2.0, uniform)
    expected = (logits[0] / 2).softmax(-1)
    for number in range(4):
        share = sum(token.id == number for token in drawn) / 400
        assert share == pytest.approx(float(expected[number]), abs=0.005)
    assert all(token.logprob == pytest.approx(math.log(expected[token.id])) for token in drawn)
    assert {token.id for token in choose_tokens(logits[:2], 2.0, [0.0, 1 - 1e-16])} == {0, 3}


@torch.no_grad()
def test_both_attention_kernels_agree(backend: TorchBackend, image: np.ndarray) -> None:
    fused = TorchBackend(backend.model, backend.autoencoder, 'sdpa')
    found = []
    for one in (backend, fused):
        context = one.new_context()
        one.append_image(context, image, latents=True, vision=True)
        branch = context.fork()
        hidden = one._feed_text(branch, [0, *QUESTION, 1])
        tokens = [token.id for token in one.decode(branch.fork(), max_tokens=6)]
        noisy = torch.from_numpy(one.noise(48, 64, 1))
        found.append((hidden, one.velocity([context, branch], noisy, GRID, 0.5), tokens))
    torch.testing.assert_close(found[0][0], found[1][0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], atol=2e-5, rtol=1e-4)
    assert found[0][2] == found[1][2]
    with pytest.raises(ValueError, match='expected one of parts, sdpa'):
        TorchBackend(backend.model, backend.autoencoder, 'flash')


def test_images_of_several_requests_equal_single_ones(backend: TorchBackend, image: np.ndarray) -> None:
    sampler = SamplerConfig(num_timesteps=3, text_scale=4.0, image_scale=2.0, interval=(0.0, 1.0))
    requests = []
    for picture, question in ((image, QUESTION), (image[::-1].copy(), ANSWER)):
        no_text, no_image = backend.new_context(), backend.new_context()
        backend.append_image(no_text, picture, latents=True, vision=True)
        full = no_text.fork()
        for context in (full, no_image):
            backend.append_text(context, question)
        requests.append(Guidance(full, no_text, no_image))
    noise = np.stack([backend.noise(48, 64, seed) for seed in (1, 2)])
    *_, together = backend.generate_batch(requests, 48, 64, sampler, noise)
    for row, request in enumerate(requests):
        *_, single = backend.generate(request, 48, 64, sampler, noise[row])
        np.testing.assert_allclose(together[row], single, atol=2e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2
