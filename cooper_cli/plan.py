"""``cooper plan``: what fits a device of a given memory, and what does not and by how much."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from cooper_cli import options
from cooper_cli.output import print_json, say, table

if TYPE_CHECKING:
    from cooper_model.config import CooperConfig
    from cooper_model.memory import Plan

JETSONS, CARDS = (16, 32, 64), (12, 16, 24, 48, 80)


class Kind(str, Enum):
    """Jetsons share their memory with the processor; cards have their own; a CPU computes without either."""

    jetson = 'jetson'
    desktop = 'desktop'
    cpu = 'cpu'


def plan(
    memory: Annotated[float, typer.Option('--memory', min=1.0, max=1000.0, help='Memory of the device [GB].')],
    device: Annotated[Kind, typer.Option('--device', help='What it is.')] = Kind.desktop,
    camera: Annotated[str, typer.Option('--camera', metavar='WxH', help='Size of the camera [px].')] = '640x480',
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option('--checkpoint', metavar='DIR', help='Folder of a checkpoint; default the published 7B sizes.'),
    ] = None,
    json: options.Json = False,
) -> None:
    """Print the configuration to use on a device, from counted bytes."""
    from cooper_model.config import CooperConfig
    from cooper_model.memory import GB, make_plan

    config = CooperConfig() if checkpoint is None else CooperConfig.load(checkpoint)
    found = make_plan(config, int(memory * GB), device.value, _size(camera))
    record = describe(config, found) | {'checkpoint': 'published 7B sizes' if checkpoint is None else str(checkpoint)}
    if json:
        print_json(record)
    else:
        _show(record)
    if not record['fits']:
        raise typer.Exit(1)


def _size(camera: str) -> tuple[int, int]:
    """Return ``(height, width)`` of ``WIDTHxHEIGHT``.

    :raises typer.BadParameter: it is not written so
    """
    width, _, height = camera.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise typer.BadParameter(f'{camera!r} is no size; write, for example, 640x480')
    return int(height), int(width)


def describe(config: CooperConfig, found: Plan) -> dict[str, Any]:
    """Return a plan as a record: what to use, then bytes of every part."""
    from cooper_model.memory import SHARES, conversation_tokens

    share = SHARES[found.device]
    formats = {part: getattr(found.quantisation, part) for part in ('understanding', 'generation', 'lm_head')}
    height, width = found.use.image
    sizes = {f'{part} weights': size for part, size in found.weights.items()}
    sizes |= {'keys and values': found.caches, 'decoding by a CUDA graph': found.step, 'working memory': found.working}
    sizes |= {'runtime (assumed)': share.runtime, 'system (assumed)': share.system}
    return {
        'fits': found.free >= 0,
        'device': found.device,
        'memory': found.memory,
        'precision': {part: 'bfloat16' if form == 'none' else form for part, form in formats.items()},
        'quantise': str(found.quantisation),
        'image_size': [width, height],
        'branches': found.use.branches,
        'cache_tokens': found.capacity,
        'conversation_tokens': conversation_tokens(config, found.use),
        'bytes': sizes,
        'needed': found.needed,
        'free': found.free,
        'refused': [{'configuration': label, 'lacks': lacking} for label, lacking in found.refused],
    }


def _show(record: dict[str, Any]) -> None:
    def gigabytes(size: int) -> str:
        return f'{size / 1e9:.2f}'

    width, height = record['image_size']
    say(table(('part', 'GB'), [(name, gigabytes(size)) for name, size in record['bytes'].items()]))
    say(f'\nneeded {gigabytes(record["needed"])} of {gigabytes(record["memory"])} GB')
    for refused in record['refused']:
        say(f'  does not fit: {refused["configuration"]} lacks {gigabytes(refused["lacks"])} GB')
    if not record['fits']:
        say(f'nothing fits: the smallest configuration lacks {gigabytes(-record["free"])} GB')
        return
    precision = ', '.join(f'{part} {form}' for part, form in record['precision'].items())
    branches = f'{record["branches"]} branches of guidance' if record['branches'] > 1 else 'no guidance'
    option = '' if record['quantise'] == 'none' else f' --quantise {record["quantise"]}'
    if record['device'] == 'cpu':
        option += ' --dtype bfloat16'
    say(f'use{option}: {precision}; images of {width}x{height}; {branches}; room for contexts of '
        f'{record["cache_tokens"]} tokens, a usual conversation has {record["conversation_tokens"]}')  # fmt: skip


def devices() -> list[tuple[str, int]]:
    """Return kind and memory [GB] of the devices of the table in docs/performance.md."""
    return [('jetson', size) for size in JETSONS] + [('desktop', size) for size in CARDS]
