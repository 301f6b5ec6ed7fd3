"""The node ``cooper``: images of one or several cameras in, depth, segmentation, relations and answers out.

Threads: the executor's answer requests and store images; one worker owns the model. A request waits for the worker in
an executor thread, and the worker takes at most ``pipeline.CAPACITY`` requests, so threads remain for all the rest.
"""

from __future__ import annotations

import traceback
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from cooper_model.types import DepthMap, Frame
from cooper_ros.cameras import Cameras
from cooper_ros.conversions import header_of
from cooper_ros.diagnostics import Diagnostics
from cooper_ros.parameters import Parameters
from cooper_ros.pipeline import CAPACITY, EXPECTED, Pipeline
from cooper_ros.placer import Place, Placer
from cooper_ros.recording.messages import Asked, topic_names
from cooper_ros.recording.other_topics import OtherTopics
from cooper_ros.recording.recorder import Recorder
from cooper_ros.recording.service import CorrectService
from cooper_ros.requests import Requests
from cooper_ros.serving import run

THREADS = CAPACITY + 6
_THROTTLE_SECONDS = 5.0


class CooperNode(LifecycleNode):
    """The lifecycle node. *Configure* loads the model, *activate* subscribes to the cameras."""

    def __init__(self, **options: Any) -> None:
        # rclpy destroys the node also when its construction fails, so what that needs comes first.
        self._placer: Placer | None = None
        self._requests: Requests | None = None
        self._pipeline: Pipeline | None = None
        self._recorder: Recorder | None = None
        self._active = False
        super().__init__('cooper', **options)
        self._settings = Parameters(self)
        self._cameras = Cameras(self, self._settings)
        self._pipeline = Pipeline(self._cameras, self._settings, self._on_perception_error)
        self._recorder = Recorder(partial(topic_names, self.resolve_topic_name), self._settings, self._cameras)
        self._others = OtherTopics(self, self._recorder, self._settings)
        self._requests = Requests(self, self._pipeline, lambda: self._active, self._place, self._tell)
        self._corrections = CorrectService(self, self._recorder)
        self._diagnostics = Diagnostics(
            self,
            self._settings,
            self._pipeline,
            lambda: self._active,
            lambda: self._recorder.state,
            lambda: self._placer.problem if self._placer else '',
        )
        if self._settings['autostart']:
            # A steady clock: simulated time may not have begun.
            group, clock = MutuallyExclusiveCallbackGroup(), Clock(clock_type=ClockType.STEADY_TIME)
            self._autostart = self.create_timer(0.01, self._start, callback_group=group, clock=clock)

    def _start(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics."""
        try:
            self._pipeline.start()
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it; the node stays unconfigured
            self._diagnostics.problem = f'the model could not be loaded: {error}'
            expected = isinstance(error, (OSError, ValueError))
            self.get_logger().error(self._diagnostics.problem + ('' if expected else f'\n{traceback.format_exc()}'))
            return TransitionCallbackReturn.FAILURE
        self._diagnostics.problem = ''
        self._placer = Placer(self, self._settings['target_frame'])
        self._cameras.offer(self._placer)
        self._settings.configured = True
        self.get_logger().info('the model is loaded')
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras."""
        self._cameras.subscribe(self._pipeline.image_arrived)
        self._active = True
        topics = ', '.join(camera.frames.image_topic for camera in self._cameras)
        self.get_logger().info(f'active: waits for images on {topics}')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the cameras alone."""
        self._unsubscribe()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything."""
        self._unsubscribe()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, from where the node can be configured again."""
        self.get_logger().error('a transition failed; the node is unconfigured now')
        self._unsubscribe()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _unsubscribe(self) -> None:
        self._active = False
        self._cameras.unsubscribe()

    def _release(self) -> None:
        self._pipeline.stop()
        if self._placer is not None:
            # Before the publishers that it hands places to.
            self._placer.destroy()
            self._placer = None
        self._cameras.withdraw()
        self._settings.configured = False

    def close(self) -> None:
        """End what runs: requests that wait, then the model."""
        self._active = False
        if self._requests is not None:
            self._requests.stop()
            self._pipeline.stop()
        if self._recorder is not None:
            self._recorder.close()

    def destroy_node(self) -> None:
        """End the worker before the publishers that it uses go."""
        if self._requests is not None:
            self.close()
            self._requests.destroy()
            self._requests = None
            self._unsubscribe()
            self._release()
        super().destroy_node()

    # Between questions, recorder and cameras

    def _place(self, frame: Frame, depth: DepthMap | None) -> Place:
        placer = self._placer
        return Place(header_of(frame)) if placer is None else placer.place(frame, depth)

    def _tell(self, asked: Asked, place: Place) -> None:
        self._recorder.add_question(asked)
        self._cameras[asked.camera].show(asked, place)

    def _on_perception_error(self, error: Exception) -> None:
        text = f'perception: {error}'
        if not isinstance(error, EXPECTED):
            text += '\n' + ''.join(traceback.format_exception(type(error), error, error.__traceback__))
        self.get_logger().error(text, throttle_duration_sec=_THROTTLE_SECONDS)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    run(CooperNode, CooperNode.close, 'cooper', THREADS, ParameterException, args)


if __name__ == '__main__':
    main()
