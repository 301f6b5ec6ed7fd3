"""A real run over the shipped checkpoint: asked, scored, stopped, gone on with, judged, compared."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from cooper_sim import Distribution, make_sample
from cooper_sim.questions import ask_questions
from cooper_sim.render import Renderer
from tests.training.test_benchmarks_judge import says, server  # noqa: F401 - a fixture
from training.evaluate import main

COLUMNS = ('index', 'question', 'image', 'A', 'B', 'answer', 'answer_value', 'answer_unit', 'category')


def encoded(image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, 'png')
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture(scope='module')
def benchmark(tmp_path_factory):
    """Return a file of four questions about simulated scenes, and one about an image that is none."""
    renderer, distribution = Renderer(128, 96), Distribution.load('eval')
    weights = {'metric_distance': 1.0, 'existence': 1.0, 'left_right': 1.0}
    lines, wanted = ['\t'.join(COLUMNS)], dict.fromkeys(weights, 1)
    for seed in range(100):
        sample = make_sample(seed, renderer, distribution)
        for question in ask_questions(sample, np.random.default_rng(seed), 3, weights):
            listed = question.form == 'choice' and len(question.choices) == 2
            if wanted[question.category] < 1 or (question.category == 'left_right' and not listed):
                continue
            wanted[question.category] -= 1
            row = {'question': question.text, 'image': encoded(sample.image), 'category': question.category}
            if question.form == 'number':
                row |= {'answer_value': str(question.value), 'answer_unit': 'meter'}
            elif question.form == 'yes_no':
                row |= {'answer': question.answer}
            else:
                letter = 'AB'[question.choices.index(question.answer)]
                row |= {'A': question.choices[0], 'B': question.choices[1], 'answer': letter}
            row['index'] = str(len(lines))
            lines.append('\t'.join(row.get(name, '') for name in COLUMNS))
        if not any(wanted.values()):
            break
    text = {'index': '8', 'question': 'What is this?', 'image': encoded(sample.image), 'answer': 'a room'}
    broken = {'index': '9', 'question': 'What is this?', 'image': 'A' * 100, 'answer': 'a room'}
    lines += ['\t'.join(row.get(name, '') for name in COLUMNS) for row in (text, broken)]
    path = tmp_path_factory.mktemp('benchmark') / 'rooms.tsv'
    path.write_text('\n'.join(lines) + '\n')
    return path


def run(benchmark, out, *further):
    main(['run', str(benchmark), '--out', str(out), '--mode', 'direct', '--device', 'cpu', '--json', *further])
    return [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]


def test_questions_are_asked_scored_and_gone_on_with(benchmark, tmp_path, capsys):
    out = tmp_path / 'out'
    first = run(benchmark, out, '--limit', '2')
    assert [record['index'] for record in first] == ['1', '2']
    assert json.loads(capsys.readouterr().out)['questions'] == 2
    lines = out / 'results.jsonl'
    lines.write_text(lines.read_text() + '{"index": "3", "answ')  # killed while it wrote
    records = run(benchmark, out)
    assert records[:2] == first  # with their seconds: they were not asked again
    assert [record['index'] for record in records] == ['1', '2', '3', '8']
    assert {record['scoring'] for record in records} == {'ratio', 'yes_no', 'choice', 'text'}
    for record in records:
        assert record['answer'] and record['said'] and record['seconds'] > 0
        assert record['right'] == (record['score'] >= 0.5)
        assert record['thoughts'] == [] and record['images'] == []
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / 'summary.json').read_text())
    assert summary['score'] == pytest.approx(np.mean([record['score'] for record in records]))
    (skipped,) = summary['skipped']
    assert (skipped['row'], skipped['index']) == (5, '9') and 'no image' in skipped['reason']
    assert run(benchmark, out, '--limit', '1') == records  # nothing is lost
    assert json.loads(capsys.readouterr().out)['questions'] == 1


def test_other_settings_need_another_folder(benchmark, tmp_path, capsys):
    run(benchmark, tmp_path, '--limit', '1')
    with pytest.raises(SystemExit) as left:
        run(benchmark, tmp_path, '--limit', '1', '--seed', '1')
    assert left.value.code == 2
    assert 'seed 0, now 1; choose another --out' in capsys.readouterr().err


def test_modes_are_compared(benchmark, tmp_path, capsys):
    for mode in ('direct', 'perception'):
        out = str(tmp_path / mode)
        main(['run', str(benchmark), '--out', out, '--mode', mode, '--device', 'cpu', '--limit', '2'])
    assert '| **all** |' in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / 'perception' / 'results.jsonl').read_text().splitlines()]
    assert all(record['images'] == ['depth', 'segmentation'] for record in records)
    main(['compare', str(tmp_path / 'direct'), str(tmp_path / 'perception' / 'results.jsonl')])
    found = json.loads(capsys.readouterr().out)
    assert found['n'] == 2 and -1 <= found['difference_95'][0] <= found['difference'] <= found['difference_95'][1] <= 1


def test_a_judge_decides_on_free_text_alone(benchmark, tmp_path, capsys, server):  # noqa: F811
    judged = ('--judge-url', server.url, '--judge-model', 'referee', '--judge-retries', '0')
    server.replies = [says('', 500)]
    *ruled, free = run(benchmark, tmp_path, *judged)
    assert free['score'] is None and free['right'] is None
    assert all(record['score'] is not None for record in ruled)
    assert json.loads(capsys.readouterr().out)['unscored'] == 1
    server.replies = [says('0.75')]
    *_, free = run(benchmark, tmp_path, *judged)
    assert (free['score'], free['right']) == (0.75, True)
    assert len(server.asked) == 2
    run(benchmark, tmp_path, *judged)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ('further', 'message'),
    [
        (('--judge-url', 'http://localhost:1/v1'), 'both --judge-url and --judge-model'),
        (('--limit', '0'), '--limit is 0'),
        (('--checkpoint', 'nowhere'), 'nowhere is not a folder'),
        (('--checkpoint', '.'), 'no COOPER checkpoint'),
    ],
)
def test_wrong_options_are_told(benchmark, tmp_path, capsys, further, message):
    with pytest.raises(SystemExit):
        run(benchmark, tmp_path, *further)
    assert message in capsys.readouterr().err


def test_a_file_of_which_nothing_can_be_asked_is_no_success(benchmark, tmp_path, capsys):
    head = benchmark.read_text().splitlines()[0]
    (tmp_path / 'empty.tsv').write_text(head + '\n')
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / 'empty.tsv', tmp_path / 'out')
    assert ended.value.code == 2 and 'empty.tsv could be asked' in capsys.readouterr().err


def test_a_missing_file_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path / 'none.tsv', tmp_path)
    assert 'none.tsv is not a file' in capsys.readouterr().err
