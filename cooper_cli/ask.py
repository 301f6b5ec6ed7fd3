"""``cooper ask``: one spatial question, about an image file or of a running node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from cooper_cli import options
from cooper_cli.client import NODE, Namespace, NodeName
from cooper_cli.output import answer_record, note, print_json, relation_line, say
from cooper_model.types import Answer, AnswerReady, Event, ImageReady, ImageRequested, TextDelta


@options.takes_model()
def ask(
    model: options.ModelChoice,
    question: Annotated[str, typer.Argument(help='The question, in quotation marks.')],
    image: Annotated[Optional[Path], typer.Option('--image', help='Image file; without it a node is asked.')] = None,  # noqa: UP045
    mode: options.Mode = 'auto',
    choices: Annotated[str, typer.Option('--choices', help='Possible answers, separated by commas.')] = '',
    fov: options.Fov = None,
    out: Annotated[Optional[Path], typer.Option('--out', help='Folder for the generated images.')] = None,  # noqa: UP045
    stream: Annotated[bool, typer.Option('--stream/--no-stream', help='Show thoughts as they come.')] = True,
    json: options.Json = False,
    seed: options.Seed = 0,
    node: NodeName = NODE,
    namespace: Namespace = '',
    camera: Annotated[str, typer.Option(help='Name of the camera, of a node with several.')] = '',
    timeout: Annotated[float, typer.Option(min=0.1, help='Longest wait for the node and its answer [s].')] = 60.0,
) -> None:
    """Ask a spatial question about an image, or, without --image, of a running node."""
    if not question.strip():
        raise typer.BadParameter('the question is empty; ask, for example, "Which is closer, the mug or the ball?"')
    offered = tuple(choice.strip() for choice in choices.split(',') if choice.strip())
    if image is None:
        own = {'--fov': fov is not None, '--seed': seed != 0}
        named = [*(name for name, is_given in own.items() if is_given), *model.given()]
        if named:
            raise typer.BadParameter(f'{", ".join(named)} belong to --image; a node has its own model and camera')
        from cooper_cli import ask_ros

        asked = {'mode': mode, 'choices': offered, 'out': out, 'stream': stream, 'json': json}
        ask_ros.run(question, **asked, timeout=timeout, node=node, namespace=namespace, camera=camera)
        return
    from cooper_cli.pictures import load_frame, make_folder
    from cooper_cli.session import open_reasoner

    frame = load_frame(image, fov)
    if out is not None:
        make_folder(out)
    reasoner = open_reasoner(model)
    told = Teller(out, speak=note if json else say if stream else None)
    for event in reasoner.ask(frame, question, mode=mode, choices=offered, seed=seed):
        told.hear(event)
    answer = told.answer
    if answer is None:
        raise RuntimeError('the model ended without an answer; this is a fault, please report it')
    if json:
        print_json(answer_record(answer, told.images))
    else:
        say(told.summary(answer))


class Teller:
    """Follows the events of one question: tells them, saves images, keeps the answer.

    :param out: folder that exists, for generated images; None to keep none
    :param speak: takes one line for people; None for silence
    """

    def __init__(self, out: Path | None, speak: Any) -> None:
        self.images: list[dict[str, Any]] = []
        self.answer: Answer | None = None
        self._out, self._speak = out, speak
        self._line = ''

    def hear(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, TextDelta):
            self._line += event.text
            *whole, self._line = self._line.split('\n')
            for line in whole:
                self._tell(line)
            return
        self._flush()
        if isinstance(event, ImageRequested):
            self._tell(f'[{event.modality} ...]')
        elif isinstance(event, ImageReady):
            self._keep(event)
        elif isinstance(event, AnswerReady):
            self.answer = event.answer

    def _keep(self, event: ImageReady) -> None:
        height, width = event.image.color.shape[:2]
        record = {'modality': event.modality, 'turn': event.turn, 'width': width, 'height': height}
        record['seconds'] = event.seconds
        if self._out is not None:
            from cooper_cli.pictures import save_map

            record['path'] = str(save_map(self._out, event.modality, len(self.images), event.image))
        self.images.append(record)
        self._tell(f'[{event.modality} in {event.seconds:.2f} s{" -> " + record["path"] if "path" in record else ""}]')

    def _flush(self) -> None:
        if self._line:
            self._tell(self._line)
            self._line = ''

    def _tell(self, line: str) -> None:
        if self._speak is not None:
            self._speak(line)

    @staticmethod
    def summary(answer: Answer) -> str:
        """Return the answer and what the maps say beside it, for people."""
        lines = [f'Answer: {answer.text}' + (' (forced)' if answer.forced else '')]
        lines.append(f'Confidence: {answer.confidence:.2f}')
        lines += [relation_line(relation) for relation in answer.relations]
        lines.append('Seconds: ' + ', '.join(f'{name} {value:.2f}' for name, value in answer.timings.items()))
        return '\n'.join(lines)
