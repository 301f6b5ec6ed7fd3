"""Options that several commands share, each with one name, one meaning and one help line."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from cooper_model.types import MODES

Checkpoint = Annotated[
    Optional[Path],  # noqa: UP045 - evaluated on Python 3.10 by older typer
    typer.Option(
        '--checkpoint', metavar='DIR', envvar='COOPER_CHECKPOINT',
        help='Folder of a checkpoint; default the shipped nano.',
    ),
]
Seed = Annotated[int, typer.Option('--seed', min=0, help='Seed of noise and scenes; same seed, same result.')]
Json = Annotated[bool, typer.Option('--json', help='Print one JSON object on standard output, nothing else.')]
Device = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option('--device', help='For example cpu or cuda:0, for onnx also tensorrt:0; default what is there.'),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option('--threads', min=1, help='Threads of a CPU back end; default what its library chooses.'),
]


class BackendName(str, Enum):
    """What computes the model."""

    auto = 'auto'
    torch = 'torch'
    onnx = 'onnx'
    tensorrt = 'tensorrt'
    remote = 'remote'


Backend = Annotated[BackendName, typer.Option('--backend', help='What computes the model.')]
Server = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option('--server', metavar='URL', help='Of the remote back end, for example http://192.168.1.20:8000.'),
]
Graphs = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option('--graphs', metavar='DIR', help='Exported graphs for onnx and tensorrt; default the cache.'),
]

Quantise = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option('--quantise', metavar='FORMATS', help='Weights in fewer bits, for torch: int8, int4, int4-fp8, ...'),
]


def one_mode(text: str) -> str:
    """Return the name of a mode, checked.

    :raises typer.BadParameter: there is no such mode
    """
    if text not in MODES:
        raise typer.BadParameter(f'{text!r} is no mode; choose from {", ".join(MODES)}')
    return text


def several_modes(text: str) -> str:
    """Return a comma-separated list of modes, each checked.

    :raises typer.BadParameter: there is no such mode, or one is named twice
    """
    names = [one_mode(name.strip()) for name in text.split(',')]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f'{text!r} names a mode twice')
    return ','.join(names)


Mode = Annotated[
    str,
    typer.Option('--mode', callback=one_mode, metavar='|'.join(MODES), help='How to answer.'),
]
Modes = Annotated[
    str,
    typer.Option('--modes', callback=several_modes, help='Modes to measure, by commas; the first counts.'),
]
Fov = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option('--fov', min=1.0, max=179.0, help='Vertical field of view of the camera [deg], where it is known.'),
]
World = Annotated[
    str,
    typer.Option('--world', metavar='NAME', help='What simulated scenes are drawn from: eval, train or warehouse.'),
]
