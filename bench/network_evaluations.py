"""How often a sampler asks the network for one map, so that samplers can be compared at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cooper_cli.answering import camera_frames
from cooper_cli.options import BackendName, ModelChoice
from cooper_cli.session import open_reasoner
from cooper_model.flow import parse_sampler
from cooper_model.types import ImageReady

FRAMES = 2
STRETCH = 4  # most steps for an evaluation, of samplers that use velocities again


class NetworkCounter:
    """Counts how often a torch model is asked for a velocity; the branches of guidance are one question."""

    def __init__(self, model: ModelChoice, seed: int) -> None:
        self._settings, self._seed = model.sampler, seed
        reasoner: Any = open_reasoner(replace(model, backend=BackendName.torch))
        self._reasoner, self._asked = reasoner, 0
        self._frames = [frame for frame, _ in camera_frames(FRAMES, seed)]
        self._velocity = reasoner.backend.velocity
        reasoner.backend.velocity = self._counted

    def __call__(self, name: str) -> float:
        """Return the evaluations for a map, on average, of a sampler with its steps."""
        self._reasoner.adjust(parse_sampler(f'{self._settings},{name}'))
        self._asked = maps = 0
        for frame in self._frames:
            maps += sum(isinstance(event, ImageReady) for event in self._reasoner.perceive(frame, seed=self._seed))
        return self._asked / maps

    def _counted(self, *given: Any) -> Any:
        self._asked += 1
        return self._velocity(*given)


def with_evaluations(
    samplers: Sequence[str], wanted: Sequence[int], count: Callable[[str], float]
) -> dict[str, float]:
    """Return each sampler with the most steps for each number of evaluations, and how many it takes.

    Where one step takes more than that, as the one step of Heun's does of one evaluation, it is left out.
    """
    found = {}
    for sampler in samplers:
        counts: dict[str, float] = {}
        for steps in range(1, STRETCH * max(wanted) + 1):
            name = f'{sampler},steps={steps}'
            counts[name] = count(name)
            if counts[name] > 2 * max(wanted):
                break
        for most in wanted:
            fitting = [name for name, used in counts.items() if used <= most]
            if fitting:
                found[fitting[-1]] = counts[fitting[-1]]
    return found
