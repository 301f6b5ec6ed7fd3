"""Every word put in front of the model: system prompts, requests for images, reflection, the question.

The words belong to a checkpoint, which was trained on them, and stand in its ``prompts.json``. What that file
leaves out has this project's own wording, except the two requests: those of the published checkpoints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cooper_model.types import Modality, Mode

FILE_NAME = 'prompts.json'

_GIVE_ANSWER = r'Put the short answer inside <answer>\boxed{}</answer>.'


@dataclass(frozen=True)
class Prompts:
    r"""The texts of one checkpoint; an empty system prompt means that the mode has none.

    :param system_direct, system_text, system_perception, system_cooper: system prompt of each mode
    :param request_depth, request_segmentation: what asks for an image where a mode asks, not the model
    :param reflection: user message after each image generated in the COOPER mode
    :param forced_answer: beginning of the model's text where an answer is forced. Published weights saw
        ``<answer>``; giving ``\boxed{`` as well leaves a small model no way round the short answer
    """

    system_direct: str = ''
    system_text: str = (
        'Look at the image and answer the question. Reason step by step inside <think></think>, then answer. '
        + _GIVE_ANSWER
    )
    system_perception: str = (
        'You are given an image, a depth map of it and a segmentation of it. Answer the question about the '
        'image from all three. ' + _GIVE_ANSWER
    )
    system_cooper: str = (
        'Answer a question about an image. In every turn reason inside <think></think>, then do one thing: '
        'ask for a depth map with <depth-estimation></depth-estimation> where distance or order in depth is '
        'unclear, ask for a segmentation with <segmentation></segmentation> where objects must be told '
        'apart, located or counted, or answer. The map is shown to you in the next turn. ' + _GIVE_ANSWER
    )
    request_depth: str = (
        '<depth-estimation>Estimate the depth of the image and generate the depth map.</depth-estimation>'
    )
    request_segmentation: str = (
        '<segmentation>Segment the objects in the image with different colors.</segmentation>'
    )
    reflection: str = (
        'This is the map that you asked for. Say inside <think></think> what it shows, then ask for the '
        'other map if it is needed, or answer.'
    )
    forced_answer: str = r'<answer>\boxed{'

    def system(self, mode: Mode) -> str:
        """Return the system prompt of ``mode`` (``auto`` is COOPER's own choice)."""
        return {
            'direct': self.system_direct,
            'text': self.system_text,
            'perception': self.system_perception,
            'auto': self.system_cooper,
        }[mode]

    def request(self, modality: Modality) -> str:
        """Return the text that asks for an image of ``modality``."""
        return {'depth': self.request_depth, 'segmentation': self.request_segmentation}[modality]

    @classmethod
    def load(cls, folder: str | Path) -> Prompts:
        """Read ``prompts.json`` of a checkpoint folder; without that file return the defaults.

        :raises ValueError: the file is not a JSON object of known keys with texts
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            return cls()
        try:
            words = json.loads(path.read_text(encoding='utf-8'))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path} is not valid JSON in UTF-8: {error}') from error
        if not isinstance(words, dict):
            raise ValueError(f'{path} holds {type(words).__name__}, expected a JSON object of texts')
        for key, text in words.items():
            if key not in _KEYS:
                raise ValueError(f'{path}: unknown key {key!r}, expected one of {sorted(_KEYS)}')
            if not isinstance(text, str):
                raise ValueError(f'{path}: {key} is {type(text).__name__}, expected a text')
        return cls(**{_KEYS[key]: text for key, text in words.items()})

    def save(self, folder: str | Path) -> None:
        """Write ``prompts.json`` into an existing folder."""
        words = {key: getattr(self, name) for key, name in _KEYS.items()}
        text = json.dumps(words, indent=2, ensure_ascii=False) + '\n'
        (Path(folder) / FILE_NAME).write_text(text, encoding='utf-8')


def _key(name: str) -> str:
    group, _, rest = name.partition('_')
    return f'{group}.{rest}' if group in ('system', 'request') else name


_KEYS = {_key(field.name): field.name for field in fields(Prompts)}


def choice_letter(index: int) -> str:
    """Return the letter of a choice: A for 0.

    :raises ValueError: there are no more than 26 letters
    """
    if not 0 <= index < 26:
        raise ValueError(f'choice {index + 1} has no letter; offer at most 26 choices')
    return chr(ord('A') + index)


def question_text(question: str, choices: Sequence[str] = ()) -> str:
    """Return the user's text: the question, then one line a choice (``A. left``).

    Choices that the question names itself are not listed, nor are yes and no.

    :raises ValueError: the question or a choice is empty, or there are more than 26 choices
    """
    question = question.strip()
    if not question:
        raise ValueError('the question is empty; ask something about the image')
    for index, choice in enumerate(choices):
        if not choice.strip():
            raise ValueError(f'choice {index + 1} of {len(choices)} is empty; leave it out or name it')
    if choices:
        choice_letter(len(choices) - 1)
    if all(_names(question, choice) for choice in choices) or {c.casefold() for c in choices} == {
        'yes',
        'no',
    }:
        return question
    listed = [f'{choice_letter(index)}. {choice.strip()}' for index, choice in enumerate(choices)]
    return '\n'.join([question, *listed])


def _names(question: str, choice: str) -> bool:
    words = re.escape(choice.strip())
    return re.search(rf'(?<!\w){words}(?!\w)', question, re.IGNORECASE) is not None
