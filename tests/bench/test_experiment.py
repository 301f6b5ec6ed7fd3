"""The comparison is set up as its file says, and its table states what was scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.experiment import CONFIG, Experiment, table
from training.loop import LoopConfig
from training.sft import SftConfig

CATEGORIES = ('metric_distance', 'metric_separation', 'size')


def score(overall: float, looks: float) -> dict:
    entry = {'accuracy': overall, 'perceive_rate': looks}
    bounds = [overall - 0.03, overall + 0.03]
    answers = {'overall': overall, 'overall_95': bounds, 'by_category': dict.fromkeys(CATEGORIES, entry)}
    return {'answers': answers, 'perceive_rate': looks}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return replace(Experiment.load(CONFIG), out=tmp_path)


def test_all_variants_answer_equally_many_questions_in_equally_many_steps(experiment: Experiment) -> None:
    settings = [experiment.settings(variant['stage'], 1) for variant in experiment.variants.values()]
    stages = [SftConfig(**entry['stage']) for entry in settings if 'modes' in entry['stage']]
    assert len({len(stage.modes) for stage in stages}) == 1
    assert len({(entry['loop']['steps'], entry['loop']['seed']) for entry in settings}) == 1
    assert all(LoopConfig(**entry['loop']).steps > 0 for entry in settings)


def test_a_stage_starts_from_the_one_before_with_the_same_seed(experiment: Experiment) -> None:
    assert 'start' not in experiment.settings('words', 2)
    settings = experiment.settings('maps', 2)
    assert settings['start'] == str(experiment.folder('words', 2)) != str(experiment.folder('words', 1))
    assert settings['stage']['shift'] == experiment.common['stage']['shift']


def test_a_name_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    values = yaml.safe_load(CONFIG.read_text())
    values['variants']['base']['stage'] = 'nothing'
    path = tmp_path / 'experiment.yaml'
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="'nothing'"):
        Experiment.load(path)


def test_the_table_states_means_over_seeds_and_the_gain_over_the_first(experiment: Experiment) -> None:
    for variant, seed, overall, looks in (('base', 1, 0.4, 0.0), ('base', 2, 0.5, 0.0), ('SFT', 1, 0.6, 0.5)):
        entry = experiment.variants[variant]
        folder = experiment.folder(entry['stage'], seed)
        folder.mkdir(parents=True)
        (folder / f'{entry["mode"]}.json').write_text(json.dumps(score(overall, looks)))
    rows = {line.split('|')[1].strip(): line for line in table(experiment).splitlines()}
    assert '| 2 | 0.450 ± 0.021 | - | 0.450 | 0.00 |' in rows['base']
    assert '| 1 | 0.600 ± 0.030 | +0.150 ± 0.037 | 0.600 | 0.50 | 0.60 (0.50) |' in rows['SFT']
    assert 'AMG' not in rows
    with pytest.raises(ValueError, match='nothing is scored'):
        table(replace(experiment, out=experiment.out / 'empty'))
