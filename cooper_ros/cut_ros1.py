"""A ROS 1 bag without its end or its index (source of the format: wiki.ros.org/Bags/Format/2.0)."""

from __future__ import annotations

import bz2
import io
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import lz4.frame
from rosbags.interfaces import Connection, ConnectionExtRosbag1, MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

_MAGIC = b'#ROSBAG V2.0\n'
_MESSAGE, _CHUNK, _CONNECTION = 0x02, 0x05, 0x07
_UNPACK = {'none': bytes, 'bz2': bz2.decompress, 'lz4': lz4.frame.decompress}
_CUT = (EOFError, OSError, RuntimeError, ValueError, KeyError, struct.error)
_LONGEST = 2**31
Record = tuple[dict[str, bytes], bytes]


class CutRos1:
    """Reads records in their order, until one is not whole.

    :raises ValueError: it is no bag, or has no connection that is whole
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''
        self.typestore = get_typestore(Stores.EMPTY)
        found: dict[int, tuple[str, str, str]] = {}
        counts: dict[int, int] = {}
        for op, fields, data in self._records():
            number = _number(fields['conn'])
            if op == _MESSAGE:
                counts[number] = counts.get(number, 0) + 1
            elif number not in found:
                told = _fields(data)
                kind, text = (told[name].decode() for name in ('type', 'message_definition'))
                found[number] = (fields['topic'].decode(), kind.replace('/', '/msg/', 1), text)
        if not found:
            raise ValueError(self.damage or f'{path} is no ROS 1 bag')
        self.connections: list[Connection] = []
        for number, (topic, kind, text) in found.items():
            self.typestore.register(get_types_from_msg(text, kind))
            definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
            ext = ConnectionExtRosbag1(None, None)
            self.connections.append(Connection(number, topic, kind, definition, '', counts.get(number, 0), ext, self))

    def _records(self) -> Iterator[tuple[int, dict[str, bytes], bytes]]:
        """Yield op code, header fields and data of connections and messages."""
        with self.path.open('rb') as file:
            try:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise ValueError('it does not begin as a ROS 1 bag')
                while (record := _record(file)) is not None:
                    fields, data = record
                    op = fields['op'][0]
                    if op == _CHUNK:
                        yield from _inside(_UNPACK[fields['compression'].decode()](data))
                    elif op in (_MESSAGE, _CONNECTION):
                        yield op, fields, data
                    elif op == 0x03 and _number(fields['index_pos']) == 0:
                        self.damage = f'{self.path.name} was not closed'
            except _CUT as error:
                self.damage = f'{self.path.name} is cut off or damaged at {file.tell() / 1e6:.1f} MB ({error})'

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield the messages of some topics recorded in ``start`` .. ``stop`` - 1 [ns]."""
        wanted = {connection.id: connection for connection in connections}
        for op, fields, data in self._records():
            if op != _MESSAGE or _number(fields['conn']) not in wanted:
                continue
            seconds, rest = struct.unpack('<II', fields['time'])
            time_ns = seconds * 1_000_000_000 + rest
            if (start is None or start <= time_ns) and (stop is None or time_ns < stop):
                yield wanted[_number(fields['conn'])], time_ns, data

    def deserialize(self, raw: bytes, kind: str) -> Any:
        """Return a message with fields as in its definition."""
        return self.typestore.deserialize_ros1(raw, kind)

    def close(self) -> None:
        """Files are only open while they are read."""


def _inside(data: bytes) -> Iterator[tuple[int, dict[str, bytes], bytes]]:
    stream = io.BytesIO(data)
    while (record := _record(stream)) is not None:
        yield record[0]['op'][0], *record


def _record(file: BinaryIO) -> Record | None:
    """Return header fields and data of the next record, None at the end of the file."""
    first = file.read(4)
    if not first:
        return None
    header = _exactly(file, _number(first))
    return _fields(header), _exactly(file, _number(_exactly(file, 4)))


def _exactly(file: BinaryIO, count: int) -> bytes:
    if count > _LONGEST:
        raise ValueError(f'a length of {count} bytes')
    data = file.read(count)
    if len(data) < count:
        raise EOFError('the file ends within a record')
    return data


def _fields(header: bytes) -> dict[str, bytes]:
    found, place = {}, 0
    while place < len(header):
        size = _number(header[place : place + 4])
        name, _, value = header[place + 4 : place + 4 + size].partition(b'=')
        found[name.decode()] = value
        place += 4 + size
    return found


def _number(data: bytes) -> int:
    return int.from_bytes(data, 'little')
