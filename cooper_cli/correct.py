"""``cooper correct``: what the answer should have been, for recorded questions, here or at a running node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cooper_cli import options
from cooper_cli.client import NODE, Namespace, NodeName, open_client
from cooper_cli.output import note as tell
from cooper_cli.output import print_json, say, table

if TYPE_CHECKING:
    from cooper_ros.recording.corrections import Correction
    from cooper_ros.recording.desk import Desk


def correct(
    bag: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help='A bag, or the folder that was recorded into; none: tell a running node.'),
    ] = None,
    query_id: Annotated[str, typer.Option('--id', help='The question, as the list and every answer name it.')] = '',
    answer: Annotated[str, typer.Option(help='What the answer should have been.')] = '',
    note: Annotated[str, typer.Option(help='Anything else worth keeping.')] = '',
    useless: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option('--useless/--not-useless', help='Whether there is nothing to learn from it.', show_default=False),
    ] = None,
    object: Annotated[str, typer.Option(help='Name of the object that --mask shows.')] = '',
    mask: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help='Picture of the size of the frame, bright where the object is visible.'),
    ] = None,
    web: Annotated[bool, typer.Option('--web', help='Serve a page to look at questions and correct them.')] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help='Of the page; 0 = any that is free.')] = 8765,
    node: NodeName = NODE,
    namespace: Namespace = '',
    json: options.Json = False,
) -> None:
    """Correct recorded questions: one by its id, or all in the browser with --web; without either, list them."""
    from cooper_ros.recording.corrections import Correction

    wanted = None
    if query_id:
        picture = None if mask is None else _mask(mask)
        wanted = Correction(query_id, answer, note, useless, object, picture)
        wanted.check()
    elif answer or note or mask is not None or useless is not None:
        raise ValueError('a correction needs the question that it is about; give --id, as `cooper correct BAG` lists')
    if bag is None:
        _tell_node(wanted, node, namespace, json)
        return
    from cooper_ros.recording.desk import Desk

    desk = Desk(bag.absolute())
    for path, damage in desk.damages.items():
        tell(f'{path}: {damage}')
    if wanted is not None:
        new = desk.correct(wanted)
        _say_kept('' if new else 'nothing new: the same was said before', json)
    elif web:
        _serve(desk, port)
    else:
        _list(desk, json)


def _mask(path: Path):  # noqa: ANN202 - an array; numpy is imported late
    from cooper_ros.sources import read_image

    return read_image(path).max(axis=2) > 127


def _tell_node(wanted: Correction | None, node: str, namespace: str, json: bool) -> None:
    if wanted is None:
        raise ValueError('what to correct? give a bag, or --id and --answer to tell a running node')
    from cooper_ros.recording.control import send_correction

    with open_client(node, namespace) as client:
        _say_kept(send_correction(client, wanted, 15.0), json)


def _say_kept(warning: str, json: bool) -> None:
    if json:
        print_json({'kept': True, 'message': warning})
    else:
        say(warning or 'kept')


def _serve(desk: Desk, port: int) -> None:
    from cooper_ros.web.server import CorrectionServer

    with CorrectionServer(desk, port) as server:
        say(f'{server.url} shows {len(desk.entries())} questions; end with Ctrl-C')
        server.serve_forever()


def _list(desk: Desk, json: bool) -> None:
    entries = desk.entries()
    if json:
        from cooper_ros.web.server import describe

        print_json({'questions': [describe(entry) for entry in entries]})
        return
    rows = []
    for entry in entries:
        verdict = entry.verdict
        said = 'useless' if verdict.useless else verdict.answer or ('mask' if verdict.masks else '')
        rows.append((entry.question.query_id, entry.question.answer or '-', said or '-', entry.question.question))
    say(table(('id', 'answer', 'corrected', 'question'), rows) if rows else 'no questions are recorded here')
