"""``cooper export``: graphs for ONNX Runtime, engines for TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from cooper_cli import options
from cooper_cli.output import print_json, say
from cooper_model.backends.profiles import Limits

USUAL = Limits()


class Form(str, Enum):
    """What to export to."""

    onnx = 'onnx'
    tensorrt = 'tensorrt'


class PrecisionName(str, Enum):
    """Number format of weights, caches and arithmetic."""

    float32 = 'float32'
    float16 = 'float16'
    bfloat16 = 'bfloat16'


def export(
    form: Annotated[Form, typer.Argument(help='onnx: graphs; tensorrt: engines for the GPU of this machine.')],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option('--out', metavar='DIR', help='Folder for the result; tensorrt without it fills the cache.'),
    ] = None,
    precision: Annotated[
        Optional[PrecisionName],  # noqa: UP045
        typer.Option('--precision', help='Number format; default float32 for onnx, bfloat16 for tensorrt.'),
    ] = None,
    opset: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option('--opset', help='23, or 20 for TensorRT 10.3 (JetPack 6); default 23, or what TensorRT takes.'),
    ] = None,
    capacity: Annotated[int, typer.Option(min=256, help='Longest conversation of engines [tokens].')] = USUAL.capacity,
    latents: Annotated[int, typer.Option(min=1, help='Largest image of engines [latent tokens].')] = USUAL.latents,
    json: options.Json = False,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
) -> None:
    """Write a checkpoint as ONNX graphs, or build TensorRT engines from them.

    Engines hold for one GPU architecture and one version of TensorRT: build them where they run.
    """
    from cooper_model.loading import default_checkpoint

    source = checkpoint or default_checkpoint()
    chosen = None if precision is None else precision.value
    if form is Form.onnx:
        if out is None:
            raise typer.BadParameter('--out DIR is missing: where the graphs shall go')
        record = _onnx(source, out, opset, chosen)
    else:
        record = _tensorrt(source, out, opset, chosen, Limits(capacity, latents), device)
    if json:
        print_json(record)
    else:
        say(', '.join(f'{name} {value}' for name, value in record.items()))


def _onnx(source: Path, out: Path, opset: int | None, precision: Any) -> dict[str, Any]:
    from cooper_cli.pictures import make_folder
    from cooper_model.backends.graphs import OPSETS
    from cooper_model.export.onnx import export_onnx

    make_folder(out)
    with _bar() as show:
        manifest = export_onnx(
            source,
            out,
            opset=opset or OPSETS[0],
            precision=precision or 'float32',
            progress=lambda name, done, total: show(f'graph {name}', done / total),
        )
    return {'out': str(out), 'opset': manifest.opset, 'precision': manifest.precision, 'model': manifest.model[:12]}


def _tensorrt(
    source: Path, out: Path | None, opset: int | None, precision: Any, limits: Limits, device: str | None
) -> dict[str, Any]:
    from cooper_model.backends.engines import tensorrt_version

    tensorrt_version()  # before torch and all that is slow to import
    from cooper_model.export.tensorrt import find_engines, find_target

    target = find_target(device)
    precision = precision or 'bfloat16'
    if out is not None and not (out / 'manifest.json').exists():
        _onnx(source, out, opset or target.opset, precision)
    engines = find_engines(source, device, precision, out, limits)
    with _bar() as show:
        engines.build(lambda name, done: show(f'engine {name}', done))
    key = engines.store.key
    return {
        'engines': str(engines.store.folder),
        'gpu': key.gpu,
        'tensorrt': key.tensorrt,
        'precision': key.precision,
        'opset': key.opset,
        'capacity': key.limits.capacity,
        'shared_weights': key.shares,
    }


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    """Show how far a long piece of work is, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn('{task.description}'), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('loading', total=1.0)
        yield lambda text, done: progress.update(task, description=text, completed=done)
