"""The released SFT and RL formats: what becomes a segment, what is learned, what answers are right."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cooper_model.packing import IGNORE
from training.datasets.base import DataEntry
from training.datasets.interleaved import Said, Seen
from training.datasets.registry import open_questions, open_traces
from training.datasets.rl import options_of

LOOK = '<think>Depth helps.</think><depth-estimation>Estimate the depth.</depth-estimation>'
TOLD = r'<think>The ball is near.</think><answer>\boxed{the ball}</answer>'


def encoded(pixels, prefix=''):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return prefix + base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def row():
    rng = np.random.default_rng(0)
    camera, depth = (rng.integers(0, 256, (40, 70, 3), np.uint8) for _ in range(2))
    return {'interleaved_reason': [
        {'type': 'image', 'value': encoded(camera, 'data:image/png;base64,')},
        {'type': 'text', 'value': 'Which is closer, the ball or the box?', 'need_loss': 'false'},
        {'type': 'text', 'value': LOOK, 'need_loss': 'true'},
        {'type': 'image', 'value': encoded(depth)},
        {'type': 'text', 'value': 'Here is the map.', 'need_loss': 'false'},
        {'type': 'text', 'value': TOLD, 'need_loss': 'true'},
    ]}  # fmt: skip


def test_a_trace_becomes_one_conversation(words, row, write_list):
    data = open_traces(DataEntry('interleaved', str(write_list('Interleaved_SFT.jsonl', [row]))), words)
    made = data.conversation(0, first_vision=5, first_latent=2)
    kinds = [segment.kind for segment in made.segments]
    assert kinds == ['text', 'latents', 'vision', 'text', 'text', 'vision', 'text', 'text']
    assert [segment.sees for segment in made.segments] == [tuple(range(n)) for n in range(len(kinds))]
    texts = [words.tokenizer.decode(segment.ids) for segment in made.segments if segment.kind == 'text']
    asked = 'Which is closer, the ball or the box?'
    assert texts == [words.prompts.system('auto'), asked, LOOK, 'Here is the map.', TOLD]
    learned = [segment for segment in made.segments if segment.labels]
    assert [words.tokenizer.decode(segment.ids) for segment in learned] == [LOOK, TOLD]
    for segment in learned:
        # Each place predicts the next token, the last of them the end.
        assert segment.labels == (*segment.ids[1:], IGNORE)
    assert [segment.image for segment in made.segments if segment.kind == 'vision'] == [5, 6]
    assert [segment.image for segment in made.segments if segment.kind == 'latents'] == [2]
    assert [picture.shape for picture in made.vision] == [(32, 64, 3)] * 2 and len(made.latents) == 1


def test_a_trace_that_is_too_long_is_named(words, row, write_list, caplog):
    path = str(write_list('Interleaved_SFT.jsonl', [row]))
    data = open_traces(DataEntry('interleaved', path), words)
    tokens = sum(segment.tokens for segment in data.conversation(0).segments)
    assert len(open_traces(DataEntry('interleaved', path), replace(words, max_tokens=tokens))) == 1
    with pytest.raises(ValueError, match=r'0 used, 1 left out \(1 too long\)'):
        open_traces(DataEntry('interleaved', path), replace(words, max_tokens=tokens - 1))
    assert f'{path}:1 left out (too long): {tokens} tokens, at most {tokens - 1} fit' in caplog.text


def test_broken_traces_are_named_with_their_lines(words, row, write_list):
    items = row['interleaved_reason']
    path = write_list('Interleaved_SFT.jsonl', [
        {'interleaved_reason': items[:2]},
        row,
        {'interleaved_reason': 'none'},
        {'interleaved_reason': items[1:3]},
        {'interleaved_reason': [{'type': 'image', 'value': 'bm8gaW1hZ2U='}, *items[1:]]},
        {'interleaved_reason': [{'type': 'text'}, *items]},
        row,
    ])  # fmt: skip
    data = open_traces(DataEntry('interleaved', str(path)), words)
    assert len(data) == 2 and data.place(1) == f'{path}:7'
    places = {reason: [text.split(': ')[0] for text in texts] for reason, texts in data.report.left_out.items()}
    assert places == {
        'broken line': [f'{path}:{n}' for n in (1, 3, 4, 6)], 'unreadable image': [f'{path}:5'],
    }  # fmt: skip


def test_a_trace_asks_a_question_too(words, row, write_list):
    data = open_questions(DataEntry('interleaved', str(write_list('Interleaved_SFT.jsonl', [row]))), words)
    asked = data.question(0)
    assert asked.text == 'Which is closer, the ball or the box?' and asked.truth.answer == 'the ball'
    assert data.reward('ball', asked) == 1 and data.reward('box', asked) == 0
    said, seen = data.items(0)[1], data.items(0)[0]
    assert isinstance(said, Said) and isinstance(seen, Seen) and seen.camera
    assert np.array_equal(asked.image, seen.image) and asked.image.shape == (40, 70, 3)


QUESTION = 'What is left of the box?\nA. the ball\nB. the table'


@pytest.fixture
def questions(words, write_png, write_list):
    """Return a function that writes questions about one image and opens them."""
    name = write_png('images/a.png', np.zeros((48, 64, 3), np.uint8))

    def write(*rows, **model):
        lines = [{'question': QUESTION, 'answer': 'B', 'image': name, **row} for row in rows]
        path = write_list('RL_data.jsonl', lines)
        return open_questions(DataEntry('rl', str(path.parent)), replace(words, **model))

    return write


def test_answers_are_rewarded_by_exact_rules(questions):
    data = questions(
        {'data_id': '7', 'flag': 'positive'},
        {'question': 'How many balls are there?', 'answer': '3'},
        {'question': 'How far is the box?', 'answer': '2.0 meters'},
        {'question': 'Is the ball left of the box?', 'answer': 'yes', 'category': 'left_right'},
        {'question': 'Which?', 'answer': 'box', 'choices': ['ball', 'box']},
        {'question': 'How high?', 'answer': 'about a metre', 'value': 1.0, 'unit': 'm'},
    )
    choice, count, length, yes, listed, stated = (data.question(n) for n in range(6))
    assert (choice.id, choice.flag, choice.choices) == ('7', 'positive', ('the ball', 'the table'))
    assert [data.reward(answer, choice) for answer in ('B', 'the table', '(b)', 'A', 'table top')] == [1, 1, 1, 0, 0]
    assert (count.id, count.flag) == ('2', 'boundary')
    assert [data.reward(answer, count) for answer in ('3', 'three', '4', '')] == [1, 1, 0, 0]
    assert [data.reward(answer, length) for answer in ('2 m', '240 cm', '2.6 m', '150 cm')] == [1, 1, 0, 1]
    assert yes.category == 'left_right' and data.reward('Yes.', yes) == 1 and data.reward('no', yes) == 0
    assert data.reward('B', listed) == 1 and data.reward('ball', listed) == 0
    assert data.reward('1.2 m', stated) == 1 and data.reward('1.3 m', stated) == 0
    assert choice.image.shape == (48, 64, 3)


def test_questions_that_cannot_be_rewarded_are_named(questions):
    data = questions(
        {},
        {'flag': 'maybe'},
        {'answer': 'the lamp'},
        {'image': 'images/b.png'},
        {'answer': ' '},
        {'choices': 'A'},
        {'value': 'much', 'question': 'How many?'},
    )
    assert len(data) == 1
    counts = {reason: len(texts) for reason, texts in data.report.left_out.items()}
    assert counts == {'broken line': 5, 'missing file': 1}
    assert "names none of the choices ['the ball', 'the table']" in data.report.left_out['broken line'][1]


def test_a_question_without_room_for_an_answer_is_named(questions):
    with pytest.raises(ValueError, match='1 too long'):
        questions({}, max_tokens=30)


@pytest.mark.parametrize(('text', 'options'), [
    (QUESTION, ['the ball', 'the table']),
    ('Pick.\n(A) red\n(B) blue\n(C) green', ['red', 'blue', 'green']),
    ('Pick.\nA: red', []),
    ('Pick.\nB. red\nC. blue', []),
    ('See figure A. It is red.', []),
])  # fmt: skip
def test_options_are_read_from_the_question(text, options):
    assert options_of(text) == options
