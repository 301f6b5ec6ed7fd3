"""``cooper demo``: the whole system at work, with a camera that is there on every machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cooper_cli import options
from cooper_cli.output import note, print_json, say
from cooper_cli.viewing import Viewer, ViewerName

if TYPE_CHECKING:
    from rich.table import Table

    from cooper_cli.demo_report import Report

SHOWN_PROBLEMS = 8
WIDTH = 130  # where there is no terminal to ask


@options.takes_model('threads')
def demo(
    model: options.ModelChoice,
    camera: Annotated[str, typer.Option(help='sim, or a bag, video, image or folder of images.')] = 'sim',
    world: options.World = 'eval',
    seconds: Annotated[float, typer.Option(min=1.0, max=120.0, help='How long to ask questions.')] = 15.0,
    out: Annotated[Path, typer.Option(help='Folder for pictures, logs and summary.json.')] = Path('out/demo'),
    viewer: Viewer = ViewerName.none,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Start node and camera as processes, ask questions over ROS, check and save what comes back."""
    from cooper_cli.demo_pictures import save_all
    from cooper_cli.demo_run import Demo, DemoSettings
    from cooper_cli.pictures import make_folder
    from cooper_cli.session import node_parameters

    make_folder(out)
    # A terminated demo ends its processes as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A recording of an earlier run would pass for one of this run.
    recording = out / 'demo.rrd'
    recording.unlink(missing_ok=True)
    shown = str(recording) if viewer is ViewerName.rerun else ''
    settings = DemoSettings(camera, seconds, out, node_parameters(model), seed, world, shown)
    report = Demo(settings, note if json else say).run()
    save_all(report, out)
    if recording.is_file():
        report.files.append(str(recording))
    if json:
        print_json(report.record())
    else:
        _show(report, out)
    if report.problems:
        raise typer.Exit(1)


def _show(report: Report, out: Path) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(_questions(report))
    console.print(_figures(report))
    console.print(f'{len(report.files)} files in {out}/, first of all:')
    for path in report.files:
        if Path(path).name in ('frame0.png', 'question0.png', 'thoughts.txt', 'summary.json', 'demo.rrd'):
            console.print(f'  {path}', highlight=False)
    if report.judged:
        console.print(report.agreement_line(), highlight=False)
        console.print('(information, not what passes or fails here; see: cooper eval)', highlight=False)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        console.print(f'PROBLEM: {problem}', style='red', markup=False, highlight=False)
    if len(report.problems) > SHOWN_PROBLEMS:
        console.print(f'... and {len(report.problems) - SHOWN_PROBLEMS} more problems, see summary.json')
    console.print('demo failed' if report.problems else 'demo passed', style='red' if report.problems else 'green')


def _questions(report: Report) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f'Questions over ROS, camera {report.camera}')
    for column in ('mode', 'via', 'question', 'answer', 'truth', 'seconds', 'images'):
        table.add_column(column)
    for asked in report.asked:
        truth = asked.truth['answer'] if asked.truth else ''
        cells = (asked.question.mode, asked.via, asked.question.text, asked.said, truth, f'{asked.seconds:.2f}')
        table.add_row(*(escape(cell) for cell in cells), ', '.join(asked.images))
    return table


def _figures(report: Report) -> Table:
    from rich.table import Table

    table = Table(title='What went through', show_header=False)
    recorded = f', the {report.recorded} of the bag and its last one again' if report.recorded else ''
    rows: dict[str, Any] = {
        'images published by the camera': f'{report.published}{recorded}',
        '  received by the node': report.received,
        '  used / dropped for newer ones': f'{report.used} / {report.dropped}',
        '  lost in transport': report.lost,
        '  could not be decoded': report.undecodable,
        'frames perceived': report.perceived,
        'published messages': sum(report.outputs.values()),
        '  headers equal to an input image': f'{report.perceived_headers - len(report.foreign_headers)} of '
        f'{report.perceived_headers}',
        'objects / relations by service': f'{report.objects} / {report.relations}',
        'node active after': f'{report.start_seconds:.1f} s',
        'whole run': f'{report.seconds:.1f} s',
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
