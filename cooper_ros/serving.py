"""Makes a node and runs it until it is told to end, and lets no failure pass in silence."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from cooper_ros.transport import make_room_for_images

NodeT = TypeVar('NodeT', bound=Node)
_SPIN_SECONDS = 0.2
_END_SECONDS = 5.0


def run(
    make: Callable[[], NodeT],
    close: Callable[[NodeT], None],
    name: str,
    threads: int,
    refused: type[Exception],
    args: list[str] | None = None,
) -> None:
    """Be the program of a node, from the beginning to the end of ROS in this process.

    :param close: as of :func:`serve`
    :param name: that the log calls it before the node is there
    :param refused: what making it raises where its user asked for what cannot be; the text is logged, the status is 1
    :param args: ROS arguments; None = those of the process
    """
    make_room_for_images()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        try:
            node = make()
        except refused as error:
            get_logger(name).fatal(str(error))
            sys.exit(1)
        try:
            serve(node, lambda: close(node), threads)
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


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
