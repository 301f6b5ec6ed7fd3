"""Simulated rooms and tables: pictures, true depth, true masks, objects, questions with true answers.

Names load when first used, so that MuJoCo starts only in a program that draws.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooper_sim.dataset import write_dataset
    from cooper_sim.distribution import Distribution
    from cooper_sim.questions import CATEGORIES, Question, ask_questions
    from cooper_sim.records import Record, SimDataset
    from cooper_sim.render import Renderer, RenderError
    from cooper_sim.sample import make_sample
    from cooper_sim.scenes import generate_scene
    from cooper_sim.types import COLORS, KINDS, Sample, Scene, SimObject, VisibleObject

_HOMES = {
    'dataset': ('write_dataset',),
    'distribution': ('Distribution',),
    'questions': ('CATEGORIES', 'Question', 'ask_questions'),
    'records': ('Record', 'SimDataset'),
    'render': ('Renderer', 'RenderError'),
    'sample': ('make_sample',),
    'scenes': ('generate_scene',),
    'types': ('COLORS', 'KINDS', 'Sample', 'Scene', 'SimObject', 'VisibleObject'),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    'CATEGORIES', 'COLORS', 'KINDS', 'Distribution', 'Question', 'Record', 'RenderError', 'Renderer',
    'Sample', 'Scene', 'SimDataset', 'SimObject', 'VisibleObject', 'ask_questions', 'generate_scene',
    'make_sample', 'write_dataset',
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOME_OF[name]}'), name)
