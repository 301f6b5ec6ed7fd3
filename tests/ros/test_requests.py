"""Requests of a node, by its own service: what fails beside an answer does not take the answer along."""

from __future__ import annotations

import os
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')

from rclpy.executors import MultiThreadedExecutor  # noqa: E402
from rclpy.lifecycle import LifecycleNode  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from cooper_model.types import Answer, Frame  # noqa: E402
from cooper_msgs.srv import Query  # noqa: E402
from cooper_ros.frames import FrameStore  # noqa: E402
from cooper_ros.placer import Place  # noqa: E402
from cooper_ros.requests import Requests  # noqa: E402


@pytest.fixture
def executor():
    context = rclpy.Context()
    context.init()
    executor = MultiThreadedExecutor(2, context=context)
    yield executor
    executor.shutdown()
    context.try_shutdown()


def test_an_answer_reaches_its_asker_where_telling_others_fails(executor):
    name = f'requests_{os.getpid()}_{zlib.crc32(b"telling")}'
    node = LifecycleNode(name, context=executor.context)
    frames = FrameStore('image_raw', 'camera_info', node.get_logger().warning)
    camera = SimpleNamespace(name='', frames=frames, newest=lambda: Frame(np.zeros((4, 6, 3), np.uint8)))
    told = []

    def tell(asked, place):
        told.append(asked.question)
        raise RuntimeError('the publisher was destroyed')

    pipeline = SimpleNamespace(cameras={'': camera}, ask=lambda *_: Answer('the red ball', 'direct'))
    Requests(node, pipeline, lambda: True, lambda frame, depth: Place(Header()), tell)
    client = node.create_client(Query, f'/{name}/query')
    executor.add_node(node)
    assert client.wait_for_service(10)
    future = client.call_async(Query.Request(question='Which is closer?'))
    executor.spin_until_future_complete(future, 10)
    assert future.result().success and future.result().answer == 'the red ball'
    assert told == ['Which is closer?']
    node.destroy_node()
