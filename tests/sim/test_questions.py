"""Answers are checked against the scene in world coordinates, without the rules that made them."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from cooper_sim import CATEGORIES, KINDS, ask_questions
from cooper_sim.phrasing import metres, plural
from cooper_sim.questions import HIDDEN, MIN_AREA, WHOLE


@pytest.fixture(scope='module')
def asked(samples):
    """Many questions about each sample, with the sample."""
    return [
        (sample, question)
        for sample in samples
        for seed in range(4)
        for question in ask_questions(sample, np.random.default_rng((seed, sample.scene.seed)), 24)
    ]


def by_category(asked, *names):
    found = [(s, q) for s, q in asked if q.category in names]
    assert len(found) >= 10, names
    return found


def world(sample, number):
    """Return an object of the scene and what is visible of it."""
    visible = next(v for v in sample.visible if v.id == number)
    return sample.scene.objects[number - 1], visible


def said(question, *words):
    """Return whether the text claims, or asks for, the first of two opposites."""
    return any(word in question.text for word in words)


def holds(question, truth, opposite_asked=False):
    """Return whether a yes/no answer agrees with the truth of the asked statement."""
    return question.answer == ('yes' if truth != opposite_asked else 'no')


def test_every_category_is_asked_with_all_forms(asked):
    assert set(CATEGORIES) == {q.category for _, q in asked}
    assert {'choice', 'yes_no', 'number'} == {q.form for _, q in asked}


def test_answers_are_short_and_among_the_choices(asked):
    for _, question in asked:
        assert question.answer == question.answer.lower() and 0 < len(question.answer) <= 20
        assert '{' not in question.text and question.text[0].isupper()
        if question.form == 'number':
            assert question.choices == () and question.value is not None
            tolerance = 0 if question.unit == '' else 0.5
            assert float(question.answer) == pytest.approx(question.value, abs=0.05 * tolerance * 2)
        else:
            assert question.answer in question.choices
        if question.form == 'choice':
            assert all(word in question.text for choice in question.choices for word in choice.split())


def test_only_clearly_visible_things_are_asked_about(asked):
    for sample, question in asked:
        for number in question.object_ids:
            _, visible = world(sample, number)
            assert visible.area >= MIN_AREA * 128 * 96
            assert question.category in ('counting', 'existence') or visible.name in question.text


def test_left_and_right(asked):
    for sample, q in by_category(asked, 'left_right'):
        a, b = (world(sample, n)[1] for n in q.object_ids)
        left = np.mean(np.nonzero(sample.ids == a.id)[1]) < np.mean(np.nonzero(sample.ids == b.id)[1])
        if q.form == 'choice':
            assert q.answer == ('left' if left else 'right')
        else:
            assert holds(q, left, opposite_asked='right' in q.text)


def test_above_and_below(asked):
    for sample, q in by_category(asked, 'above_below'):
        a, b = (world(sample, n)[0] for n in q.object_ids)
        higher = a.position[2] > b.position[2]
        if q.form == 'choice':
            assert q.answer == ('above' if higher else 'below')
        else:
            assert holds(q, higher, opposite_asked=said(q, 'below', 'lower'))


def test_front_and_behind(asked):
    for sample, q in by_category(asked, 'front_behind'):
        pose = sample.scene.camera_pose
        za, zb = (pose[:3, 2] @ (np.array(world(sample, n)[0].position) - pose[:3, 3]) for n in q.object_ids)
        if q.form == 'choice':
            assert q.answer == ('in front' if za < zb else 'behind')
        else:
            assert holds(q, za < zb, opposite_asked='behind' in q.text)


def test_distance_to_the_camera(asked):
    for sample, q in by_category(asked, 'relative_distance', 'metric_distance'):
        camera = sample.scene.camera_pose[:3, 3]
        things = [world(sample, n)[0] for n in q.object_ids]
        far = [np.linalg.norm(np.array(t.position) - camera) for t in things]
        if q.form == 'number':
            assert q.value == pytest.approx(far[0]) and q.unit == 'm'
            continue
        most = said(q, 'farther', 'distant')
        if q.form == 'choice':
            assert q.answer == things[int(np.argmax(far) if most else np.argmin(far))].name
        else:
            assert holds(q, far[0] < far[1], opposite_asked=most)


def test_distance_between_objects(asked):
    for sample, q in by_category(asked, 'object_distance_relative', 'metric_separation'):
        things = [world(sample, n)[0] for n in q.object_ids]
        far = [np.linalg.norm(np.subtract(t.position, things[-1].position)) for t in things]
        if q.form == 'number':
            assert q.value == pytest.approx(far[0]) and q.unit == 'm'
        elif q.form == 'choice':
            assert q.answer == things[int(far[1] < far[0])].name
        else:
            assert holds(q, far[0] < far[1])


def test_sizes(asked):
    for sample, q in by_category(asked, 'size'):
        things = [world(sample, n)[0] for n in q.object_ids]
        if q.form == 'number' and said(q, 'tall', 'height'):
            assert q.value == pytest.approx(things[0].size[2])
        elif q.form == 'number':
            assert min(things[0].size[:2]) - 1e-6 <= q.value <= np.hypot(*things[0].size[:2]) + 1e-6
        elif q.form == 'choice':
            assert q.answer == max(things, key=lambda t: t.size[2]).name
        else:
            assert holds(q, things[0].size[2] > things[1].size[2])


def test_counts(asked):
    for sample, q in by_category(asked, 'counting'):
        kinds = [k for k in KINDS if f'{plural(k)} ' in q.text.replace('.', ' ')]
        colors = [v.color for v in sample.visible if f'{v.color} objects' in q.text]
        if kinds:
            expected = sum(v.kind == kinds[0] for v in sample.visible)
        elif colors:
            expected = sum(v.color == colors[0] for v in sample.visible)
        elif q.answer != '0':
            expected = len(sample.visible)
        else:
            expected = 0
        assert q.answer == str(expected) and q.value == expected


def test_existence(asked):
    for sample, q in by_category(asked, 'existence'):
        names = {v.name for v in sample.visible} | {v.kind for v in sample.visible}
        text = q.text.rstrip('?').removesuffix(' in the picture')
        assert q.answer == ('yes' if any(text.endswith(f' {name}') for name in names) else 'no') or (
            # a colour before a kind that is there, but not in this colour
            q.answer == 'no' and not any(text.endswith(f' {v.name}') for v in sample.visible)
        )


def test_occlusion(asked):
    for sample, q in by_category(asked, 'occlusion'):
        fraction = world(sample, q.object_ids[0])[1].visible_fraction
        assert fraction < HIDDEN or fraction > WHOLE
        assert q.answer in (('yes', 'partly hidden') if fraction < HIDDEN else ('no', 'fully visible'))


def test_points_of_view(asked):
    """Left and right from above: the turn from what is faced to what is asked about."""
    for sample, q in by_category(asked, 'situational'):
        viewer, target, thing = (np.array(world(sample, n)[0].position[:2]) for n in q.object_ids)
        assert (q.viewer, q.target) == q.object_ids[:2]
        ahead, there = target - viewer, thing - viewer
        turn = ahead[0] * there[1] - ahead[1] * there[0]  # positive: counter-clockwise, to the left
        assert q.answer == ('left' if turn > 0 else 'right')


def test_no_answer_dominates(asked):
    answers = defaultdict(Counter)
    for _, q in asked:
        if q.form == 'number' and q.unit == 'm':
            continue
        answers[q.category, q.form][q.answer] += 1
    for (category, form), counts in answers.items():
        if sum(counts.values()) >= 60:
            most = counts.most_common(1)[0][1] / sum(counts.values())
            assert most < 0.7, (category, form, counts)


def test_questions_follow_the_random_stream(samples):
    first = ask_questions(samples[0], np.random.default_rng(3))
    assert first == ask_questions(samples[0], np.random.default_rng(3))
    assert first != ask_questions(samples[0], np.random.default_rng(4))
    assert len(first) == 4 and len({q.category for q in first}) == 4


def test_weights_choose_the_categories(samples):
    found = ask_questions(samples[0], np.random.default_rng(0), 3, {'metric_distance': 1.0})
    assert found and {q.category for q in found} == {'metric_distance'}


def test_lengths_have_about_two_digits():
    assert [metres(v) for v in (0.256, 0.999, 0.994, 1.26, 2.0)] == ['0.26', '1.0', '0.99', '1.3', '2.0']
