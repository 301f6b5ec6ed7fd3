"""The service ``~/correct``: a person's right answer for a question that this node recorded."""

from __future__ import annotations

import time

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_msgs.msg import Header

from cooper_msgs.msg import Correction as CorrectionMessage
from cooper_msgs.srv import Correct
from cooper_ros.conversions import stamp_from_ns
from cooper_ros.encodings import ConversionError, colour_from_image
from cooper_ros.recording.corrections import Correction, CorrectionError, CorrectionStore
from cooper_ros.recording.recorder import Place, Recorder

_WAIT_SECONDS = 2.0


class CorrectService:
    """Keeps corrections beside the bag that holds the question, and in the bag that is open."""

    def __init__(self, node: Node, recorder: Recorder) -> None:
        self._node = node
        self._recorder = recorder
        node.create_service(
            Correct, '~/correct', self._on_correct, callback_group=MutuallyExclusiveCallbackGroup()
        )

    def _on_correct(self, request: Correct.Request, response: Correct.Response) -> Correct.Response:
        try:
            correction = _correction(request)
            correction.check()
            place = self._place(correction.query_id)
            response.header = Header(stamp=stamp_from_ns(place.stamp_ns), frame_id=place.frame_id)
            correction.check(place.size)
            if CorrectionStore(place.bag).add(correction):
                self._recorder.add_correction(_message(request, response.header, correction.stamp_ns))
            else:
                response.message = 'nothing new: the same was said before'
            response.success = True
        except (CorrectionError, ConversionError, OSError) as error:
            response.message = str(error)
            self._node.get_logger().warning(f'correct: {error}')
        return response

    def _place(self, query_id: str) -> Place:
        """Return where a question is recorded, waiting for one that is just being written."""
        end = time.monotonic() + _WAIT_SECONDS
        while (place := self._recorder.place(query_id)) is not None:
            if place.bag is not None:
                return place
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        state = self._recorder.state
        if not state.folder or state.problem:
            why = state.problem or 'the parameter record is empty'
            raise CorrectionError(f'question {query_id!r} is not recorded ({why}); run: cooper record FOLDER')
        raise CorrectionError(
            f'question {query_id!r} is not among those that this node has recorded since it started; '
            'correct older ones with: cooper correct BAG'
        )


def _correction(request: Correct.Request) -> Correction:
    mask = None
    if request.mask.width or request.mask.height or len(request.mask.data):
        mask = colour_from_image(request.mask).max(axis=2) > 0
    return Correction(
        query_id=request.query_id,
        answer=request.answer.strip(),
        note=request.note.strip(),
        useless=request.useless or None,
        object=request.object.strip(),
        mask=mask,
        stamp_ns=time.time_ns(),
    )


def _message(request: Correct.Request, header: Header, stamp_ns: int) -> CorrectionMessage:
    message = CorrectionMessage(header=header, stamp=stamp_from_ns(stamp_ns))
    for name in ('query_id', 'answer', 'note', 'useless', 'object', 'mask'):
        setattr(message, name, getattr(request, name))
    return message
