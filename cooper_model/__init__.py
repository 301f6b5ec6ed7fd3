"""COOPER as a library: perceives and reasons about one image. Knows neither ROS nor training.

Importing the package imports no torch; the names below are fetched when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cooper_model.loading import load, load_backend
    from cooper_model.reasoner import Reasoner

__all__ = ['Reasoner', 'load', 'load_backend']
_HOMES = {'Reasoner': 'reasoner', 'load': 'loading', 'load_backend': 'loading'}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
