"""The time of one camera image through a real node in its own process."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from cooper_cli.answering import camera_frames
from cooper_cli.options import ModelChoice
from cooper_cli.session import node_parameters

FASTEST = 60.0  # largest perception_rate [Hz]: the node takes an image as soon as it comes


def end_to_end(repeats: int, seed: int, model: ModelChoice) -> float:
    """Return the median time [s] from publishing a 640x480 image to having its depth and its mask.

    :raises TimeoutError, ProcessFailed: the node did not start or lost an image; the text ends with its log
    """
    from cooper_ros.latency import image_latencies
    from cooper_ros.processes import RosProcess

    image = camera_frames(1, seed)[0][0].image
    # Reliable, since a lost image has no time.
    parameters = {
        **node_parameters(model), 'perception_rate': FASTEST, 'seed': seed, 'image_reliability': 'reliable'
    }  # fmt: skip
    if model.threads is not None:
        os.environ['OMP_NUM_THREADS'] = str(model.threads)
    # A domain of its own: a robot within reach neither hears nor disturbs the measurement.
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    with tempfile.TemporaryDirectory() as folder:
        node = RosProcess('cooper_ros.node', parameters, Path(folder) / 'node.log')
        with node:
            try:
                # The first image warms the node up.
                return statistics.median(image_latencies(image, repeats + 1, node.require_alive)[1:])
            except TimeoutError as error:
                raise TimeoutError(f'{error}; the log of the node:\n{node.tail()}') from error
