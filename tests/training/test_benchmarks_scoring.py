"""Scores of benchmarks against cases worked out by hand."""

from __future__ import annotations

import pytest

from training.benchmarks import choice, number, ratio, yes_no
from training.benchmarks.items import Truth
from training.benchmarks.scorings import SCORINGS, scoring_of
from training.benchmarks.words import final_text, quantities

MUGS = ('red mug', 'blue mug', 'a box', 'left of the box')


@pytest.mark.parametrize(
    ('said', 'letter'),
    [
        ('B', 'B'),
        ('b', 'B'),
        ('B.', 'B'),
        ('(B)', 'B'),
        ('B)', 'B'),
        ('[B]', 'B'),
        ('B: blue mug', 'B'),
        ('(B) Blue mug.', 'B'),
        ('B) because it is nearer', 'B'),
        ('blue mug', 'B'),
        ('The answer is B.', 'B'),
        ('The answer is B because it is nearer.', 'B'),
        ('Answer: (C)', 'C'),
        ('It cannot be A. The answer is B', 'B'),
        ('The answer is A because it is red.', 'A'),
        ('<think>A is far.</think><answer>\\boxed{B}</answer>', 'B'),
        ('\\boxed{\\text{B}}', 'B'),
        ('First \\boxed{A}, no: \\boxed{D}', 'D'),
        ('$\\boxed{(C) a box}$', 'C'),
        ('**B**', 'B'),
        ('It must be (C), I think', 'C'),
        ('I would choose option D here', 'D'),
        ('The nearest one is the blue mug.', 'B'),
        ('It stands left of the box', 'D'),  # names 'a box' neither
        ('A mug', None),  # an article, and no option
        ('Either A or B', None),
        ('the red mug or the blue mug', None),
        ('B is nearer than the red mug', None),  # a letter and a text that disagree
        ('A. blue mug', None),
        ('E', None),
        ('', None),
        ('no idea', None),
    ],
)
def test_which_option_an_answer_names(said, letter):
    index = choice.read(said, MUGS)
    assert (None if index is None else 'ABCD'[index]) == letter


def test_letters_without_listed_options():
    assert choice.read('G', ()) == 6
    assert choice.read('The answer is C.', ()) == 2
    assert choice.read('Z', ()) is None


def test_options_may_stand_in_the_question():
    row = {'question': 'Where is it?\nA. left\nB. right', 'answer': 'B', 'type': 'MCQ'}
    truth = choice.CHOICE.truth(row)
    assert truth == Truth('B', ('left', 'right'))
    assert choice.CHOICE.score('It is to the right.', truth).value == 1
    assert choice.CHOICE.score('left', truth).value == 0


@pytest.mark.parametrize(
    ('cells', 'message'),
    [
        ({'A': 'x', 'C': 'y', 'answer': 'A'}, 'option B is empty'),
        ({'A': 'x', 'B': 'y', 'answer': 'C'}, "'C' is no option"),
        ({'A': 'x', 'B': 'y', 'answer': ''}, "'' is no option"),
    ],
)
def test_malformed_options_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        choice.CHOICE.truth({'question': 'Which?', **cells})


@pytest.mark.parametrize(
    ('said', 'meaning'),
    [
        ('Yes', True),
        ('no.', False),
        ('\\boxed{true}', True),
        ('Yes, there is no doubt', True),
        ('There is no mug', False),
        ('I think the statement is false', False),
        ('It is not true', None),
        ("That isn't true", None),
        ('yes or no', True),
        ('maybe yes, maybe no', None),
        ('perhaps', None),
    ],
)
def test_yes_and_no(said, meaning):
    assert yes_no.read(said) is meaning


@pytest.mark.parametrize(
    ('given', 'true', 'score'),
    [
        (10, 10, 1.0),
        (11, 10, 0.8),  # 10 % off: below 50, 45 .. 15 %, not below 10 and 5 %
        (9, 10, 0.8),
        (10.5, 10, 0.9),  # 5 % off is not below 5 %
        (10.49, 10, 1.0),
        (13, 10, 0.4),  # 30 % off: below 50, 45, 40, 35 %
        (15, 10, 0.0),  # 50 % off is not below 50 %
        (14.9, 10, 0.1),
        (-10, -10, 1.0),
        (0, 0, 1.0),
        (1, 0, 0.0),
    ],
)
def test_mean_relative_accuracy(given, true, score):
    assert number.mean_relative_accuracy(given, true) == pytest.approx(score)


