"""A real node in its own process, and a client of it in this one."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 150.0  # on a machine that does other things too
WIDTH, HEIGHT = 161, 121

try:
    import rclpy
except ImportError:
    rclpy = None


def wait_for(condition, what, timeout=PATIENCE):
    """Return the first true value of ``condition()``."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f'waited {timeout:g} s for {what}'
        time.sleep(0.01)


class NodeProcess:
    """``python -m cooper_ros.node`` with its output in a file."""

    def __init__(self, log, *arguments):
        self.log = log
        command = [sys.executable, '-m', 'cooper_ros.node', '--ros-args', *arguments]
        environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONUNBUFFERED='1')
        with open(log, 'w') as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def text(self):
        return self.log.read_text()

    @property
    def running(self):
        return self.process.poll() is None

    def stop(self):
        if self.running:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Probe:
    """A ROS node of the test: publishes a camera, collects topics, calls services and the action."""

    def __init__(self, node_name):
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        from cooper_ros.transport import make_room_for_images

        make_room_for_images()
        self.target = node_name
        self.context = rclpy.Context()
        self.context.init()
        self.node = Node('probe', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._clients = {}

    def _spin(self):
        from rclpy.exceptions import InvalidHandle

        while not self._over.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except InvalidHandle:
                continue  # an entity was destroyed while the executor waited for it

    def close(self):
        self._over.set()
        self._thread.join(10)
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def wait(self, future, what, timeout=PATIENCE):
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(timeout), f'no {what} after {timeout:g} s'
        return future.result()

    def send(self, kind, name, request):
        """Call a service of the node; return the future."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f'{self.target}/{name}')
        assert self._clients[name].wait_for_service(PATIENCE), f'{self.target}/{name} is not there'
        return self._clients[name].call_async(request)

    def call(self, kind, name, request, timeout=PATIENCE):
        """Call a service of the node; return the response."""
        return self.wait(self.send(kind, name, request), name, timeout)

    def collect(self, kind, name, latched=False):
        """Subscribe to a topic (of the node, where not absolute); return the list that fills."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        topic = name if name.startswith('/') else f'{self.target}/{name}'
        messages = []
        subscription = self.node.create_subscription(
            kind, topic, messages.append, QoSProfile(depth=10, durability=durability)
        )
        return Collected(messages, lambda: self.node.destroy_subscription(subscription))

    def set_parameters(self, **values):
        """Set parameters (``__`` for a dot); return the results in order."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        named = {name.replace('__', '.'): value for name, value in values.items()}
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in named.items()]
        return self.call(SetParameters, 'set_parameters', SetParameters.Request(parameters=parameters)).results

    def state(self):
        from lifecycle_msgs.srv import GetState

        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def change_state(self, label):
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label = label
        request.transition.id = {'configure': 1, 'cleanup': 2, 'activate': 3, 'deactivate': 4}[label]
        return self.call(ChangeState, 'change_state', request).success


class Collected:
    """Messages of one topic. A context manager that ends the subscription."""

    def __init__(self, messages, end):
        self.messages = messages
        self._end = end

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def next(self, matches=lambda message: True, what='message'):
        """Wait for the next message that matches."""
        self.messages.clear()
        return self.wait(matches, what)

    def wait(self, matches=lambda message: True, what='message'):
        """Return the first message that matches, of those that came or will come."""
        return wait_for(lambda: next((m for m in list(self.messages) if matches(m)), None), what)


class Camera:
    """Publishes a picture at 10 Hz with a new stamp each time, and keeps what it sent by stamp."""

    def __init__(self, probe, picture, info=True, topic='image_raw', namespace=''):
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import CameraInfo, Image

        self._probe = probe
        self.picture = picture
        self.sent = {}
        self.change = None
        self.k = None
        self._images = probe.node.create_publisher(Image, f'{namespace}/{topic}', QoSProfile(depth=1))
        self._infos = probe.node.create_publisher(CameraInfo, f'{namespace}/camera_info', QoSProfile(depth=1))
        self.info = info
        self._timer = probe.node.create_timer(0.1, self._tick)

    def _tick(self):
        from std_msgs.msg import Header

        from cooper_model.types import CameraIntrinsics
        from cooper_ros.conversions import camera_info_message, image_message, stamp_to_ns

        header = Header(stamp=self._probe.node.get_clock().now().to_msg(), frame_id='camera_optical_frame')
        height, width = self.picture.shape[:2]
        image = image_message(self.picture, 'rgb8', header)
        if self.change is not None:
            image = self.change(image)
        if image is None:
            return
        if self.info:
            message = camera_info_message(CameraIntrinsics.from_vertical_fov(55, width, height), header)
            if self.k is not None:
                message.k = self.k
            self._infos.publish(message)
        self.sent[stamp_to_ns(header.stamp)] = self.picture
        self._images.publish(image)

    def stop(self):
        for entity, destroy in (
            (self._timer, self._probe.node.destroy_timer),
            (self._images, self._probe.node.destroy_publisher),
            (self._infos, self._probe.node.destroy_publisher),
        ):
            destroy(entity)


@pytest.fixture(scope='session')
def random_checkpoint(tmp_path_factory):
    """Return a folder with tiny random weights."""
    path = ROOT / 'tests' / 'random_checkpoint.py'
    spec = importlib.util.spec_from_file_location('random_checkpoint', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='session')
def picture():
    """Return a picture of a few flat shapes, ``(HEIGHT, WIDTH, 3)`` uint8."""
    import cv2

    canvas = np.full((HEIGHT, WIDTH, 3), (150, 140, 130), np.uint8)
    canvas[HEIGHT // 2 :] = (110, 80, 60)
    cv2.circle(canvas, (50, 70), 18, (220, 40, 40), -1)
    cv2.rectangle(canvas, (95, 50), (130, 90), (40, 60, 210), -1)
    return canvas


@pytest.fixture(scope='module')
def start_node(tmp_path_factory, random_checkpoint):
    """Return a function that starts a node process under a name of its own, and gives process and probe."""
    if rclpy is None:
        pytest.skip('needs ROS 2')
    started = []

    def start(*parameters, checkpoint=random_checkpoint, name='cooper', namespace='', remap=()):
        arguments = [f'checkpoint:={checkpoint}', *parameters]
        flags = [flag for argument in arguments for flag in ('-p', argument)]
        flags += [flag for rule in remap for flag in ('-r', rule)]
        flags += ['-r', f'__node:={name}'] + (['-r', f'__ns:={namespace}'] if namespace else [])
        process = NodeProcess(tmp_path_factory.mktemp('node') / 'node.log', *flags)
        probe = Probe(f'{namespace}/{name}')
        started.append((process, probe))
        return process, probe

    yield start
    for process, probe in started:
        process.stop()
        probe.close()
        sys.stdout.write(process.text())


@pytest.fixture(scope='module')
def tools():
    """Return what tests of this folder share: wait_for, Camera, sizes."""

    class Tools:
        wait_for = staticmethod(wait_for)
        camera = Camera
        size = (HEIGHT, WIDTH)

    return Tools
