"""The option ``--viewer`` of the commands that start ROS nodes."""

from __future__ import annotations

from enum import Enum
from importlib.util import find_spec
from typing import Annotated

import typer

VIEWER_MODULE = 'cooper_ros.viewer'


class ViewerName(str, Enum):
    """What shows a node at work."""

    none = 'none'
    rerun = 'rerun'


def _installed(viewer: ViewerName) -> ViewerName:
    if viewer is ViewerName.rerun and find_spec('rerun') is None:
        raise typer.BadParameter("rerun-sdk is not installed; install it with: pip install 'cooper_ros[viewer]'")
    return viewer


Viewer = Annotated[
    ViewerName, typer.Option(callback=_installed, help='Show maps, scene, thoughts and answers live in this viewer.')
]
