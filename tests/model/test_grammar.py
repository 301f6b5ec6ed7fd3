"""The tag grammar: what is formatted is parsed back, and junk of any kind is read without an error."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooper_model import grammar
from cooper_model.types import Turn

PIECES = ('<think>', '</think>', '<answer>', '</answer>', '<depth-estimation>', '</depth-estimation>')
PIECES += ('<segmentation>', '</segmentation>', '\\boxed{', '}', '{', '<', 'left', ' ', '1.5 m')
plain = st.text(st.characters(blacklist_characters='<>\r', blacklist_categories=('Cs',))).map(str.strip)
junk = st.lists(st.sampled_from(PIECES), max_size=30).map(''.join)


@given(plain, st.sampled_from(['depth', 'segmentation', 'answer']), plain)
def test_a_formatted_turn_is_parsed_back(thought, action, body):
    turn = Turn(thought, action, body)
    assert grammar.parse_turn(grammar.format_turn(turn)) == turn


@given(plain, plain)
def test_a_turn_without_action_keeps_its_words(thought, body):
    assert grammar.parse_turn(grammar.format_turn(Turn(thought, None, body))) == Turn(thought, None, body)


@given(junk)
def test_a_stream_stops_where_the_whole_text_would(text):
    scanner = grammar.TurnScanner()
    for end, letter in enumerate(text, 1):
        if scanner.feed(letter):
            assert grammar.parse_turn(text[:end]) == grammar.parse_turn(text)
            assert scanner.text.endswith('>')
            return


@given(junk)
def test_junk_is_parsed_and_its_action_can_be_taken_out(text):
    turn = grammar.parse_turn(text)
    assert turn.action is None or f'<{grammar.TAGS[turn.action]}>' in text
    assert text.startswith(grammar.without_action(text))
    grammar.boxed(text)
    grammar.parse_number(text)


@pytest.mark.parametrize(
    ('text', 'action', 'body'),
    [
        ('<answer>a</answer><answer>b</answer>', 'answer', 'a'),
        ('<segmentation>s</segmentation><depth-estimation>d</depth-estimation>', 'segmentation', 's'),
        ('<segmentation>s<depth-estimation>d</segmentation>', 'depth', 'd'),
        ('<depth-estimation>d</depth-estimation><answer>a</answer>', 'depth', 'd'),
        ('<answer><answer>a</answer></answer>', 'answer', 'a'),
        ('<think>maybe <answer>no</answer></think><answer>yes</answer>', 'answer', 'yes'),
        ('<think>open <answer>yes</answer>', 'answer', 'yes'),
        ('<think>t</think><answer>cut off', 'answer', 'cut off'),
        ('<segmentation><depth-estimation>', 'depth', ''),
        ('</answer>left', None, '</answer>left'),
        ('left', None, 'left'),
        ('', None, ''),
    ],
)
def test_what_counts_in_a_broken_turn(text, action, body):
    turn = grammar.parse_turn(text)
    assert (turn.action, turn.body) == (action, body)


def test_a_thought_that_never_ends_is_a_thought():
    assert grammar.parse_turn('<think>on and on') == Turn('on and on', None, '')


@pytest.mark.parametrize('piece', [*PIECES, '<think>a</think><segmentation>', '9', '1,234'])
def test_very_long_texts_are_read_in_linear_time(piece):
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    grammar.parse_turn(text)
    grammar.boxed(text)
    grammar.parse_number(text)
    # Quadratic work on 100 kB takes minutes: this bound is no measure of speed.
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ('text', 'inside'),
    [
        (r'\boxed{left}', 'left'),
        (r'\boxed{{left}}', 'left'),
        (r'so \boxed{a} no, \boxed{ b }.', 'b'),
        (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'),
        (r'\boxed{left</answer>', 'left'),
        (r'\boxed{left', 'left'),
        (r'\boxed{}', ''),
        ('left', None),
    ],
)
def test_box(text, inside):
    assert grammar.boxed(text) == inside


@given(plain.filter(lambda text: not {'{', '}', '\\'} & set(text)))
def test_a_boxed_answer_comes_back(text):
    turn = Turn('', 'answer', grammar.boxed_answer(text))
    assert grammar.short_answer(grammar.parse_turn(grammar.format_turn(turn))) == text


def test_an_answer_without_a_box_is_its_body():
    assert grammar.short_answer(Turn('', 'answer', 'left')) == 'left'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('1.25 m', (1.25, 'm')),
        ('about 30cm', (30.0, 'cm')),
        ('-3', (-3.0, '')),
        ('.5 metres', (0.5, 'm')),
        ('1,200.5 millimeters', (1200.5, 'mm')),
        ('45°', (45.0, 'deg')),
        ('3 balls', (3.0, '')),
        ('3 in', (3.0, 'in')),
        ('3 in the picture', (3.0, '')),
        ('Three.', (3.0, '')),
        ('1e-2 m', (0.01, 'm')),
        ('left', None),
        ('box2', None),
        ('', None),
        ('9' * 400, None),
        ('1e999', None),
    ],
)
def test_numbers(text, expected):
    assert grammar.parse_number(text) == expected


@given(st.floats(-1e6, 1e6), st.sampled_from(['m', 'cm', 'mm', '']))
def test_a_written_number_is_read_back(value, unit):
    read, read_unit = grammar.parse_number(f'{value:.3f} {unit}')
    assert math.isclose(read, value, abs_tol=5e-4) and read_unit == unit


@pytest.mark.parametrize(
    ('said', 'index'),
    [
        ('left', 0),
        ('Right.', 1),
        ('B', 1),
        ('(a)', 0),
        ('a. left', 0),
        ('b) left', None),
        ('C', None),
        ('up', None),
    ],
)
def test_choices_are_recognised(said, index):
    assert grammar.match_choice(said, ('left', 'right')) == index
