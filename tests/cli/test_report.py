"""The figures of an evaluation from results written down by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cooper_cli.evaluation import GivenAnswer, SceneResult, scene_seeds
from cooper_cli.report import answer_lines, as_text, summarise
from cooper_sim.grading import Truth
from cooper_sim.scoring import DepthScore

LEFT, RIGHT = (Truth(word, choices=('left', 'right')) for word in ('left', 'right'))
THREE = Truth('3', 3.0)


def answers(*right: bool, images: int = 0) -> tuple[GivenAnswer, ...]:
    return tuple(GivenAnswer('', value, images, False, 0.5) for value in right)


@pytest.fixture
def results() -> list[SceneResult]:
    return [
        SceneResult(
            DepthScore(0.8, 0.2, 0.4, 0.9), (1.0, 0.5), 0.6, (('side', LEFT), ('side', LEFT), ('count', THREE)),
            {'auto': answers(True, False, True, images=1), 'direct': answers(False, False, False)}, 0.1,
        ),
        SceneResult(
            DepthScore(0.6, 0.4, 0.6, 0.8), (0.0,), 0.2, (('side', RIGHT),),
            {'auto': answers(True), 'direct': answers(True)}, 0.3,
        ),
    ]  # fmt: skip


def test_maps_are_averaged_over_images_and_objects(results):
    record = summarise(results, ('auto',))
    assert record['depth']['delta1'] == pytest.approx(0.7)
    assert record['depth']['abs_rel'] == pytest.approx(0.3)
    assert record['depth']['rmse'] == pytest.approx(0.5)
    assert record['depth']['delta1_scaled'] == pytest.approx(0.85)
    assert record['segmentation']['miou'] == pytest.approx(0.5)
    assert record['segmentation']['boundary_f1'] == pytest.approx(0.4)
    assert (record['segmentation']['objects'], record['scenes'], record['questions']) == (3, 2, 4)


def test_answers_stand_beside_the_most_frequent(results):
    record = summarise(results, ('auto', 'direct'))
    found = record['answers']
    assert found['mode'] == 'auto'
    assert found['overall'] == pytest.approx(3 / 4)
    # Always `left` is right in two of three, always `3` in one of one.
    assert found['most_frequent'] == pytest.approx(3 / 4)
    assert found['above_most_frequent'] == pytest.approx(0)
    side = found['by_category']['side']
    assert (side['accuracy'], side['most_frequent'], side['n']) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert side['chance'] == pytest.approx(0.5) and found['by_category']['count']['chance'] is None
    assert record['perceive_rate'] == pytest.approx(3 / 4)
    rates = {name: entry['perceive_rate'] for name, entry in found['by_category'].items()}
    assert sum(rates[name] * entry['n'] for name, entry in found['by_category'].items()) == pytest.approx(3)
    assert side['accuracy_95'][0] < side['accuracy'] < side['accuracy_95'][1]
    assert record['by_mode']['direct']['overall'] == pytest.approx(1 / 4)
    assert record['by_mode']['direct']['perceive_rate'] == 0


def test_the_first_mode_is_the_one_reported(results):
    assert summarise(results, ('direct', 'auto'))['answers']['overall'] == pytest.approx(1 / 4)


def test_depth_without_metres_is_unknown(results):
    record = summarise([replace(result, depth=None) for result in results], ('auto',))
    assert record['depth']['delta1'] is None
    assert 'delta1' in as_text(record)


def test_scenes_differ_and_repeat():
    assert scene_seeds(50, 1) == scene_seeds(60, 1)[:50]
    assert len(set(scene_seeds(600, 1)) | set(scene_seeds(600, 2))) == 1200


def test_answers_of_two_modes_can_be_paired_by_question(results):
    from training.benchmarks.report import compare

    direct, auto = (answer_lines(results, (7, 9), mode) for mode in ('direct', 'auto'))
    assert [line['index'] for line in auto] == ['7/0', '7/1', '7/2', '9/0']
    found = compare(direct, auto)
    assert (found['first'], found['second'], found['better'], found['worse']) == (0.25, 0.75, 2, 0)
    assert found['by_category']['count']['difference'] == 1
    assert found['by_category']['side']['n'] == 3
