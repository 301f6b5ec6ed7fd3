"""Texts as segments of a training sequence."""

from __future__ import annotations

from collections.abc import Sequence

from cooper_model.config import SpecialTokens
from cooper_model.packing import IGNORE, Segment


def user_text(ids: Sequence[int], sees: tuple[int, ...], tokens: SpecialTokens) -> Segment:
    """Return a text that the model reads."""
    return Segment('text', sees, (tokens.start, *ids, tokens.end))


def model_text(
    ids: Sequence[int], sees: tuple[int, ...], tokens: SpecialTokens, given: int = 0, ended: bool = True
) -> Segment:
    """Return a text that the model writes: each place predicts the next token, the last of them the end.

    :param given: how many leading ids are forced on the model and carry no loss
    :param ended: whether the end carries loss too
    """
    labels = [*ids, tokens.end if ended else IGNORE, IGNORE]
    labels[:given] = [IGNORE] * given
    return Segment('text', sees, (tokens.start, *ids, tokens.end), tuple(labels))
