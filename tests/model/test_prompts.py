"""Prompts: files come back, mistakes in them are named, and the question has one form."""

import json

import pytest

from cooper_model.prompts import Prompts, question_text
from cooper_model.types import MODES


def test_saved_prompts_are_loaded_back(tmp_path):
    prompts = Prompts(system_direct='Sei kurz: ß €', request_depth='depth?', forced_answer='<answer>')
    prompts.save(tmp_path)
    assert Prompts.load(tmp_path) == prompts


def test_what_a_file_leaves_out_is_the_default(tmp_path):
    (tmp_path / 'prompts.json').write_text(json.dumps({'system.text': 'Think.'}))
    assert Prompts.load(tmp_path) == Prompts(system_text='Think.')


def test_without_a_file_there_are_defaults(tmp_path):
    prompts = Prompts.load(tmp_path)
    assert prompts == Prompts()
    assert [bool(prompts.system(mode)) for mode in MODES] == [True, False, True, True]
    # Published weights know exactly these two sentences.
    assert prompts.request('depth') == (
        '<depth-estimation>Estimate the depth of the image and generate the depth map.</depth-estimation>'
    )
    assert prompts.request('segmentation') == (
        '<segmentation>Segment the objects in the image with different colors.</segmentation>'
    )


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'is not valid JSON'),
        ('[]', 'holds list, expected a JSON object'),
        ('{"system.silly": ""}', "unknown key 'system.silly'"),
        ('{"reflection": 3}', 'reflection is int, expected a text'),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path, content, message):
    (tmp_path / 'prompts.json').write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Prompts.load(tmp_path)
    assert 'prompts.json' in str(caught.value)


def test_choices_are_listed_with_letters():
    assert question_text(' Where is it? ', ['left', ' right']) == 'Where is it?\nA. left\nB. right'


@pytest.mark.parametrize(
    ('question', 'choices'),
    [
        ('Is the ball left or right of the box?', ('left', 'right')),
        ('Is the ball red?', ('yes', 'no')),
        ('How many?', ()),
    ],
)
def test_choices_that_go_without_saying_are_not_listed(question, choices):
    assert question_text(question, choices) == question


def test_a_choice_inside_another_word_is_not_named():
    assert question_text('Is it on the leftmost?', ('left', 'on')).count('\n') == 2


@pytest.mark.parametrize(
    ('question', 'choices', 'message'),
    [
        (' \n', (), 'the question is empty'),
        ('Where?', ('left', ' '), 'choice 2 of 2 is empty'),
        ('Where?', tuple(f'place {i}' for i in range(27)), 'at most 26'),
        (' or '.join(f'place {i}' for i in range(27)), tuple(f'place {i}' for i in range(27)), 'at most 26'),
    ],
)
def test_bad_questions_are_refused(question, choices, message):
    with pytest.raises(ValueError, match=message):
        question_text(question, choices)
