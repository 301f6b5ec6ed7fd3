"""Message definitions, as a bag carries them, read from the ``.msg`` files of the ROS installation in use."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore


class UnknownType(LookupError):
    """A message type has no definition here; the text names it and the remedy."""


class Definitions:
    """Definitions of message types and of all that they hold, read when first asked for."""

    def __init__(self) -> None:
        self.store: Typestore = get_typestore(Stores.EMPTY)

    def require(self, name: str) -> Typestore:
        """Return a store that knows a type, for example ``sensor_msgs/msg/Image``.

        :raises UnknownType: there is no readable ``.msg`` file of it
        """
        found: dict[str, Any] = {}
        self._collect(name, found)
        if found:
            self.store.register(found)
        return self.store

    def _collect(self, name: str, found: dict[str, Any]) -> None:
        if name in self.store.fielddefs or name in found:
            return
        try:
            found.update(get_types_from_msg(_text(name), name))
        except TypesysError as error:
            raise UnknownType(f'the definition of {name} cannot be read: {error}') from error
        for _, kind in found[name][1]:
            inner = kind[1][0] if kind[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE) else kind
            if inner[0] == Nodetype.NAME:
                self._collect(inner[1], found)


def _text(name: str) -> str:
    package, _, rest = name.partition('/')
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        path = Path(prefix, 'share', package, f'{rest}.msg')
        if path.is_file():
            return path.read_text(encoding='utf-8')
    raise UnknownType(f'no definition of {name} in {", ".join(filter(None, prefixes))}; install or source {package}')
