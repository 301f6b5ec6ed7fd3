"""The comparison is set up as its file says, and its table states what was scored."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from bench.experiment import CONFIG, Experiment, table
from training.config import LoopConfig
from training.settings import read_settings
from training.sft import SftConfig

CATEGORIES = ('metric_distance', 'metric_separation', 'size')


def write(folder: Path, mode: str, right: list[bool], looks: float) -> None:
    """Write what ``cooper eval`` leaves: one question an image, the categories in turn."""
    entry = {'accuracy': sum(right) / len(right), 'perceive_rate': looks}
    answers = {'by_category': dict.fromkeys(CATEGORIES, entry)}
    record = {'answers': answers, 'perceive_rate': looks, 'questions': len(right), 'machine': 'm', 'date': 'd'}
    folder.mkdir(parents=True)
    (folder / f'{mode}.json').write_text(json.dumps(record))
    lines = [
        {'index': f'{n}.0', 'question': f'question {n}', 'truth': 'yes', 'score': float(ok), 'cluster': n,
         'category': CATEGORIES[n % len(CATEGORIES)]}
        for n, ok in enumerate(right)
    ]  # fmt: skip
    (folder / f'{mode}.jsonl').write_text('\n'.join(map(json.dumps, lines)))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return replace(Experiment.load(CONFIG), out=tmp_path)


def test_all_variants_answer_equally_many_questions_in_equally_many_steps(experiment: Experiment) -> None:
    supervised, rewarded = [], []
    for name, variant in experiment.variants.items():
        if 'times' in name or 'rate' in name:
            continue  # what becomes of stage 2b in other steps
        program = experiment.stages[variant['stage']]['program']
        (rewarded if program == 'training.grpo' else supervised).append(experiment.settings(variant['stage'], 1))
    stages = [SftConfig(**entry['stage']) for entry in supervised]
    assert len({len(stage.modes) for stage in stages}) == 1
    for entries in (supervised, rewarded):
        assert len({(entry['loop']['steps'], entry['loop']['seed']) for entry in entries}) == 1
        assert all(LoopConfig(**entry['loop']).steps > 0 for entry in entries)


def test_what_a_program_reads_is_what_it_knows(experiment: Experiment, tmp_path: Path) -> None:
    for stage, entry in experiment.stages.items():
        path = tmp_path / f'{stage}.yaml'
        path.write_text(yaml.safe_dump(experiment.settings(stage, 1)))
        read_settings(path, import_module(entry['program']).Settings)


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


def test_the_table_states_what_was_scored_and_the_gain_over_the_first(experiment: Experiment) -> None:
    half, most = [n % 2 == 0 for n in range(40)], [n % 4 != 3 for n in range(40)]
    for variant, seed, right, looks in (('base', 1, half, 0.0), ('base', 2, half, 0.0), ('SFT', 1, most, 0.5)):
        entry = experiment.variants[variant]
        write(experiment.folder(entry['stage'], seed), entry['mode'], right, looks)
    rows = {line.split('|')[1].strip(): [cell.strip() for cell in line.split('|')[2:-1]] for line in
            table(experiment).splitlines() if line.startswith('|')}  # fmt: skip
    assert rows['base'][0] == '2' and rows['base'][1].startswith('0.500 (') and rows['base'][2:5] == ['-', '-', '0.00']
    assert rows['SFT'][0] == '1' and rows['SFT'][2].startswith('+0.250 (+0.') and rows['SFT'][4] == '0.50'
    assert rows['category'] == ['base', 'SFT']
    assert rows['size'] == ['0.50 (0.00)', '0.75 (0.50)']
    assert 'AMG' not in rows


def test_without_the_first_variant_there_is_no_table(experiment: Experiment) -> None:
    entry = experiment.variants['SFT']
    write(experiment.folder(entry['stage'], 1), entry['mode'], [True, False, True], 1.0)
    with pytest.raises(ValueError, match='base is not scored'):
        table(experiment)


def test_a_finished_stage_is_exported_with_the_autoencoder_it_was_trained_with(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr('bench.experiment._run', lambda arguments: commands.append(arguments) or '{}')
    folder = experiment.folder('answers', 1)
    folder.mkdir(parents=True)
    (folder / 'done').touch()
    experiment.score('base', 1)
    exported, scored = commands
    assert exported[exported.index('--autoencoder') + 1] == experiment.common['autoencoder']
    assert scored[scored.index('--checkpoint') + 1] == exported[exported.index('--out') + 1]
