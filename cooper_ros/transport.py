"""Room for camera images in Fast DDS, the default middleware of ROS 2."""

from __future__ import annotations

import os

VARIABLE = 'FASTDDS_BUILTIN_TRANSPORTS'
SETTING = 'DEFAULT?sockets_size=8MB'


def make_room_for_images() -> None:
    """Enlarge the middleware's buffers, unless the user has chosen a transport. Call before ``rclpy.init``.

    Fast DDS's shared-memory segment holds 0.5 MB by default, so a best-effort subscriber loses nearly every raw
    image of 640x480 (0.9 MB). The setting counts in the sending process; it changes buffers only, not protocols, so
    peers without it are reached as before. Other middleware ignores the variable.
    """
    os.environ.setdefault(VARIABLE, SETTING)
