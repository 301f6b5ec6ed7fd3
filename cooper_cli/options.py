"""Options that several commands share, each with one name, one meaning and one help line.

What a model is computed with (:class:`ModelChoice`) is one parameter of a command, which :func:`takes_model` spreads
into options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_type_hints

import typer

from cooper_model.flow import parse_sampler
from cooper_model.types import MODES

if TYPE_CHECKING:
    from cooper_model.loading import Source

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


class NumberType(str, Enum):
    """What weights and arithmetic are."""

    auto = 'auto'
    float32 = 'float32'
    bfloat16 = 'bfloat16'


Dtype = Annotated[
    NumberType, typer.Option('--dtype', help='Of weights and arithmetic; auto: bfloat16 on a GPU, float32 on a CPU.')
]


def sampler_settings(text: str) -> str:
    """Return settings of a sampler as they were written, checked.

    :raises typer.BadParameter: they are none
    """
    try:
        parse_sampler(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


Sampler = Annotated[
    str,
    typer.Option(
        '--sampler', callback=sampler_settings, metavar='SETTINGS',
        help='How images are drawn: euler, heun or adams, steps=4, reuse=0.1; by commas. Default: as the checkpoint.',
    ),
]


@dataclass(frozen=True)
class ModelChoice:
    """What a command computes with; every field is the option of its name, and its default that option's."""

    checkpoint: Checkpoint = None
    backend: Backend = BackendName.auto
    graphs: Graphs = None
    quantise: Quantise = None
    dtype: Dtype = NumberType.auto
    device: Device = None
    threads: Threads = None
    server: Server = None
    sampler: Sampler = ''

    @property
    def source(self) -> Source:
        """What there is to load, wherever the process that loads it works."""
        from cooper_model.loading import Source

        checkpoint, graphs = (None if path is None else path.resolve() for path in (self.checkpoint, self.graphs))
        return Source(checkpoint, self.backend.value, self.device, graphs, self.quantise, self.dtype.value)

    @property
    def sampling(self) -> dict[str, Any]:
        """Settings of the sampler that are not the checkpoint's, by name."""
        return parse_sampler(self.sampler)

    def given(self, *known: str) -> list[str]:
        """Return the options that are not at their defaults, less those of ``known`` fields."""
        differing = (each.name for each in fields(self) if getattr(self, each.name) != each.default)
        return [f'--{name}' for name in differing if name not in known]


def takes_model(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of :class:`ModelChoice` in place of its parameter ``model``.

    :param without: fields that mean nothing to it
    """
    hints = get_type_hints(ModelChoice, include_extras=True)
    chosen = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(ModelChoice)
        if each.name not in without
    ]

    def spread(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            model = ModelChoice(**{each.name: given.pop(each.name) for each in chosen})
            command(**given, model=model)

        own = inspect.signature(command, eval_str=True).parameters
        kept = [each.replace(kind=each.KEYWORD_ONLY) for name, each in own.items() if name != 'model']
        # What typer reads, in place of what ``wraps`` copied.
        run.__signature__ = inspect.Signature([*kept, *chosen])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*kept, *chosen)}
        return run

    return spread


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
