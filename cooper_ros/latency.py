"""How long a camera image takes through a running node: from publishing it to having its maps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from cooper_ros.conversions import image_message, stamp_to_ns
from cooper_ros.transport import make_room_for_images

RESULTS = ('depth/relative', 'segmentation/mask')
PAUSE = 0.3


def image_latencies(
    image: np.ndarray, count: int, alive: Callable[[], None], start_timeout: float = 120.0, timeout: float = 60.0
) -> list[float]:
    """Publish an image ``count`` times to the node ``cooper``, one after the other.

    :param image: ``(height, width, 3)`` uint8 RGB
    :param alive: raises when the node's process has ended
    :returns: seconds from publishing each until its depth and its mask have both arrived
    :raises TimeoutError: the node does not subscribe, or a result does not come
    """
    make_room_for_images()
    context = Context()
    context.init()
    probe = _Probe(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(probe)
    thread = threading.Thread(target=_spin, args=(executor,), name='cooper-latency', daemon=True)
    thread.start()
    try:
        probe.wait_for_node(start_timeout, alive)
        return [probe.time_one(image, timeout) for _ in range(count)]
    finally:
        executor.shutdown()
        thread.join(timeout=10)
        probe.destroy_node()
        context.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


class _Probe(Node):
    def __init__(self, context: Context) -> None:
        super().__init__('cooper_latency', context=context, enable_rosout=False)
        self._camera = self.create_publisher(Image, 'image_raw', 1)
        self._arrived = threading.Condition()
        self._stamps: dict[str, int] = {}
        for name in RESULTS:
            self.create_subscription(Image, f'cooper/{name}', lambda message, name=name: self._take(name, message), 1)

    def _take(self, name: str, message: Image) -> None:
        with self._arrived:
            self._stamps[name] = stamp_to_ns(message.header.stamp)
            self._arrived.notify_all()

    def wait_for_node(self, timeout: float, alive: Callable[[], None]) -> None:
        """Wait until the node takes images and its maps are connected."""
        end = time.monotonic() + timeout
        topics = [self.resolve_topic_name(f'cooper/{name}') for name in RESULTS]
        while not (self._camera.get_subscription_count() and all(self.count_publishers(topic) for topic in topics)):
            alive()
            if time.monotonic() > end:
                raise TimeoutError(f'no active node cooper after {timeout:g} s')
            time.sleep(0.05)
        time.sleep(PAUSE)

    def time_one(self, image: np.ndarray, timeout: float) -> float:
        """Publish one image and return the seconds until both maps are there."""
        time.sleep(PAUSE)
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id='camera')
        stamp = stamp_to_ns(header.stamp)
        message = image_message(image, 'rgb8', header)
        start = time.perf_counter()
        self._camera.publish(message)
        with self._arrived:
            done = self._arrived.wait_for(lambda: all(self._stamps.get(name) == stamp for name in RESULTS), timeout)
        if not done:
            raise TimeoutError(f'no {" and ".join(RESULTS)} within {timeout:g} s of publishing an image')
        return time.perf_counter() - start
