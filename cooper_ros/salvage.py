"""Reading any bag, and of those that were cut off what is whole up to the damage, and what ended it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from zstandard import ZstdError

from cooper_ros.bags import DAMAGE, BagError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

# What reading past the end of what is whole raises.
_CUT = (McapError, ZstdError, struct.error, EOFError, ValueError, RuntimeError)
RECORD_LIMIT = 2**30


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
        except (*DAMAGE, *_CUT) as error:
            damage = str(error)
    if not readers:
        raise BagError(f'bag {path}: nothing in it can be read ({damage}); copy it again')
    return Bag(path, readers, damage)


def _whole(path: Path) -> AnyReader:
    # Humble's sqlite3 bags carry no message definitions; those of the distribution fill in.
    reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
    reader.open()
    return reader


class CutMcap:
    """An MCAP file without its end.

    :ivar latched: topics that late subscribers are to have
    :raises ValueError: not even its beginning can be read
    """

    is2 = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''
        self.connections: list[Connection] = []
        self.typestore: Typestore = get_typestore(Stores.EMPTY)
        self.latched: set[str] = set()
        self._times: list[int] = []
        # A bag that is still being written grows; what comes later belongs to topics that are not known yet.
        self._end = path.stat().st_size
        schemas: dict[int, Schema] = {}
        counts: dict[int, int] = {}
        channels: dict[int, Channel] = {}
        record = None
        for record in self._records():
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                counts[record.channel_id] = counts.get(record.channel_id, 0) + 1
                self._times.append(record.log_time)
        if record is None:
            raise ValueError(self.damage or f'{path} is empty')
        for channel in channels.values():
            schema = schemas[channel.schema_id]
            if _is_latched(channel):
                self.latched.add(channel.topic)
            text = schema.data.decode('utf-8')
            self.typestore.register(get_types_from_msg(text, schema.name))
            self.connections.append(
                Connection(
                    channel.id, channel.topic, schema.name, MessageDefinition(MessageDefinitionFormat.MSG, text), '',
                    counts.get(channel.id, 0), ConnectionExtRosbag2('cdr', []), self,
                )
            )  # fmt: skip

    def _records(self) -> Iterator[Any]:
        with self.path.open('rb') as file:
            try:
                for record in StreamReader(file, record_size_limit=RECORD_LIMIT).records:
                    if file.tell() > self._end:
                        return
                    yield record
            except _CUT as error:
                self.damage = (
                    f'{self.path.name} is cut off or damaged at {file.tell() / 1e6:.1f} of '
                    f'{self.path.stat().st_size / 1e6:.1f} MB ({str(error) or type(error).__name__})'
                )

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield the messages of some topics recorded in ``start`` .. ``stop`` - 1 [ns], in the order of the file."""
        wanted = {connection.id: connection for connection in connections}
        for record in self._records():
            if (
                isinstance(record, Message)
                and record.channel_id in wanted
                and (start is None or start <= record.log_time)
                and (stop is None or record.log_time < stop)
            ):
                yield wanted[record.channel_id], record.log_time, record.data

    def deserialize(self, raw: bytes, kind: str) -> Any:
        """Return a message with fields as in its definition."""
        return self.typestore.deserialize_cdr(raw, kind)

    @property
    def duration(self) -> int:
        """Nanoseconds from the first message to the last."""
        return max(self._times) - min(self._times) if self._times else 0

    def close(self) -> None:
        """Files are only open while they are read."""


def _is_latched(channel: Channel) -> bool:
    profiles = yaml.safe_load(channel.metadata.get('offered_qos_profiles', '')) or []
    # Older versions of the metadata number what newer ones name.
    return any(str(profile.get('durability')) in ('1', 'transient_local') for profile in profiles)


SALVAGE: dict[str, Callable[[Path], Any]] = {'.mcap': CutMcap}
