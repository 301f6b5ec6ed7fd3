"""``cooper retrain``: from a robot's folder to a checkpoint that is better for this robot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from cooper_cli import options
from cooper_cli.output import note, print_json, say, table

if TYPE_CHECKING:
    from training.retrain import Outcome

NANO = Path('nano')
NOT_INSTALLED = 3
"""Exit status where all went well but the new checkpoint is no better."""


def retrain(
    folder: Annotated[Path, typer.Argument(metavar='DIR', help='Folder that cooper bag2data wrote.')],
    checkpoint: options.Checkpoint = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help='Folder for checkpoints, whose link `current` is the installed one; default DIR/retrained.'),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help='Steps to train; default those of training/configs.'),
    ] = None,
    lora: Annotated[bool, typer.Option('--lora', help='Train low-rank adapters only, for large checkpoints.')] = False,
    rehearsal: Annotated[int, typer.Option(min=0, help='Simulated scenes to train on beside, to lose nothing.')] = 400,
    measured: Annotated[int, typer.Option(min=2, help='Most frames of each kind to compare checkpoints on.')] = 60,
    processes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help='Processes to train and measure in; default one a core for nano on a CPU.'),
    ] = None,
    json: options.Json = False,
) -> None:
    """Train on a robot's frames and on old scenes, compare before and after, install what is better."""
    _find_training()
    from cooper_model.loading import default_checkpoint
    from training.retrain import Wishes
    from training.retrain import retrain as run

    start = default_checkpoint() if checkpoint in (None, NANO) else checkpoint
    wishes = Wishes(folder, start, out or folder / 'retrained', steps, lora, rehearsal, measured, processes, note)
    outcome = run(wishes)
    if json:
        print_json({'checkpoint': str(outcome.checkpoint), **outcome.card})
    else:
        _tell(outcome)
    if not outcome.installed:
        raise typer.Exit(NOT_INSTALLED)


def _find_training() -> None:
    """Make the package ``training`` importable, which lies beside this one in a checkout and is not installed.

    :raises RuntimeError: this is no checkout
    """
    root = Path(__file__).parents[1]
    if not (root / 'training' / '__init__.py').is_file():
        raise RuntimeError(
            f'training runs from the checkout and is not installed, so there is none in {root}; clone the repository, '
            'run `make setup` in it, and call its .venv/bin/cooper'
        )
    if str(root) not in sys.path:
        sys.path.append(str(root))


def _tell(outcome: Outcome) -> None:
    from training.retrain import CURRENT

    rows = figure_rows(outcome.card)
    say(table(('figure', 'frames', 'before', 'after', 'gain', '95 % interval'), rows))
    if outcome.installed:
        say(f'installed: {outcome.checkpoint}')
        say(f'use it: cooper node --checkpoint {outcome.checkpoint.parent / CURRENT}')
    else:
        say(f'not installed ({outcome.card["reason"]}); it is kept in {outcome.checkpoint}')


def figure_rows(card: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the figures of a checkpoint's card as rows of a table."""
    from training.retrain_scores import FIGURES

    rows = []
    for kind, where in (('robot', "robot's, held out"), ('old', 'simulated')):
        for name, gain in card[kind].items():
            interval = f'{gain["low"]:+.3f} to {gain["high"]:+.3f}'
            figures = (f'{gain["before"]:.3f}', f'{gain["after"]:.3f}', f'{gain["difference"]:+.3f}', interval)
            rows.append((FIGURES[name], where, *figures))
    return rows
