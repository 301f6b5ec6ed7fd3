"""Ask a checkpoint the questions of a benchmark file and score the answers; compare two sets of results.

    python -m training.evaluate run MMVP.tsv --mode auto --out runs/mmvp_auto
    python -m training.evaluate run MMVP.tsv --mode direct --out runs/mmvp_direct
    python -m training.evaluate compare runs/mmvp_direct runs/mmvp_auto

A run that is stopped goes on when it is started again. docs/evaluation.md says what the figures are.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cooper_model.backends.graphs import fingerprint_checkpoint
from cooper_model.loading import BACKENDS, default_checkpoint, load
from cooper_model.prompts import Prompts
from cooper_model.types import MODES
from training.benchmarks.asking import Asker, judged, scored, unscored
from training.benchmarks.items import Item, Skipped
from training.benchmarks.judge import Judge, JudgeConfig, JudgeError, JudgeRefused
from training.benchmarks.report import as_text, compare, summarise
from training.benchmarks.results import VERDICTS, Record, Results, read_lines
from training.benchmarks.scorings import SCORINGS
from training.benchmarks.tsv import read_benchmark

log = logging.getLogger(__name__)
PATIENCE = 3  # questions in a row that a judge may fail on


@dataclass(frozen=True)
class Plan:
    """What is asked, of what and how; the fields are those of the command line."""

    benchmark: Path
    out: Path
    images: Path | None
    scoring: str | None
    join_images: bool
    mode: str
    checkpoint: Path
    backend: str
    graphs: Path | None
    device: str | None
    seed: int
    limit: int | None
    judge: JudgeConfig | None


def run(plan: Plan) -> dict[str, Any]:
    """Ask, score and summarise; everything is kept in ``plan.out``.

    :returns: the summary
    :raises FileNotFoundError, ValueError: benchmark or checkpoint cannot be used, or ``out`` holds other results
    """
    benchmark = read_benchmark(plan.benchmark, plan.scoring)
    items = benchmark.items[: plan.limit]
    settings = {
        'benchmark': benchmark.digest,
        'scoring': plan.scoring,
        'join_images': plan.join_images,
        'mode': plan.mode,
        'checkpoint': fingerprint_checkpoint(plan.checkpoint),
        'prompts': asdict(Prompts.load(plan.checkpoint)),
        'backend': plan.backend,
        'device': plan.device,
        'seed': plan.seed,
    }
    results = Results(plan.out, settings)
    try:
        refused = _ask_all(plan, items, results)
    finally:
        results.close()
    records = _score_all([item for item in items if item.index in results.records], results.records, plan)
    known = results.records | {record['index']: record for record in records}  # answers beyond a limit are kept
    results.write(sorted(known.values(), key=lambda record: record['row']))
    skipped = sorted([*benchmark.skipped, *refused], key=lambda row: row.row)
    for row in skipped:
        log.warning('row %d (index %s) skipped: %s', row.row, row.index, row.reason)
    summary = {
        'benchmark': benchmark.name,
        'mode': plan.mode,
        'checkpoint': str(plan.checkpoint),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'judge': plan.judge.model if plan.judge else None,
        **summarise(records, skipped),
    }
    results.save_summary(summary)
    return summary


def _ask_all(plan: Plan, items: Sequence[Item], results: Results) -> list[Skipped]:
    """Ask what has no answer yet; returns the questions that cannot be asked."""
    waiting = [item for item in items if item.index not in results.records]
    if not waiting:
        return []
    folder = plan.benchmark.resolve().parent
    folders = [plan.images] if plan.images else [folder, folder / 'images']
    reasoner = load(plan.checkpoint, plan.backend, plan.device, graphs=plan.graphs)
    asker = Asker(reasoner, plan.mode, plan.seed, folders, plan.join_images)
    refused = []
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task('questions', total=len(items), completed=len(items) - len(waiting))
        for item in waiting:
            try:
                results.append(scored(asker.ask(item), item))
            except ValueError as error:
                refused.append(Skipped(item.row, item.index, str(error)))
            bar.advance(task)
    return refused


def _score_all(items: Sequence[Item], records: dict[str, Record], plan: Plan) -> list[Record]:
    """Return all results scored anew: by the rules as they are now, and by the judge where there is one."""
    judge = Judge(plan.judge, plan.out / VERDICTS) if plan.judge else None
    found, failures = [], 0
    for item in items:
        record = records[item.index]
        if judge is None or not SCORINGS[item.scoring].judged:
            found.append(scored(record, item))
            continue
        try:
            found.append(judged(record, judge.score(item.question, item.truth.answer, record['said'])))
            failures = 0
        except JudgeError as error:
            found.append({**record, **unscored()})
            if judge.silent:
                continue
            log.warning('index %s has no verdict: %s', item.index, error)
            failures += 1
            judge.silent = failures == PATIENCE or isinstance(error, JudgeRefused)
            if judge.silent:
                log.warning('the judge is not asked any more; start again to ask it for what is missing')
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    asked = commands.add_parser('run', help='ask and score')
    asked.add_argument('benchmark', type=Path, metavar='FILE.tsv')
    asked.add_argument('--out', type=Path, help='folder of the results; default runs/eval/FILE-MODE')
    asked.add_argument('--images', type=Path, help='folder of image files; default beside the benchmark')
    asked.add_argument('--scoring', choices=SCORINGS, help='of every row; default what each row asks for')
    asked.add_argument('--join-images', action='store_true', help='show several images side by side')
    asked.add_argument('--mode', choices=MODES, default='auto')
    asked.add_argument('--checkpoint', type=Path, default=default_checkpoint(), metavar='DIR')
    asked.add_argument('--backend', choices=('auto', *BACKENDS), default='auto')
    asked.add_argument('--graphs', type=Path, help='folder of exported graphs, for a backend that runs them')
    asked.add_argument('--device', help='torch device; default the best that is there')
    asked.add_argument('--threads', type=int, help='of torch on a CPU')
    asked.add_argument('--seed', type=int, default=0, help='of the noise that maps start from')
    asked.add_argument('--limit', type=int, help='ask only the first questions')
    asked.add_argument('--judge-url', help='base address of a judge for free text, such as http://localhost:8000/v1')
    asked.add_argument('--judge-model', help='its name there')
    asked.add_argument('--judge-key-variable', default='OPENAI_API_KEY', help='environment variable with the key')
    asked.add_argument('--judge-timeout', type=float, default=60.0, help='[s]')
    asked.add_argument('--judge-retries', type=int, default=3)
    asked.add_argument('--json', action='store_true', help='print the summary as JSON')
    compared = commands.add_parser('compare', help='what the second results score above the first')
    compared.add_argument('first', type=Path)
    compared.add_argument('second', type=Path)
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    if bool(given.judge_url) != bool(given.judge_model):
        raise ValueError('a judge needs both --judge-url and --judge-model')
    judge = None
    if given.judge_url:
        retries = given.judge_retries
        judge = JudgeConfig(given.judge_url, given.judge_model, given.judge_key_variable, given.judge_timeout, retries)
    if given.limit is not None and given.limit < 1:
        raise ValueError(f'--limit is {given.limit}, expected 1 or more')
    out = given.out or Path('runs/eval') / f'{given.benchmark.stem}-{given.mode}'
    taken = {name: value for name, value in vars(given).items() if name in Plan.__dataclass_fields__}
    return Plan(**{**taken, 'out': out, 'judge': judge})


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        if given.command == 'compare':
            found = compare(read_lines(given.first), read_lines(given.second))
            sys.stdout.write(json.dumps(found, indent=1) + '\n')
            return
        if given.threads:
            torch.set_num_threads(given.threads)
        summary = run(_plan(given))
    except (OSError, ValueError) as error:
        parser.exit(2, f'{error}\n')
    sys.stdout.write((json.dumps(summary) if given.json else as_text(summary)) + '\n')
    if summary['questions'] == 0:
        parser.exit(2, f'no row of {given.benchmark} could be asked\n')


if __name__ == '__main__':
    main()
