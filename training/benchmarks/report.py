"""From scored results to a summary, and from two results to what they differ by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from training.benchmarks.items import Skipped
from training.benchmarks.results import Record
from training.benchmarks.statistics import difference, interval

ROTATION = 1_000_000  # MMBench gives rotations of a question's options its index plus multiples of this


def summarise(records: Sequence[Record], skipped: Sequence[Skipped] = ()) -> dict[str, Any]:
    """Return the figures of a set of results; ``NAME_95`` is the 95 % interval of ``NAME``.

    Answers that no judge has scored are counted under ``unscored`` and left out of every score.
    """
    scored = [record for record in records if record['score'] is not None]
    names = sorted({name for record in scored for name in record['figures']})
    summary: dict[str, Any] = {
        'questions': len(records),
        'skipped': [asdict(row) for row in skipped],
        'unscored': len(records) - len(scored),
        'unread': sum(record['read'] is None for record in scored),
        **_figure('score', scored, [record['score'] for record in scored]),
    }
    for name in names:
        having = [record for record in scored if name in record['figures']]
        summary |= _figure(name, having, [record['figures'][name] for record in having])
    summary |= _circular(scored)
    summary['by_category'] = _by(scored, [record['category'] for record in scored])
    summary['by_scoring'] = _by(scored, [record['scoring'] for record in scored])
    groups = sorted({name for record in scored for name in record['groups']})
    summary['by_group'] = {name: _by(scored, [record['groups'].get(name, '') for record in scored]) for name in groups}
    summary['perceive_rate'] = _mean(bool(record['images']) for record in records)
    summary['forced_rate'] = _mean(record['forced'] for record in records)
    summary['seconds'] = _mean(record['seconds'] for record in records)
    return summary


def _figure(name: str, records: Sequence[Record], scores: Sequence[float]) -> dict[str, Any]:
    found = interval(scores, [record['cluster'] for record in records])
    if found is None:
        return {name: None, f'{name}_95': None}
    return {name: found.mean, f'{name}_95': [found.low, found.high]}


def _by(records: Sequence[Record], labels: Sequence[str]) -> dict[str, Any]:
    found = {}
    for label in sorted(set(labels)):
        own = [record for record, given in zip(records, labels, strict=True) if given == label]
        looked = _mean(bool(record['images']) for record in own)
        scores = [record['score'] for record in own]
        found[label] = {**_figure('score', own, scores), 'n': len(own), 'perceive_rate': looked}
    return found


def _circular(records: Sequence[Record]) -> dict[str, Any]:
    """Return the share of questions right in all rotations of their options, where a file has rotations."""
    numbers = [int(record['index']) if record['index'].isdigit() else -1 for record in records]
    if max(numbers, default=0) < ROTATION:
        return {}
    worst: dict[int, Record] = {}
    for number, record in zip(numbers, records, strict=True):
        known = worst.setdefault(number % ROTATION, record)
        worst[number % ROTATION] = min(known, record, key=lambda one: one['score'])
    found = list(worst.values())
    return {**_figure('circular', found, [record['score'] for record in found]), 'circular_n': len(found)}


def _mean(values: Iterable[float]) -> float | None:
    listed = [float(value) for value in values]
    return float(np.mean(listed)) if listed else None


def compare(first: Sequence[Record], second: Sequence[Record]) -> dict[str, Any]:
    """Return what the second set of results scores above the first, over the questions that both have scored.

    :raises ValueError: they share no question, or one index stands for different questions
    """
    other = {record['index']: record for record in second if record['score'] is not None}
    pairs = [(one, other[one['index']]) for one in first if one['score'] is not None and one['index'] in other]
    for one, two in pairs:
        if (one['question'], one['truth']) != (two['question'], two['truth']):
            raise ValueError(f'index {one["index"]!r} is another question in each; compare results of one benchmark')
    if not pairs:
        raise ValueError('the results have no scored question in common')
    categories = sorted({one['category'] for one, _ in pairs})
    return {
        **_difference(pairs),
        'only_first': len(first) - len(pairs),
        'only_second': len(second) - len(pairs),
        'by_category': {name: _difference([p for p in pairs if p[0]['category'] == name]) for name in categories},
    }


def _difference(pairs: Sequence[tuple[Record, Record]]) -> dict[str, Any]:
    scores = [[pair[side]['score'] for pair in pairs] for side in (0, 1)]
    found = difference(*scores, [one['cluster'] for one, _ in pairs])
    return {
        'first': float(np.mean(scores[0])),
        'second': float(np.mean(scores[1])),
        'difference': found.mean,
        'difference_95': [found.low, found.high],
        'better': found.better,
        'worse': found.worse,
        'mcnemar_p': found.p,
        'n': found.n,
    }


def as_text(summary: dict[str, Any]) -> str:
    """Return a summary as a Markdown table for people."""
    rows = ['| | score | 95 % interval | n |', '|---|---|---|---|']
    scored = summary['questions'] - summary['unscored']
    rows.append(_row('**all**', summary['score'], summary['score_95'], scored))
    further = [name.removesuffix('_95') for name in summary if name.endswith('_95') and name != 'score_95']
    rows += [_row(name, summary[name], summary[f'{name}_95'], summary.get(f'{name}_n', scored)) for name in further]
    for name, entry in summary['by_category'].items():
        rows.append(_row(name or '(none)', entry['score'], entry['score_95'], entry['n']))
    notes = [f'{len(summary["skipped"])} rows skipped', f'{summary["unread"]} answers not understood']
    if summary['unscored']:
        notes.append(f'{summary["unscored"]} answers left out without a verdict; start again to ask the judge again')
    return '\n'.join([*rows, '', '; '.join(notes)])


def _row(name: str, value: float | None, bounds: Sequence[float] | None, count: int) -> str:
    if value is None or bounds is None:
        return f'| {name} | - | - | {count} |'
    return f'| {name} | {value:.3f} | {bounds[0]:.3f} to {bounds[1]:.3f} | {count} |'
