"""Text to ids and back, over the ``tokenizer.json`` of a checkpoint folder.

The four control tokens never come out of a text: a question that spells one is read as ordinary characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import tokenizers

from cooper_model.config import CooperConfig, SpecialTokens

FILE_NAME = 'tokenizer.json'
CONTROL = {
    'start': '<|im_start|>',
    'end': '<|im_end|>',
    'image_start': '<|vision_start|>',
    'image_end': '<|vision_end|>',
}
"""Text of each control token, by its field in :class:`SpecialTokens`."""

_UNDECIDED = '\ufffd'


class Tokenizer:
    """A fast tokenizer without templates: control tokens are the business of whoever builds a context.

    :param vocabulary: the tokenizer as the ``tokenizers`` library reads it
    :param tokens: the ids that the model takes for control tokens
    :raises ValueError: the vocabulary has other ids for the control tokens
    """

    def __init__(self, vocabulary: tokenizers.Tokenizer, tokens: SpecialTokens) -> None:
        for name, text in CONTROL.items():
            expected, found = getattr(tokens, name), vocabulary.token_to_id(text)
            if found != expected:
                raise ValueError(
                    f'tokenizer: {text} has id {found}, the configuration says {expected}; '
                    'take tokenizer.json and case_config.json from the same checkpoint'
                )
        self._vocabulary = vocabulary
        self._control = frozenset(getattr(tokens, name) for name in CONTROL)
        self._spelled = re.compile('|'.join(re.escape(text) for text in CONTROL.values()))

    @classmethod
    def load(cls, folder: str | Path, tokens: SpecialTokens | None = None) -> Tokenizer:
        """Read the tokenizer of a checkpoint folder.

        :param tokens: default the folder's own configuration
        :raises FileNotFoundError: the folder has no ``tokenizer.json``
        :raises ValueError: the file cannot be read, or its control tokens are not the configuration's
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is missing; copy the tokenizer files of the checkpoint into its folder'
            )
        try:
            vocabulary = tokenizers.Tokenizer.from_str(path.read_text(encoding='utf-8'))
        except Exception as error:  # noqa: BLE001 - the library raises nothing more precise
            raise ValueError(f'{path} is no tokenizer of the tokenizers library: {error}') from error
        return cls(vocabulary, tokens or CooperConfig.load(folder).tokens)

    def __len__(self) -> int:
        return self._vocabulary.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without control tokens."""
        ids: list[int] = []
        start = 0
        for spelled in self._spelled.finditer(text):
            # Cut in two, the spelling of a control token is plain text.
            middle = spelled.start() + 2
            ids += self._encode(text[start:middle])
            start = middle
        return ids + self._encode(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; control tokens and ids outside the vocabulary are left out."""
        shown = [i for i in ids if i not in self._control and self._vocabulary.id_to_token(i) is not None]
        return self._vocabulary.decode(shown, skip_special_tokens=False)

    def stream(self) -> TextStream:
        """Return a decoder for ids that come one by one."""
        return TextStream(self)

    def _encode(self, text: str) -> list[int]:
        return self._vocabulary.encode(text, add_special_tokens=False).ids


class TextStream:
    """Decodes ids one by one and holds back what may be half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown_ids = 0
        self._shown_text = ''

    def push(self, token: int) -> str:
        """Add an id; return the text that is certain now, maybe none."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(_UNDECIDED) or len(text) <= len(self._shown_text):
            return ''
        return self._advance(text)

    def flush(self) -> str:
        """Return what was held back; the text has ended."""
        text = self._tokenizer.decode(self._ids)
        return self._advance(text) if len(text) > len(self._shown_text) else ''

    def _advance(self, text: str) -> str:
        new = text[len(self._shown_text) :]
        # The last shown ids stay as context: some decoders treat the first id of a text differently.
        self._ids = self._ids[self._shown_ids :]
        self._shown_ids = len(self._ids)
        self._shown_text = self._tokenizer.decode(self._ids)
        return new
