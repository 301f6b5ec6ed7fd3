"""``cooper serve``: the model for a fleet of robots, over HTTP."""

from __future__ import annotations

import signal
import socket
import threading
from dataclasses import asdict, replace
from typing import Annotated, Optional

import typer

from cooper_cli import options
from cooper_cli.output import note


@options.takes_model('threads', 'server', 'sampler')
def serve(
    model: options.ModelChoice,
    replicas: Annotated[int, typer.Option(min=1, help='Copies of the model, each with a process of its own.')] = 1,
    batch: Annotated[int, typer.Option(min=1, help='Questions that a replica computes together (torch).')] = 1,
    host: Annotated[str, typer.Option(help='Address to listen on; 0.0.0.0 for robots of the network.')] = '127.0.0.1',
    port: Annotated[int, typer.Option(min=1, max=65535, help='Port to listen on.')] = 8000,
    cpus: Annotated[float, typer.Option(min=0.1, help='CPUs of each replica; so many threads it has.')] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help='GPUs of each replica; 0.5 puts two on one.')] = 0.0,
    object_store: Annotated[int, typer.Option(min=80, help='Memory for images in transit [MB].')] = 256,
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='A running Ray cluster, auto for that of this machine; default an own one.'),
    ] = None,
) -> None:
    """Serve the model to robots (--backend remote) and to any client of OpenAI's chat completions."""
    if model.backend is options.BackendName.remote:
        raise typer.BadParameter('a server has its own model; choose a back end that computes')
    source = model.source
    if batch > 1:
        if model.backend not in (options.BackendName.auto, options.BackendName.torch):
            name = model.backend.value
            raise typer.BadParameter(f'--batch {batch}: the {name} back end computes one question at a time; use torch')
        source = replace(source, backend=options.BackendName.torch.value)
    if address is None:
        _require_free(host, port)
    from cooper_model.server import Fleet, Model, start, stop

    served = Model(**asdict(source))
    fleet = Fleet(replicas, batch, cpus, gpus, host, port, address, object_store * 2**20)
    note(f'starting Ray and {replicas} replicas')
    ended = threading.Event()
    try:
        start(served, fleet)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        note(f'serving {served.describe()["id"]} on http://{host}:{port}; Ctrl-C ends')
        ended.wait()
    finally:
        stop(fleet)


def _require_free(host: str, port: int) -> None:
    """Refuse a port that is taken, which Ray would only notice after a minute.

    :raises typer.BadParameter: nothing can listen there
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            place = f'{host}:{port}'
            raise typer.BadParameter(f'cannot listen on {place}: {error}; choose --host and --port') from error
