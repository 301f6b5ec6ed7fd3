"""The reasoner behind Ray Serve: one gateway that speaks HTTP, replicas that each hold the model.

Ray gives every replica as many questions as it computes together, keeps the others waiting, and starts a replica that
died or hangs again. A question whose replica dies is asked of another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

from cooper_model.config import CooperConfig
from cooper_model.gateway import Gateway, Limits, Overloaded
from cooper_model.loading import Source, default_checkpoint, load_several
from cooper_model.tasks import Engine, Records, Task
from cooper_model.wire import plain

log = logging.getLogger(__name__)

APPLICATION, REPLICA = 'cooper', 'Replica'
_ATTEMPTS = 3
_QUEUE = 64  # questions that wait for a replica
_STUCK_SECONDS = 300.0  # of one model step
_CONNECTIONS = 1024
_SURROUNDINGS = {
    'RAY_USAGE_STATS_ENABLED': '0',  # nothing leaves the robots' network
    'RAY_worker_niceness': '0',  # the model is no work for the background
    'RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S': '120',  # a machine that does other things too starts slowly
}


@dataclass(frozen=True)
class Model(Source):
    """What every replica loads."""

    def describe(self) -> dict[str, Any]:
        """Return what the server says of its model, read from the checkpoint's configuration.

        :raises FileNotFoundError, ValueError: there is no such checkpoint
        """
        folder = default_checkpoint() if self.checkpoint is None else self.checkpoint
        config = CooperConfig.load(folder)
        name = 'cooper-nano' if self.checkpoint is None else os.path.basename(os.path.normpath(folder))
        more = {'backend': self.backend, 'image': plain(config.vae_transform), 'metric': config.depth_range is not None}
        return {'id': name, 'object': 'model', 'created': 0, 'owned_by': 'cooper', 'cooper': more}


@dataclass(frozen=True)
class Fleet:
    """How many replicas there are, what each takes, and where the server listens.

    :param batch: questions that a replica computes together
    :param cpus, gpus: of each replica; a part of a GPU is allowed
    :param address: of a running Ray cluster; None starts one on this machine
    :param object_store: memory in which Ray passes images on, of a cluster that is started here [bytes]
    """

    replicas: int = 1
    batch: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    host: str = '127.0.0.1'
    port: int = 8000
    address: str | None = None
    object_store: int = 256 * 2**20


@serve.deployment(name=REPLICA, max_queued_requests=_QUEUE, health_check_period_s=5)
class Replica:
    """One copy of the model."""

    def __init__(self, model: Model, batch: int) -> None:
        self._engine = Engine(load_several(model, batch))

    async def run(self, task: Task) -> Records:
        """Yield the records of a task's events."""
        async with aclosing(self._engine.run(task)) as records:
            async for record in records:
                yield record

    async def check_health(self) -> None:
        """Have Ray replace a replica whose model hangs.

        :raises RuntimeError: a model step takes far too long
        """
        if self._engine.step_seconds > _STUCK_SECONDS:
            raise RuntimeError(f'a model step has been running for {self._engine.step_seconds:.0f} s')


@serve.deployment(max_ongoing_requests=_CONNECTIONS, health_check_period_s=5)
class Front:
    """The gateway, whose tasks go to the replicas."""

    def __init__(self, model: DeploymentHandle, told: Mapping[str, Any], limits: Limits) -> None:
        self._model = model.options(stream=True)
        self._gateway = Gateway(self._work, _replicas, told, limits)

    async def __call__(self, request: Request) -> Response:
        return await self._gateway.respond(request)

    async def _work(self, task: Task) -> Records:
        """Have a replica carry out a task, and another one where that dies, without telling anything twice."""
        told = 0
        for attempt in range(1, _ATTEMPTS + 1):
            seen, answer = 0, self._model.run.remote(task)
            try:
                async for record in answer:
                    seen += 1
                    if seen > told:
                        told = seen
                        yield record
                return
            except RayActorError as error:
                if attempt == _ATTEMPTS:
                    raise Overloaded(f'{_ATTEMPTS} replicas died one after the other; ask again later') from error
                log.warning('a replica died; its question is asked again')
            except (BackPressureError, DeploymentUnavailableError) as error:
                raise Overloaded(str(error)) from error
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ValueError) else error) from None
            except (GeneratorExit, asyncio.CancelledError):
                answer.cancel()
                raise


async def _replicas() -> int:
    """Return how many replicas run."""
    status = await asyncio.to_thread(serve.status)
    found = status.applications.get(APPLICATION)
    states = found.deployments[REPLICA].replica_states if found and REPLICA in found.deployments else {}
    return int(states.get('RUNNING', 0))


def application(model: Model, fleet: Fleet, limits: Limits | None = None) -> serve.Application:
    """Return what Ray Serve runs.

    :raises FileNotFoundError, ValueError: there is no such checkpoint
    """
    needs = {'num_cpus': fleet.cpus, 'num_gpus': fleet.gpus}
    scale = {'num_replicas': fleet.replicas, 'max_ongoing_requests': fleet.batch}
    replica = Replica.options(**scale, ray_actor_options=needs).bind(model, fleet.batch)
    front = Front.options(ray_actor_options={'num_cpus': 0})
    return front.bind(replica, model.describe(), limits or Limits())


def start(model: Model, fleet: Fleet) -> None:
    """Start the server and wait until every replica has loaded the model.

    :raises FileNotFoundError, ValueError: there is no such checkpoint
    :raises RuntimeError: the replicas cannot load it
    """
    served = application(model, fleet)
    for name, value in _SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    # Ray gives a replica one thread for each of its CPUs, unless a number for all is inherited.
    os.environ.pop('OMP_NUM_THREADS', None)
    if fleet.address is None:
        # At least what the replicas ask for, which they would otherwise wait for.
        cpus = max(os.cpu_count() or 1, round(fleet.replicas * fleet.cpus + 0.5))
        own = {'num_cpus': cpus, 'object_store_memory': fleet.object_store, 'include_dashboard': False}
        ray.init(address='local', log_to_driver=False, logging_level=logging.WARNING, **own)
    else:
        ray.init(address=fleet.address, log_to_driver=False, logging_level=logging.WARNING)
    serve.start(http_options={'host': fleet.host, 'port': fleet.port})
    serve.run(served, name=APPLICATION)


def stop(fleet: Fleet) -> None:
    """End the server, and the Ray cluster where it was started here; of another cluster nothing else is touched."""
    if not ray.is_initialized():
        return
    if fleet.address is None:
        serve.shutdown()
    else:
        serve.delete(APPLICATION)
    ray.shutdown()
