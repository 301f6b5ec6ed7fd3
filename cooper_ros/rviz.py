"""RViz's configuration for several cameras: all that it shows of one camera, once for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

NODE = '/cooper/'


def for_cameras(config: Mapping[str, Any], cameras: Sequence[str]) -> dict[str, Any]:
    """Return a configuration with the displays of each camera under its name; grid and frames stay as they are.

    :param config: of one camera without a name, as read from YAML
    :param cameras: their names
    :raises KeyError: ``config`` is none that RViz has written or reads
    """
    config = deepcopy(dict(config))
    manager = config['Visualization Manager']
    shown = {display['Name'] for display in manager['Displays'] if 'Topic' in display}
    several = [_for_camera(display, camera, shown) for camera in cameras for display in _of(manager, shown)]
    common = [display for display in manager['Displays'] if display['Name'] not in shown]
    manager['Displays'] = [*several, *common]
    for display in several:
        if 'Visibility' in display:
            others = {each['Name']: False for each in several if each is not display}
            display['Visibility'] = {**others, **display['Visibility']}
    windows = config.get('Window Geometry', {})
    for name in shown & set(windows):
        window = windows.pop(name)
        windows.update({_named(name, camera): dict(window) for camera in cameras})
    for panel in config.get('Panels', []):
        if panel.get('SyncSource') in shown:
            panel['SyncSource'] = _named(panel['SyncSource'], cameras[0])
    return config


def _of(manager: Mapping[str, Any], names: set[str]) -> list[Mapping[str, Any]]:
    return [display for display in manager['Displays'] if display['Name'] in names]


def _named(display: str, camera: str) -> str:
    return f'{camera}: {display}'


def _for_camera(display: Mapping[str, Any], camera: str, shown: set[str]) -> dict[str, Any]:
    """Return a display as it is for one camera.

    :param shown: names of all displays that there are once for each camera
    """
    found = deepcopy(dict(display))
    found['Name'] = _named(display['Name'], camera)
    topic = display['Topic']['Value']
    found['Topic']['Value'] = (
        f'{NODE}{camera}/{topic.removeprefix(NODE)}' if topic.startswith(NODE) else f'/{camera}{topic}'
    )
    if 'Visibility' in found:
        seen = found['Visibility'].items()
        found['Visibility'] = {_named(name, camera) if name in shown else name: value for name, value in seen}
    return found
