"""Answers the requests of other nodes: ~/query, ~/ask, ~/get_relations and ~/enable.

Every failure ends in a response with ``success`` false and a message that says why and what to do; what nobody foresaw
is logged with its traceback as well. Where only metres are missing, the message of a success says why.
"""

from __future__ import annotations

import math
import threading
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from cooper_model.types import DepthMap, Event, Frame
from cooper_msgs.action import Ask
from cooper_msgs.srv import GetRelations, Query
from cooper_ros.cameras import Camera
from cooper_ros.conversions import header_of, stamp_to_ns
from cooper_ros.inference import Question
from cooper_ros.pipeline import EXPECTED, Pipeline
from cooper_ros.placer import Place
from cooper_ros.recording.messages import Asked
from cooper_ros.replies import feedback_of, fill_answer, fill_relations
from cooper_ros.worker import Closed

RESULT_SECONDS = 300


def is_empty(image: Image) -> bool:
    """Whether a request's image was left out, as opposed to being broken."""
    return not (image.width or image.height or image.encoding or len(image.data))


class Requests:
    """The services and the action of a node. They answer in every lifecycle state.

    :param active: whether the node is in its active state
    :param place: says in which frame the geometry of an image stands
    :param tell: takes each question that had a frame, answered or not, and its place
    """

    def __init__(
        self,
        node: LifecycleNode,
        pipeline: Pipeline,
        active: Callable[[], bool],
        place: Callable[[Frame, DepthMap | None], Place],
        tell: Callable[[Asked, Place], None],
    ) -> None:
        self._node = node
        self._pipeline = pipeline
        self._active = active
        self._place = place
        self._tell = tell
        # Requests wait for the worker in their own executor threads; see node.THREADS.
        group = ReentrantCallbackGroup()
        node.create_service(Query, '~/query', self._on_query, callback_group=group)
        node.create_service(GetRelations, '~/get_relations', self._on_get_relations, callback_group=group)
        node.create_service(SetBool, '~/enable', self._on_enable, callback_group=group)
        self._stopping = threading.Event()
        self._action = ActionServer(
            node,
            Ask,
            '~/ask',
            self._on_ask,
            callback_group=group,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            result_timeout=RESULT_SECONDS,
        )

    def stop(self) -> None:
        """End the requests that wait or run, and let the askers know."""
        self._stopping.set()

    def destroy(self) -> None:
        """Remove the action; rclpy removes services with their node."""
        self.stop()
        self._action.destroy()

    def _report(self, what: str, error: Exception) -> str:
        """Log a failure and return what to tell the asker."""
        reason = str(error) or type(error).__name__
        if isinstance(error, EXPECTED):
            self._node.get_logger().warning(f'{what}: {reason}')
            return reason
        trace = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
        self._node.get_logger().error(f'{what} failed: {reason}\n{trace}')
        return f'internal error, see the log of the node: {type(error).__name__}: {reason}'

    def _require_active(self) -> None:
        if not self._active():
            name = self._node.get_fully_qualified_name()
            raise Closed(
                f'{name} is not active; run: ros2 lifecycle set {name} configure, then activate '
                '(if that fails, its log says why)'
            )

    def _frame(self, request: Any, camera: Camera) -> Frame:
        """Return the frame that a request means: its image, else its stamp, else the newest of its camera."""
        if not is_empty(request.image):
            return camera.frames.attach(request.image)
        stamp = stamp_to_ns(request.stamp)
        return camera.frames.at(stamp) if stamp else camera.newest()

    def _answer(
        self, request: Any, message: Any, on_event: Callable[[Event, Question], None], stop: Callable[[], bool]
    ) -> Any:
        """Answer a request into its response; raises what went wrong."""
        message.query_id = uuid.uuid4().hex
        message.value = math.nan
        self._require_active()
        camera = self._pipeline.cameras[request.camera]
        message.camera = camera.name
        frame = self._frame(request, camera)
        message.header = header_of(frame)
        live = is_empty(request.image)
        question = Question(frame, request.question, tuple(request.choices), request.mode, live, camera.name)
        asked = Asked(
            message.query_id, question.text, question.choices, question.mode, frame, live, None, camera=camera.name
        )
        try:
            answer = self._pipeline.ask(question, lambda event: on_event(event, question), stop)
        except Exception as error:
            self._tell_others(replace(asked, problem=str(error) or type(error).__name__), self._place(frame, None))
            raise
        place = self._place(frame, answer.depth)
        self._tell_others(replace(asked, answer=answer), place)
        if live:
            message.message = _warning(frame, camera)
        fill_answer(message, answer, frame, place)  # last, because it says that all went well
        return message

    def _tell_others(self, asked: Asked, place: Place) -> None:
        try:
            self._tell(asked, place)
        except Exception as error:  # noqa: BLE001 - logged; whoever asked gets the answer all the same
            self._report('telling of a question', error)

    def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        try:
            self._answer(request, response, lambda *_: None, self._stopping.is_set)
        except Exception as error:  # noqa: BLE001 - told to the asker and logged
            response.message = self._report('query', error)
        return response

    def _on_goal(self, request: Ask.Goal) -> GoalResponse:
        try:
            self._require_active()
        except Closed as error:
            self._node.get_logger().warning(f'ask: goal rejected: {error}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_ask(self, goal: ServerGoalHandle) -> Ask.Result:
        result = Ask.Result()

        def tell(event: Event, question: Question) -> None:
            feedback = feedback_of(event, question)
            if feedback is not None:
                goal.publish_feedback(feedback)

        try:
            self._answer(goal.request, result, tell, lambda: self._stopping.is_set() or goal.is_cancel_requested)
            goal.succeed()
        except Exception as error:  # noqa: BLE001 - told to the asker and logged
            result.message = self._report('ask', error)
            if goal.is_cancel_requested:
                goal.canceled()
            else:
                goal.abort()
        return result

    def _on_get_relations(
        self, request: GetRelations.Request, response: GetRelations.Response
    ) -> GetRelations.Response:
        try:
            self._require_active()
            camera = self._pipeline.cameras[request.camera]
            response.camera = camera.name
            perceived = self._pipeline.perceived(camera, self._stopping.is_set)
            response.message = _warning(perceived.frame, camera)
            fill_relations(response, request, perceived, self._place(perceived.frame, perceived.depth))
        except Exception as error:  # noqa: BLE001 - told to the asker and logged
            response.message = self._report('get_relations', error)
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._pipeline.enabled = request.data
        response.success = True
        state = 'runs' if request.data else 'stopped; questions are still answered'
        response.message = f'continuous perception {state}'
        return response


def _warning(frame: Frame, camera: Camera) -> str:
    """Return why there are no metres in a camera's frame, or an empty text."""
    return camera.frames.companions.warning if frame.intrinsics is None else ''
