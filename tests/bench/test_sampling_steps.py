"""More sampling steps are measured on the same scenes, once, and put into a table."""

from __future__ import annotations

import json

import pytest

from bench.network_evaluations import with_evaluations
from bench.sampling_steps import main, relative_change, table


def entry(abs_rel: list[float | None]) -> dict:
    known = [value for value in abs_rel if value is not None]
    mean = sum(known) / len(known) if known else None
    bounds = None if mean is None else [mean - 0.01, mean + 0.01]
    depth = dict.fromkeys(('abs_rel', 'delta1', 'rmse'), mean)
    depth |= {f'{name}_95': bounds for name in ('abs_rel', 'delta1', 'rmse')}
    masks = {'miou': 0.6, 'miou_95': [0.5, 0.7], 'boundary_f1': 0.7, 'boundary_f1_95': [0.6, 0.8]}
    return {'depth': depth, 'segmentation': masks, 'seconds': 0.5, 'scene_abs_rel': abs_rel}


def record(**by_steps) -> dict:
    told = {'checkpoint': 'nano', 'scenes': 2, 'seed': 0, 'machine': 'a machine', 'date': '2026-01-01'}
    return {**told, 'by_sampler': {f'euler,steps={steps.strip("_")}': values for steps, values in by_steps.items()}}


def test_change_is_relative_and_paired():
    found = relative_change([0.1, 0.3, 0.2, 0.2], [0.11, 0.33, 0.22, 0.22])
    assert found['mean'] == pytest.approx(0.1)
    assert 0 < found['low'] <= found['mean'] <= found['high']
    assert relative_change([0.1, 0.3], [0.1, 0.3]) == {'mean': 0, 'low': 0, 'high': 0}


def test_table_has_a_row_for_every_number_of_steps():
    lines = table(record(_30=entry([0.1, 0.1]), _4=entry([0.11, 0.11]))).splitlines()
    assert lines[2].startswith('| euler | 4 | 0.110 ± 0.010 |') and '+10.0% (+10.0% to +10.0%)' in lines[2]
    assert lines[3].startswith('| euler | 30 |') and lines[3].endswith('| - | 0.500 |')
    assert 'nano, 2 scenes, seed 0; a machine; 2026-01-01' in lines[-1]


@pytest.mark.parametrize(
    ('few', 'answer'),
    [([0.101, 0.302], '**yes**: +0.8%'), ([0.11, 0.33], '**no**: +10.0%'), ([0.1, 0.33], '**not certain**: +7.5%')],
)
def test_table_answers_whether_four_steps_are_enough(few, answer):
    measured = record(_30=entry([0.1, 0.3]), _4=entry(few))
    line = next(line for line in table(measured).splitlines() if line.startswith('Are 4 steps'))
    assert line.startswith('Are 4 steps of euler no worse than 30 steps of euler by 2% in AbsRel? ' + answer)


def test_other_samplers_follow_and_are_compared_with_the_first():
    measured = record(_2=entry([0.12, 0.12]), _8=entry([0.1, 0.1]))
    measured['by_sampler']['adams,reuse=0.1,steps=4'] = entry([0.1, 0.1])
    lines = table(measured).splitlines()
    assert 'AbsRel against 8 steps of euler' in lines[0]
    assert lines[4].startswith('| adams,reuse=0.1 | 4 |') and '+0.0%' in lines[4]
    assert any(line.startswith('Are 4 steps of adams,reuse=0.1') and '**yes**' in line for line in lines)


def test_depth_without_metres_has_no_figures():
    line = table(record(_1=entry([None, None]), _2=entry([None, None]))).splitlines()[2]
    assert line.startswith('| euler | 1 | - | - | - | 0.600 ± 0.100 |')


def test_steps_are_measured_once(tmp_path, capsys):
    out = tmp_path / 'steps.json'
    arguments = ['--scenes', '2', '--out', str(out), '--device', 'cpu']
    main([*arguments, '--steps', '1', '2'])
    assert len(capsys.readouterr().out.splitlines()) == 6
    found = json.loads(out.read_text())
    first, second = (found['by_sampler'][f'euler,steps={steps}'] for steps in '12')
    assert len(first['scene_abs_rel']) == 2 and first['scene_abs_rel'] != second['scene_abs_rel']
    assert first['depth']['abs_rel'] == pytest.approx(sum(first['scene_abs_rel']) / 2, rel=1e-4)
    first['seconds'] = 123.0
    out.write_text(json.dumps(found))
    main([*arguments, '--steps', '1'])
    assert '| 123.000 |' in capsys.readouterr().out
    document = tmp_path / 'results.md'
    document.write_text('<!-- bench:sampling_steps -->\n<!-- /bench -->\n')
    main(['--out', str(out), '--table', str(document)])
    assert '| 123.000 |' in document.read_text()
    with pytest.raises(SystemExit):
        main([*arguments, '--seed', '1'])
    assert 'another seed' in capsys.readouterr().err


def test_samplers_are_given_as_many_steps_as_their_evaluations_allow():
    def count(name: str) -> float:
        sampler, _, steps = name.rpartition(',steps=')
        return {'euler': int(steps), 'heun': 2 * int(steps), 'euler,reuse=0.2': min(int(steps), 3)}[sampler]

    assert with_evaluations(['euler', 'heun', 'euler,reuse=0.2'], [1, 4], count) == {
        'euler,steps=1': 1, 'euler,steps=4': 4,
        'heun,steps=2': 4,
        'euler,reuse=0.2,steps=1': 1, 'euler,reuse=0.2,steps=16': 3,
    }  # fmt: skip


def test_samplers_are_compared_at_equal_evaluations(tmp_path, capsys):
    out, document = tmp_path / 'samplers.json', tmp_path / 'results.md'
    samplers = ['--samplers', 'euler', 'heun', 'adams,reuse=0.9']
    main([*samplers, '--evaluations', '2', '--scenes', '2', '--out', str(out), '--device', 'cpu'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('| sampler | steps | evaluations | abs_rel |') and 'against 2 steps of euler' in lines[0]
    assert lines[2].startswith('| euler | 2 | 2 |') and lines[3].startswith('| heun | 1 | 2 |')
    found = json.loads(out.read_text())['by_sampler']
    assert set(found) > {'euler,steps=2', 'heun,steps=1'} and all(entry['evaluations'] <= 2 for entry in found.values())
    document.write_text('<!-- bench:samplers -->\n<!-- /bench -->\n')
    main(['--out', str(out), '--table', str(document), '--mark', 'samplers'])
    assert '| heun | 1 | 2 |' in document.read_text()


def test_wrong_numbers_are_told(tmp_path, capsys):
    out = ['--out', str(tmp_path / 'none.json')]
    (tmp_path / 'document.md').write_text('')
    wrong = {
        ('--steps', '0'): 'expected steps from 1',
        ('--evaluations', '0'): 'expected steps from 1',
        ('--evaluations', '2', '--steps', '4'): 'not allowed with',
        ('--samplers', 'rk4'): "'rk4' is unknown",
        ('--scenes', '1'): 'scenes from 2',
        ('--table', str(tmp_path / 'document.md')): 'none.json is missing',
    }
    for further, message in wrong.items():
        with pytest.raises(SystemExit):
            main([*out, *further])
        assert message in capsys.readouterr().err
