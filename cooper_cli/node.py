"""``cooper node``: the ROS 2 node."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from cooper_cli import options
from cooper_cli.output import note
from cooper_cli.session import node_parameters
from cooper_cli.viewing import VIEWER_MODULE, Viewer, ViewerName


@options.takes_model('threads')
def node(
    model: options.ModelChoice,
    namespace: Annotated[str, typer.Option(help='ROS namespace.')] = '',
    compressed: Annotated[bool, typer.Option('--compressed', help='Subscribe to image_raw/compressed.')] = False,
    cameras: Annotated[str, typer.Option(help='Names of several cameras, by commas; empty = one without a name.')] = '',
    rate: Annotated[float, typer.Option(min=0.0, help='Perceived frames a second; 0 = only on demand.')] = 2.0,
    seed: options.Seed = 0,
    viewer: Viewer = ViewerName.none,
    ros_args: Annotated[
        list[str] | None,
        typer.Argument(help='More ROS arguments after --, for example: -- -r image_raw:=/camera/image_raw'),
    ] = None,
) -> None:
    """Run the ROS 2 node until it is interrupted."""
    from cooper_ros.node import main
    from cooper_ros.processes import RosProcess, ros_arguments

    parameters = {
        **node_parameters(model),
        'image_transport': 'compressed' if compressed else 'raw',
        'cameras': cameras.split(','),
        'perception_rate': rate,
        'seed': seed,
    }
    arguments = [*ros_arguments(parameters, namespace), *(ros_args or [])]
    with ExitStack() as stack:
        if viewer is ViewerName.rerun:
            shown = {'cameras': parameters['cameras'], 'compressed': compressed}
            log = Path(stack.enter_context(TemporaryDirectory(prefix='cooper_viewer-')), 'viewer.log')
            process = RosProcess(VIEWER_MODULE, shown, log, namespace, remappings(ros_args or []))
            stack.enter_context(process)
            note(f'viewer {process.pid} started, its log: {log}')
        main(arguments)


def remappings(arguments: Sequence[str]) -> list[str]:
    """Return the remappings of topics among ROS arguments; those of names (``__node``) belong to the node alone."""
    pairs = zip(arguments, arguments[1:], strict=False)
    return [rule for flag, rule in pairs if flag in ('-r', '--remap') and not rule.startswith('__')]
