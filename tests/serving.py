"""A server of a reasoner within this process: the gateway and the work of ``cooper serve``, without Ray."""

from __future__ import annotations

import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from cooper_model.backends.connection import Server
from cooper_model.gateway import Gateway, Limits
from cooper_model.reasoner import Reasoner
from cooper_model.tasks import Engine
from cooper_model.wire import plain


class Served:
    """Serves on loopback until it is stopped; a context manager.

    :param reasoners: for one question each at a time
    :param port: 0 takes a free one
    """

    def __init__(self, *reasoners: Reasoner, port: int = 0, limits: Limits | None = None) -> None:
        async def replicas() -> int:
            return 1

        image = plain(reasoners[0].backend.config.vae_transform)
        self.engine = Engine(reasoners)
        gateway = Gateway(self.engine.run, replicas, {'id': 'tiny', 'cooper': {'image': image}}, limits)
        app = Starlette(routes=[Route('/{path:path}', gateway.respond, methods=['GET', 'POST'])])
        settings = uvicorn.Config(app, host='127.0.0.1', port=port, log_level='warning', lifespan='off')
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), 'the server did not start'
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def address(self, silence: float = 60.0) -> Server:
        """Return where it is."""
        return Server(f'http://127.0.0.1:{self.port}', silence)
