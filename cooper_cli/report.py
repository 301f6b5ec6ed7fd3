"""From measured scenes to the figures of ``cooper eval``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cooper_cli.evaluation import GivenAnswer, SceneResult
from cooper_cli.output import table
from cooper_sim.grading import chance, most_frequent
from cooper_sim.scoring import rate

DEPTH_FIGURES = ('delta1', 'abs_rel', 'rmse', 'delta1_scaled')
CATEGORY_FIGURES = ('accuracy', 'most_frequent', 'chance', 'perceive_rate')


def summarise(results: Sequence[SceneResult], modes: Sequence[str]) -> dict[str, Any]:
    """Return rates as fractions; ``NAME_95`` is the 95 % interval of ``NAME``. Unknown figures are None."""
    by_mode = {mode: _answers(results, mode) for mode in modes}
    first = by_mode[modes[0]]
    answers = {name: first[name] for name in first if name != 'perceive_rate'}
    return {
        'scenes': len(results),
        'questions': sum(len(result.questions) for result in results),
        'depth': depth_figures(results),
        'segmentation': segmentation_figures(results),
        'answers': {'mode': modes[0], **answers},
        'by_mode': by_mode,
        'perceive_rate': first['perceive_rate'],
        'perceive_seconds': float(np.mean([result.perceive_seconds for result in results])),
    }


def _figure(name: str, sums: Sequence[float], counts: Sequence[float]) -> dict[str, Any]:
    found = rate(sums, counts)
    if found is None:
        return {name: None, f'{name}_95': None}
    return {name: found.mean, f'{name}_95': [found.low, found.high]}


def depth_figures(results: Sequence[SceneResult]) -> dict[str, Any]:
    """Return the errors of depth with their intervals; None where depth is not metric."""
    scores = [result.depth for result in results if result.depth is not None]
    figures: dict[str, Any] = {}
    for name in DEPTH_FIGURES:
        figures |= _figure(name, [getattr(score, name) for score in scores], [1.0] * len(scores))
    return figures


def segmentation_figures(results: Sequence[SceneResult]) -> dict[str, Any]:
    """Return the scores of masks with their intervals."""
    counts = [len(result.ious) for result in results]
    return {
        **_figure('miou', [sum(result.ious) for result in results], counts),
        **_figure('boundary_f1', [result.boundary_f1 for result in results], [1.0] * len(results)),
        **_figure('above_half', [sum(iou > 0.5 for iou in result.ious) for result in results], counts),
        'objects': sum(counts),
    }


def _answers(results: Sequence[SceneResult], mode: str) -> dict[str, Any]:
    """Return accuracy beside that of each category's most frequent answer, overall and by category."""
    scenes = [index for index, result in enumerate(results) for _ in result.questions]
    categories = [category for result in results for category, _ in result.questions]
    truths = [truth for result in results for _, truth in result.questions]
    given = [answer for result in results for answer in result.answers[mode]]
    right = np.array([answer.right for answer in given], bool)
    constant = np.zeros(len(given), bool)
    perceived = np.array([answer.images > 0 for answer in given], float)
    per_scene = _per_scene(scenes, len(results))
    by_category: dict[str, Any] = {}
    for category in sorted(set(categories)):
        chosen = [index for index, name in enumerate(categories) if name == category]
        constant[chosen] = most_frequent([truths[index] for index in chosen])
        guesses = [chance(truths[index]) for index in chosen]
        own = np.isin(np.arange(len(given)), chosen)
        by_category[category] = {
            **_figure('accuracy', per_scene(right & own), per_scene(own)),
            'most_frequent': float(constant[chosen].mean()),
            'chance': None if None in guesses else float(np.mean(guesses)),
            'perceive_rate': float(perceived[chosen].mean()),
            'n': len(chosen),
        }
    counts = per_scene(np.ones(len(given)))
    return {
        **_figure('overall', per_scene(right), counts),
        **_figure('most_frequent', per_scene(constant), counts),
        **_figure('above_most_frequent', per_scene(right.astype(float) - constant), counts),
        'by_category': by_category,
        'perceive_rate': float(perceived.mean()) if given else None,
        'forced_rate': float(np.mean([answer.forced for answer in given])) if given else None,
        'seconds': _mean_seconds(given),
    }


def answer_lines(results: Sequence[SceneResult], seeds: Sequence[int], mode: str) -> list[dict[str, Any]]:
    """Return every answer as ``python -m training.evaluate compare`` reads them, to pair two models by question.

    :param seeds: of the scenes, in the order of ``results``
    """
    return [
        {
            'index': f'{seed}/{number}',
            'cluster': str(seed),
            'category': category,
            'question': f'question {number} of scene {seed}',
            'truth': truth.answer,
            'answer': answer.text,
            'score': float(answer.right),
            'right': answer.right,
            'images': answer.images,
            'seconds': answer.seconds,
        }
        for result, seed in zip(results, seeds, strict=True)
        for number, ((category, truth), answer) in enumerate(
            zip(result.questions, result.answers[mode], strict=True)
        )
    ]


def _per_scene(scenes: Sequence[int], count: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.bincount(scenes, weights=values, minlength=count)


def _mean_seconds(given: Sequence[GivenAnswer]) -> float | None:
    return float(np.mean([answer.seconds for answer in given])) if given else None


def as_text(record: dict[str, Any]) -> str:
    """Return the figures as tables for people."""
    rows = [
        (name, _share(record[part][name]), _interval(record[part][f'{name}_95']))
        for part, names in (('depth', DEPTH_FIGURES), ('segmentation', ('miou', 'boundary_f1')))
        for name in names
    ]
    blocks = [table(('maps', 'mean', '95 % interval'), rows)]
    for mode, answers in record['by_mode'].items():
        overall = (answers[name] for name in ('overall', 'most_frequent'))
        lines = [('all', *map(_share, overall), '', _share(answers['perceive_rate']), record['questions'])]
        for name, entry in answers['by_category'].items():
            lines.append((name, *(_share(entry[key]) for key in CATEGORY_FIGURES), entry['n']))
        blocks.append(
            table((f'answers, mode {mode}', 'right', 'most frequent', 'chance', 'perceives', 'questions'), lines)
        )
        blocks.append(
            f'above most frequent {_share(answers["above_most_frequent"])} '
            f'({_interval(answers["above_most_frequent_95"])}), {answers["seconds"] or 0:.2f} s an answer'
        )
    return '\n\n'.join(blocks)


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _interval(bounds: Sequence[float] | None) -> str:
    return '-' if bounds is None else f'{bounds[0]:.3f} to {bounds[1]:.3f}'
