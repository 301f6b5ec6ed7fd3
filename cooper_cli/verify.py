"""``cooper verify``: replay a golden case and compare every number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cooper_cli import options
from cooper_cli.output import print_json, say, table

if TYPE_CHECKING:
    from cooper_model.verify import SectionResult


def verify(
    case: Annotated[Path, typer.Argument(metavar='CASE_DIR', help='Folder of a golden case.')],
    json: options.Json = False,
    device: Annotated[str, typer.Option('--device', help='Torch device, for example cpu or cuda:0.')] = 'cpu',
) -> None:
    """Compute everything that a golden case recorded and print the worst error of each section.

    Exits 1 where an error exceeds its tolerance.
    """
    from cooper_model.verify import verify as replay

    results = replay(case, device)
    passed = all(result.passed for result in results.values())
    if json:
        print_json({'passed': passed, 'sections': {name: _record(result) for name, result in results.items()}})
    else:
        _show(results)
    if not passed:
        raise typer.Exit(1)


def _record(result: SectionResult) -> dict[str, object]:
    return {
        'max_error': result.max_error,
        'tolerance': result.tolerance,
        'passed': result.passed,
        'worst': result.worst,
        'compared': result.compared,
        'failures': result.failures,
        'unchecked': result.unchecked,
    }


def _show(results: Mapping[str, SectionResult]) -> None:
    rows = [
        (
            name,
            result.compared,
            f'{result.max_error:.1e}',
            f'{result.tolerance:.1e}',
            'passed' if result.passed else 'FAILED',
            result.worst,
        )
        for name, result in results.items()
    ]
    say(table(('section', 'compared', 'max error', 'tolerance', 'outcome', 'worst'), rows))
    for name, result in results.items():
        for failure in result.failures:
            say(f'{name}: {failure}')
        if result.unchecked:
            say(f'{name}: not checked: {", ".join(result.unchecked)}')
