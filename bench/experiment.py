"""Train and score every variant of the paper's comparison, and write the table.

    python -m bench.experiment [--config bench/experiment.yaml] [--seeds 1 2 3] [--only NAME ...]
    python -m bench.experiment --table docs/results.md

What is finished is not done again: stages resume where they last saved, scores are kept beside their weights.
Nothing else heavy should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.tables import fill_file
from training.benchmarks.report import compare
from training.benchmarks.statistics import interval

CONFIG = Path(__file__).with_name('experiment.yaml')
EXTENT = ('metric_distance', 'metric_separation', 'size')
"""Categories of distance and size, in which the paper compares the generation-only variant."""


@dataclass(frozen=True)
class Experiment:
    """The file that says what is compared; see its comments."""

    out: Path
    scenes: int
    eval_seed: int
    processes: int
    common: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, str]]

    @classmethod
    def load(cls, path: Path) -> Experiment:
        """Read the file.

        :raises ValueError: a variant or a stage names a stage that is not there
        """
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        found = cls(**{**values, 'out': Path(values['out'])})
        named = [variant['stage'] for variant in found.variants.values()]
        named += [stage['start'] for stage in found.stages.values() if 'start' in stage]
        for name in named:
            if name not in found.stages:
                raise ValueError(f'{path}: no stage {name!r} among {", ".join(found.stages)}')
        return found

    def settings(self, stage: str, seed: int) -> dict[str, Any]:
        """Return the settings of one stage with one seed."""
        own = {name: value for name, value in self.stages[stage].items() if name not in ('program', 'start', 'config')}
        under = self.common
        if 'config' in self.stages[stage]:
            under = yaml.safe_load(Path(self.stages[stage]['config']).read_text(encoding='utf-8'))
        merged = _merge(under, own)
        merged['out'] = str(self.folder(stage, seed))
        if 'start' in self.stages[stage]:
            merged['start'] = str(self.folder(self.stages[stage]['start'], seed))
        return _merge(merged, {'loop': {'seed': seed}})

    def folder(self, stage: str, seed: int) -> Path:
        return self.out / f'seed{seed}' / stage

    def train(self, stage: str, seed: int) -> None:
        """Train a stage and those that it starts from, as far as they are not finished."""
        if (self.folder(stage, seed) / 'done').is_file():
            return
        if 'start' in self.stages[stage]:
            self.train(self.stages[stage]['start'], seed)
        folder = self.folder(stage, seed)
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / 'config.yaml'
        config.write_text(yaml.safe_dump(self.settings(stage, seed), sort_keys=False), encoding='utf-8')
        launch = ['torch.distributed.run', '--nproc-per-node', str(self.processes)] if self.processes > 1 else []
        program = self.stages[stage]['program']
        _run([*(['-m', *launch] if launch else []), '-m', program, '--config', str(config)])
        (folder / 'done').touch()

    def score(self, variant: str, seed: int) -> None:
        """Score a variant on held-out scenes, training what it needs."""
        stage, mode = self.variants[variant]['stage'], self.variants[variant]['mode']
        folder = self.folder(stage, seed)
        scores = folder / f'{mode}.json'
        if scores.is_file():
            return
        self.train(stage, seed)
        checkpoint = folder / 'checkpoint'
        exported = ['--run', str(folder), '--autoencoder', self.common['autoencoder'], '--out', str(checkpoint)]
        _run(['-m', 'training.export', *exported])
        wanted = ['--scenes', str(self.scenes), '--seed', str(self.eval_seed), '--modes', mode, '--json']
        wanted += ['--answers', str(folder / f'{mode}.jsonl')]
        found = _run(['-m', 'cooper_cli.main', 'eval', '--checkpoint', str(checkpoint), *wanted])
        scores.write_text(found, encoding='utf-8')

    def scores(self, variant: str) -> dict[str, dict[str, Any]]:
        """Return the scores of a variant by seed, of every seed that there is."""
        return {path.parts[-3]: json.loads(path.read_text(encoding='utf-8')) for path in self._results(variant)}

    def answers(self, variant: str) -> list[dict[str, Any]]:
        """Return every graded answer of a variant; questions of different seeds count as different."""
        found = []
        for path in self._results(variant):
            for line in path.with_suffix('.jsonl').read_text(encoding='utf-8').splitlines():
                record = json.loads(line)
                seed = path.parts[-3]
                found.append(
                    {**record, 'index': f'{seed}/{record["index"]}', 'cluster': f'{seed}/{record["cluster"]}'}
                )
        return found

    def _results(self, variant: str) -> list[Path]:
        stage, mode = self.variants[variant]['stage'], self.variants[variant]['mode']
        return sorted(self.out.glob(f'seed*/{stage}/{mode}.json'))


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(under.get(name), Mapping)
        merged[name] = _merge(under[name], value) if both else value
    return merged


def _run(arguments: list[str]) -> str:
    environment = {**os.environ, 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1')}
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return done.stdout


def table(experiment: Experiment) -> str:
    """Return accuracy and rate of perceiving of every variant that has been scored, mean over seeds, then by category.

    :raises ValueError: nothing is scored, or the first variant is not
    """
    first = next(iter(experiment.variants))
    scored = [name for name in experiment.variants if experiment.scores(name)]
    if first not in scored:
        raise ValueError(f'{first} is not scored in {experiment.out}; run bench.experiment first')
    base = experiment.answers(first)
    rows = [['variant', 'seeds', 'answers', f'above {first}', f'distance and size above {first}', 'perceives']]
    for name in scored:
        scores, answers = list(experiment.scores(name).values()), experiment.answers(name)
        overall = interval([record['score'] for record in answers], [record['cluster'] for record in answers])
        extent = [record for record in answers if record['category'] in EXTENT]
        row = [name, str(len(scores)), f'{overall.mean:.3f} ({overall.low:.3f} to {overall.high:.3f})']
        row += ['-', '-'] if name == first else [_gain(base, answers), _gain(base, extent)]
        rows.append([*row, f'{np.mean([score["perceive_rate"] for score in scores]):.2f}'])
    categories = [['category', *scored]]
    for category in sorted({record['category'] for record in base}):
        cells = [_cell(list(experiment.scores(name).values()), category) for name in scored]
        categories.append([category, *cells])
    newest = experiment.scores(scored[-1]).popitem()[1]
    below = f'`python -m bench.experiment`; {newest["questions"]} questions; {newest["machine"]}; {newest["date"]}'
    told = 'Right answers by category, and in brackets the share of questions for which a map was looked at:'
    return '\n'.join([*_rows(rows), '', told, '', *_rows(categories), '', below])


def _rows(cells: list[list[str]]) -> list[str]:
    head, *rest = cells
    return [f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rest)]


def _gain(base: list[dict[str, Any]], answers: list[dict[str, Any]]) -> str:
    """Return a difference over the questions that both have answered, with its 95 % interval."""
    found = compare(base, answers)
    low, high = found['difference_95']
    return f'{found["difference"]:+.3f} ({low:+.3f} to {high:+.3f})'


def _cell(scores: list[dict[str, Any]], category: str) -> str:
    entries = [score['answers']['by_category'][category] for score in scores]
    accuracy, looked = (np.mean([entry[name] for entry in entries]) for name in ('accuracy', 'perceive_rate'))
    return f'{accuracy:.2f} ({looked:.2f})'


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', type=Path, default=CONFIG)
    parser.add_argument('--seeds', type=int, nargs='+', default=[1])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='variants; all without it')
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what is scored there, train nothing')
    given = parser.parse_args()
    try:
        experiment = Experiment.load(given.config)
        unknown = set(given.only or ()) - set(experiment.variants)
        if unknown:
            raise ValueError(f'no variant {min(unknown)!r}; choose from {", ".join(experiment.variants)}')
        if given.table:
            fill_file(given.table, {'experiment': table(experiment)})
            return
    except ValueError as error:
        parser.error(str(error))
    for seed in given.seeds:
        for variant in given.only or experiment.variants:
            experiment.score(variant, seed)


if __name__ == '__main__':
    main()
