"""One growing MCAP bag: complete up to the last flush at any moment, whatever ends the process."""

from __future__ import annotations

import os
from pathlib import Path

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from cooper_ros.recording.definitions import Definitions

# The newest version of the metadata that every supported distribution reads.
METADATA_VERSION = 8
_FOREVER = QosTime(sec=2147483647, nsec=4294967295)


class BagWriter:
    """Writes serialized messages into a new ROS 2 bag: a folder with one MCAP file of zstd chunks.

    :param folder: is created; must not exist
    :raises OSError: the folder cannot be made or written
    """

    def __init__(self, folder: Path, definitions: Definitions) -> None:
        self.folder = folder
        self.messages = 0
        self._definitions = definitions
        self._connections: dict[str, Connection] = {}
        self._writer = Writer(folder, version=METADATA_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._complete = 0

    @property
    def size(self) -> int:
        """Bytes in the file, and those that wait for the next flush before they are compressed."""
        storage = self._writer.storage
        return storage.bio.tell() + storage.chunk.bio.tell()

    def write(self, topic: str, kind: str, time_ns: int, data: bytes, *, latched: bool = False) -> None:
        """Write a message.

        :param kind: type, for example ``sensor_msgs/msg/Image``
        :param time_ns: when it was recorded [ns]
        :param data: serialized as ROS does (CDR)
        :param latched: whether late subscribers of the topic are to have it
        :raises OSError: it cannot be written
        :raises UnknownType: the type has no definition
        """
        connection = self._connections.get(topic)
        if connection is None:
            store = self._definitions.require(kind)
            connection = self._writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=[_quality(latched)]
            )
            self._connections[topic] = connection
        self._writer.write(connection, time_ns, data)
        self.messages += 1

    def flush(self) -> None:
        """Hand everything so far to the operating system, as a whole chunk.

        :raises OSError: it cannot be written
        """
        # rosbags closes a chunk by its size alone; a robot's last question must not wait for the next ones.
        storage = self._writer.storage
        if storage.chunk.bio.tell():
            storage.close_chunk()
        storage.bio.flush()
        self._complete = storage.bio.tell()

    def close(self) -> None:
        """Write index and metadata.

        :raises OSError: they cannot be written
        """
        self.flush()
        self._writer.close()

    def abandon(self) -> None:
        """Give the file up after an error; it ends with the last whole chunk, without an index."""
        storage = self._writer.storage
        if storage is None:
            return  # the file is whole, only the metadata is missing
        try:
            self._writer.abort()
        except OSError:
            pass  # what was still buffered cannot be written either
        try:
            os.truncate(storage.path, self._complete)
        except OSError:
            pass  # readers stop at what is not whole


def _quality(latched: bool) -> Qos:
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, durability, _FOREVER, _FOREVER,
        QosLiveliness.AUTOMATIC, _FOREVER, False,
    )  # fmt: skip