def test_numbers_are_read_and_scored():
    truth = number.NUMBER.truth({'question': 'How far?', 'answer': '2'})
    assert number.NUMBER.score('\\boxed{2.2}', truth).value == pytest.approx(0.8)
    assert number.NUMBER.score('It is 1 m wide and stands at 2 m.', truth).value == 1
    assert number.NUMBER.score('far', truth).value == 0
    assert number.NUMBER.score('far', truth).read is None
    whole = number.INTEGER.truth({'question': 'How many?', 'answer': '3'})
    assert [number.INTEGER.score(said, whole).value for said in ('3', 'three', '3.0', '4', '')] == [1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="'many' is no number"):
        number.INTEGER.truth({'question': 'How many?', 'answer': 'many'})
    assert number.NUMBER.truth({'question': 'How far?', 'answer': '12,500.5'}).value == 12500.5
    for unclear in ('1,2', '0,500', '1234,567'):  # the first may be one point two
        with pytest.raises(ValueError, match=f"'{unclear}' is no number"):
            number.NUMBER.truth({'question': 'How far?', 'answer': unclear})


@pytest.mark.parametrize(
    ('said', 'metres'),
    [
        ('1.5 m', 1.5),
        ('150 cm', 1.5),
        ('\\boxed{1500 mm}', 1.5),
        ('60 inches', 1.524),
        ('5 feet', 1.524),
        ('150', 1.5),  # in the unit of the true answer
        ('\\scalar{150} \\distance_unit{centimeters}', 1.5),
        ('The mug is 10 cm wide, so it is about 150 cm away.', 1.5),
        ('1-2 m', 1.5),
        ('between 1 and 2 metres', 1.5),
        ('very far', None),
    ],
)
def test_lengths_are_read_in_metres(said, metres):
    assert ratio.read(said, 'cm') == (None if metres is None else pytest.approx(metres))


@pytest.mark.parametrize(
    ('said', 'figures'),
    [
        ('100 cm', (1, 1, 1)),
        ('125 cm', (1, 1, 1)),
        ('0.8 m', (1, 1, 1)),
        ('126 cm', (1, 1, 0)),
        ('150 cm', (1, 1, 0)),
        ('151 cm', (1, 0, 0)),
        ('2 m', (1, 0, 0)),
        ('50 cm', (1, 0, 0)),
        ('201 cm', (0, 0, 0)),
        ('49.9 cm', (0, 0, 0)),
        ('0 cm', (0, 0, 0)),
        ('nothing', (0, 0, 0)),
    ],
)
def test_ratio_thresholds_include_the_border(said, figures):
    row = {'question': 'How far?', 'answer': '', 'answer_value': '100', 'answer_unit': 'centimeter'}
    truth = ratio.RATIO.truth(row)
    score = ratio.RATIO.score(said, truth)
    assert score.figures == dict(zip(('delta_2', 'delta_1.5', 'delta_1.25'), figures, strict=True))
    assert score.value == figures[0]


def test_border_of_a_ratio_survives_rounding():
    assert ratio.within(2.8, 1.4, 2) and ratio.within(0.7, 1.4, 2) and ratio.within(1.1, 2.2, 2)


def test_lengths_of_the_file():
    assert ratio.RATIO.truth({'question': '?', 'answer': "(31.5, 'centimeter')"}).value == 31.5
    for value, unit in (('0', 'cm'), ('x', 'cm'), ('3', 'furlong'), ('nan', 'm')):
        with pytest.raises(ValueError):
            ratio.RATIO.truth({'question': '?', 'answer': '', 'answer_value': value, 'answer_unit': unit})
    with pytest.raises(ValueError, match='no length'):
        ratio.RATIO.truth({'question': '?', 'answer': 'far'})


def test_free_text_without_a_judge_is_compared_word_for_word():
    truth = SCORINGS['text'].truth({'question': '?', 'answer': 'A red mug.'})
    assert SCORINGS['text'].score('<answer>a  Red mug</answer>', truth).value == 1
    assert SCORINGS['text'].score('a mug', truth).value == 0


@pytest.mark.parametrize(
    ('cells', 'name'),
    [
        ({'answer': 'A', 'A': 'x', 'B': 'y'}, 'choice'),
        ({'answer': 'C', 'type': 'MCQ'}, 'choice'),
        ({'answer': 'Yes'}, 'yes_no'),
        ({'answer': 'Yes', 'A': 'Yes', 'B': 'No'}, 'choice'),
        ({'answer': '3', 'type': 'Number_Int'}, 'integer'),
        ({'answer': '3', 'type': 'Number'}, 'number'),
        ({'answer': '', 'answer_value': '3', 'answer_unit': 'm'}, 'ratio'),
        ({'answer': "(3, 'm')"}, 'ratio'),
        ({'answer': '(B)', 'type': 'MCQ'}, 'choice'),
        ({'answer': 'a red mug'}, 'text'),
    ],
)
def test_each_row_finds_its_scoring(cells, name):
    assert scoring_of({'question': '?', **cells}).name == name


def test_words_and_numbers():
    assert final_text('<think>x</think>the mug') == 'the mug'
    assert quantities('about 2 m, or 6.5 ft') == [(2.0, 'm'), (6.5, 'ft')]
    assert quantities('1,250 mm') == [(1250.0, 'mm')]
    assert quantities('two') == quantities('There are two mugs.') == [(2.0, '')]
    assert quantities('none') == []
    assert quantities('B2 or v1.5') == []
