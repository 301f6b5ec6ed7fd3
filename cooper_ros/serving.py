"""Runs a node until it is told to end, and lets no failure pass in silence."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable

from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node

_SPIN_SECONDS = 0.2
_END_SECONDS = 5.0


def serve(node: Node, close: Callable[[], None], threads: int) -> None:
    """Serve until SIGINT or SIGTERM, or until the node's context ends. Call from the main thread.

    rclpy's own signal handlers would end the context first, under the feet of threads that still publish; so the
    context must be made without them.

    :param close: ends what the node has running; its callbacks are still served meanwhile
    :param threads: of the executor
    """
    stop, over = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    executor = MultiThreadedExecutor(num_threads=threads)
    executor.add_node(node)

    def spin() -> None:
        while node.context.ok() and not over.is_set():
            try:
                executor.spin_once(timeout_sec=_SPIN_SECONDS)
            except InvalidHandle:
                continue  # a subscription was destroyed while the executor waited for it
            except Exception as error:  # noqa: BLE001 - logged, and the node goes on
                node.get_logger().error(f'a callback failed: {error}\n{traceback.format_exc()}')
        stop.set()

    thread = threading.Thread(target=spin, name='executor')
    thread.start()
    stop.wait()
    try:
        close()
    finally:
        over.set()
        thread.join()
        executor.shutdown(timeout_sec=_END_SECONDS)
