"""Numbers as SIBench scores them: mean relative accuracy, and whole numbers exactly.

Mean relative accuracy is that of VSI-Bench (Yang et al. 2024, Thinking in Space, arXiv 2412.14171): the share of the
thresholds 0.5, 0.55 .. 0.95 for which the relative error is below one minus the threshold. The number that counts is
the last of the answer; it is taken in the unit that the question asks for.
"""

from __future__ import annotations

import math
import re
from functools import partial

from training.benchmarks.items import Row, Score, Scoring, Truth
from training.benchmarks.words import final_text, quantities

TYPES = ('Number', 'Number_Int')
_THOUSANDS = re.compile(r'(?<![\d,])[1-9]\d{0,2}(,\d{3})+(?![\d,])')  # another comma may be a decimal one
STEPS = 10
STEP = 0.05
_ROUNDING = 1e-9  # 1.05 is not below 5 % off 1, whatever its last bit


def read(said: str) -> float | None:
    """Return the last number of an answer, None where there is none."""
    found = quantities(final_text(said))
    return found[-1][0] if found else None


def mean_relative_accuracy(given: float, true: float) -> float:
    """Return the score, 0..1; of a true value of zero, whether ``given`` is zero."""
    if true == 0:
        return float(given == 0)
    error = abs(given - true) / abs(true)
    return sum(error < STEP * step - _ROUNDING for step in range(1, STEPS + 1)) / STEPS


def _claims(row: Row, type_name: str) -> bool:
    return row.get('type') == type_name


def _truth(row: Row) -> Truth:
    try:
        value = float(_THOUSANDS.sub(lambda number: number[0].replace(',', ''), row['answer']))
    except ValueError:
        raise ValueError(f'answer {row["answer"]!r} is no number') from None
    if not math.isfinite(value):
        raise ValueError(f'answer {row["answer"]!r} is not finite')
    return Truth(row['answer'], value=value)


def _relative(said: str, truth: Truth) -> Score:
    value = read(said)
    return Score(0.0) if value is None else Score(mean_relative_accuracy(value, truth.value), f'{value:g}')


def _exact(said: str, truth: Truth) -> Score:
    value = read(said)
    return Score(0.0) if value is None else Score(float(value == truth.value), f'{value:g}')


NUMBER = Scoring('number', partial(_claims, type_name=TYPES[0]), _truth, _relative)
INTEGER = Scoring('integer', partial(_claims, type_name=TYPES[1]), _truth, _exact)
