"""An MCAP file without its end or its index."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from zstandard import ZstdError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

# What reading past the end of what is whole raises.
_CUT = (McapError, ZstdError, struct.error, EOFError, ValueError, RuntimeError)
RECORD_LIMIT = 2**30


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
