"""Which answers count as right, and what a constant answer scores."""

from __future__ import annotations

import pytest

from cooper_sim.grading import Truth, chance, is_right, most_frequent, read_number

DISTANCE = Truth('1.20 m', 1.2, 'm')
COUNT = Truth('3', 3.0)
CHOICE = Truth('the red mug', choices=('red mug', 'blue box'))


@pytest.mark.parametrize(
    'given, truth, right',
    [
        ('1.2 m', DISTANCE, True),
        ('1.5', DISTANCE, True),
        ('0.9 metres', DISTANCE, True),
        ('about 130 cm', DISTANCE, True),
        ('1.51 m', DISTANCE, False),
        ('0.89', DISTANCE, False),
        ('120', DISTANCE, False),
        ('far away', DISTANCE, False),
        ('', DISTANCE, False),
        ('-1.2', DISTANCE, False),
        ('3', COUNT, True),
        ('three', COUNT, True),
        ('There are 3 objects.', COUNT, True),
        ('3.2', COUNT, False),
        ('4', COUNT, False),
        ('Yes.', Truth('yes'), True),
        ('No', Truth('yes'), False),
        ('yesterday', Truth('yes'), False),
        ('', Truth('no'), False),
        ('The red mug', CHOICE, True),
        ('A', CHOICE, True),
        ('(a) red mug', CHOICE, True),
        ('A) blue box', CHOICE, False),
        ('B', CHOICE, False),
        ('red', CHOICE, False),
        ('C', CHOICE, False),
        ('Left', Truth('left'), True),
        ('left or right', Truth('left'), False),
    ],
)
def test_is_right(given: str, truth: Truth, right: bool):
    assert is_right(given, truth) is right


def test_read_number_converts_units():
    assert read_number('35 cm', 'm') == pytest.approx(0.35)
    assert read_number('0.35 m', 'cm') == pytest.approx(35)
    assert read_number('.5') == 0.5
    assert read_number('Ten chairs') == 10
    assert read_number('none') is None


def test_most_frequent_word():
    truths = [Truth('left'), Truth('right'), Truth('left')]
    assert most_frequent(truths) == [True, False, True]
    assert most_frequent([]) == []


def test_most_frequent_measured_number_is_the_best_constant():
    truths = [Truth(f'{value} m', value, 'm') for value in (0.5, 1.0, 1.1, 1.2, 3.0)]
    assert most_frequent(truths) == [False, True, True, True, False]


def test_chance():
    assert chance(CHOICE) == 0.5
    assert chance(Truth('No')) == 0.5
    assert chance(DISTANCE) is None
