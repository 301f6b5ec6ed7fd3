"""What was read of a data set and what was left out, with the place and the reason: nothing is dropped in silence."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

log = logging.getLogger(__name__)
Reason = Literal['broken line', 'missing file', 'unreadable image', 'sizes differ', 'too long', 'nothing valid',
                 'no usable truth']  # fmt: skip
SHOWN = 20
"""How many examples left out for one reason are logged one by one; all are kept."""


class LeftOut(Exception):
    """One example cannot be used; reading goes on with the next."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f'{reason}: {detail}')
        self.reason, self.detail = reason, detail


@dataclass
class ReadReport:
    """Counts of one data set; ``left_out`` names each example as ``file:line: detail``."""

    name: str
    used: int = 0
    left_out: dict[Reason, list[str]] = field(default_factory=dict)

    def leave_out(self, place: str, error: LeftOut) -> None:
        """Note that the example at ``place`` is not used; once, however often it is met."""
        named = self.left_out.setdefault(error.reason, [])
        text = f'{place}: {error.detail}'
        if text in named:
            return
        named.append(text)
        if len(named) <= SHOWN:
            log.warning('%s left out (%s): %s', place, error.reason, error.detail)
        if len(named) == SHOWN:
            log.warning('%s: further ones of this reason are only counted', self.name)

    def summary(self) -> str:
        """Return one line: how many are used, how many are left out, and why."""
        counts = ', '.join(f'{len(named)} {reason}' for reason, named in self.left_out.items())
        total = sum(len(named) for named in self.left_out.values())
        return f'{self.name}: {self.used} used, {total} left out' + (f' ({counts})' if counts else '')
