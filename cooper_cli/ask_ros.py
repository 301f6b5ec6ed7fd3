"""``cooper ask`` without an image: the question goes to a running node."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooper_cli.client import NODE, open_client
from cooper_cli.output import note, object_record, print_json, relation_line, relation_record, say

if TYPE_CHECKING:
    from cooper_ros.client import Feedback, Reply


def run(
    question: str,
    *,
    mode: str = 'auto',
    choices: Sequence[str] = (),
    out: Path | None = None,
    stream: bool = True,
    json: bool = False,
    timeout: float = 60.0,
    node: str = NODE,
    namespace: str = '',
    camera: str = '',
) -> None:
    """Ask a node of this ROS domain by its action and print what it says.

    :param out: folder for the generated images
    :param stream: print thoughts as they come
    :param timeout: longest wait for node and answer together [s]
    :param node, namespace: as of :func:`cooper_cli.client.open_client`
    :param camera: whose frame the question is about, of a node with several; empty = the first
    :raises RuntimeError: there is no node, no reply in time, or the node cannot answer; the text says why
    """
    from cooper_cli.pictures import make_folder
    from cooper_ros.client import Question

    if out is not None:
        make_folder(out)
    teller = _Teller(note if json else say if stream else None)
    with open_client(node, namespace) as client:
        reply = client.ask(Question(question, tuple(choices), mode, camera=camera), timeout, teller.hear)
    teller.flush()
    if not reply.success:
        raise RuntimeError(f'the node could not answer: {reply.message}')
    images = _saved(reply, out)
    if json:
        print_json(_record(reply, mode, images))
        return
    say(f'Answer: {reply.answer}')
    say(f'Confidence: {reply.confidence:.2f}')
    if reply.camera:
        say(f'Camera: {reply.camera}')
    for relation in reply.relations:
        say(relation_line(relation))
    say(f'Seconds: {reply.seconds:.2f}')


class _Teller:
    """Turns feedback into whole lines."""

    def __init__(self, speak: Any) -> None:
        self._speak = speak
        self._line = ''

    def hear(self, feedback: Feedback) -> None:
        if feedback.stage == 'thinking':
            self._line += feedback.text
            *whole, self._line = self._line.split('\n')
            for line in whole:
                self._tell(line)
        elif feedback.stage != 'answer':
            self.flush()
            self._tell(f'[{feedback.stage}{" finished" if feedback.image is not None else " ..."}]')

    def flush(self) -> None:
        if self._line:
            self._tell(self._line)
        self._line = ''

    def _tell(self, line: str) -> None:
        if self._speak is not None:
            self._speak(line)


def _saved(reply: Reply, out: Path | None) -> list[dict[str, Any]]:
    from cooper_cli.pictures import save_array

    images = []
    for modality, pixels in (('depth', reply.depth_color), ('segmentation', reply.segmentation)):
        if pixels is None:
            continue
        record = {'modality': modality, 'width': pixels.shape[1], 'height': pixels.shape[0]}
        if out is not None:
            record['path'] = str(save_array(out / f'{modality}.png', pixels))
        images.append(record)
    return images


def _record(reply: Reply, mode: str, images: list[dict[str, Any]]) -> dict[str, Any]:
    kept = ('answer', 'value', 'unit', 'confidence', 'thoughts', 'query_id', 'camera', 'stamp_ns', 'frame_id')
    record = {field.name: getattr(reply, field.name) for field in dataclasses.fields(reply) if field.name in kept}
    return {
        **record,
        'mode': mode,
        'images': images,
        'relations': [relation_record(relation) for relation in reply.relations],
        'objects': [object_record(item) for item in reply.objects],
        'timings': {'total': reply.seconds},
    }
