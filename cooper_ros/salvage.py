"""Reading any bag, and of those that were cut off what is whole up to the damage, and what ended it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from cooper_ros.bags import DAMAGE, BagError
from cooper_ros.cut_mcap import CutMcap
from cooper_ros.cut_ros1 import CutRos1
from cooper_ros.cut_sqlite import CutSqlite


class Bag:
    """Messages of one bag, decoded, until its end or its damage.

    :ivar damage: why there is no more; empty while nothing is wrong
    """

    def __init__(self, path: Path, readers: list[Any], damage: str = '') -> None:
        self.path = path
        self.damage = damage
        self._readers = readers

    @property
    def types(self) -> dict[str, str]:
        """The type of each topic."""
        return {each.topic: each.msgtype for reader in self._readers for each in reader.connections}

    def count(self, topic: str) -> int:
        """Return how many messages a topic has."""
        return sum(each.msgcount for reader in self._readers for each in reader.connections if each.topic == topic)

    def read(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[tuple[str, int, Any]]:
        """Yield topic, time of recording [ns] and message, of some topics or of some types.

        :param start, stop: earliest time, and the time before which [ns]
        """
        for reader in self._readers:
            chosen = [
                each
                for each in reader.connections
                if (topics is None or each.topic in topics) and (kinds is None or each.msgtype in kinds)
            ]
            if not chosen:
                continue
            try:
                for connection, time_ns, raw in reader.messages(chosen, start, stop):
                    yield connection.topic, time_ns, reader.deserialize(raw, connection.msgtype)
            except DAMAGE as error:
                self.damage = f'{type(error).__name__}: {error}'
            self.damage = getattr(reader, 'damage', '') or self.damage

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            reader.close()


def open_bag(path: Path) -> Bag:
    """Open a bag, whole or not: a folder, or a ``.bag``, ``.db3`` or ``.mcap`` file.

    :raises BagError: it does not exist, or nothing in it can be read; the text names the remedy
    """
    if not path.exists():
        raise BagError(f'bag {path} does not exist; check the path')
    if path.is_file() and path.suffix not in SALVAGE:
        raise BagError(f'{path} is no bag; bags are folders with metadata.yaml, or end in {", ".join(SALVAGE)}')
    files = sorted(each for each in path.iterdir() if each.suffix in SALVAGE) if path.is_dir() else [path]
    whole = path.is_dir() and (path / 'metadata.yaml').exists()
    try:
        return Bag(path, [_whole(path)]) if whole else Bag(path, [_whole(file) for file in files])
    except DAMAGE as error:
        damage = f'{type(error).__name__}: {error}'
    readers = []
    for file in files:
        try:
            readers.append(SALVAGE[file.suffix](file))
        except DAMAGE as error:
            damage = str(error)
    if not readers:
        raise BagError(f'bag {path}: nothing in it can be read ({damage}); copy it again')
    return Bag(path, readers, damage)


def _whole(path: Path) -> AnyReader:
    # Humble's sqlite3 bags carry no message definitions; those of the distribution fill in.
    reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
    reader.open()
    return reader


SALVAGE: dict[str, Callable[[Path], Any]] = {'.mcap': CutMcap, '.db3': CutSqlite, '.bag': CutRos1}
