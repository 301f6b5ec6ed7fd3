r"""Lengths as Q-Spatial Bench scores them: right within a factor.

An answer counts where ``max(given / true, true / given)`` is at most 2 (Liao et al. 2024, Reasoning Paths with
Reference Objects Elicit Quantitative Spatial Reasoning, arXiv 2409.09788); factors of 1.5 and 1.25 are reported beside
it. VLMEvalKit asks for less than 2, which differs only on the border. Units are converted. An answer stands in the
benchmark's own ``\scalar{} \distance_unit{}``, or is the last length of the answer, or its last number, which is then
taken in the true answer's unit. Of a range, ``2-3 m``, the middle counts.
"""

from __future__ import annotations

import ast
import math
import re

from training.benchmarks.items import Row, Score, Scoring, Truth
from training.benchmarks.words import final_text, quantities

METRES = {'m': 1.0, 'cm': 0.01, 'mm': 0.001, 'km': 1000.0, 'in': 0.0254, 'ft': 0.3048}
FACTORS = {'delta_2': 2.0, 'delta_1.5': 1.5, 'delta_1.25': 1.25}
_ROUNDING = 1e-9  # 2.8 m is twice 1.4 m, whatever the last bit
_SCALAR = re.compile(r'\\?scalar\{([^{}]*)\}')
_UNIT = re.compile(r'\\?distance_unit\{([^{}]*)\}')
_TUPLE = re.compile(r'\(\s*[\d.]')
_RANGE = re.compile(r'(\d+(?:\.\d+)?)\s*(?:-|–|to|and)\s*(\d+(?:\.\d+)?)')


def read(said: str, unit: str) -> float | None:
    """Return the length that an answer states [m], None where it states none.

    :param unit: of a number that has none
    """
    scalars, units = _SCALAR.findall(said), _UNIT.findall(said)
    text = f'{scalars[-1]} {units[-1]}' if scalars and units else final_text(said)
    text = _RANGE.sub(lambda match: f'{(float(match[1]) + float(match[2])) / 2:g}', text)
    found = quantities(text)
    lengths = [(value, found_unit) for value, found_unit in found if found_unit in METRES]
    if not found:
        return None
    value, found_unit = (lengths or found)[-1]
    return value * METRES[found_unit if lengths else unit]


def within(given: float, true: float, factor: float) -> bool:
    """Return whether two lengths differ by at most a factor; what is not positive never does."""
    if min(given, true) <= 0:
        return False
    return max(given / true, true / given) <= factor * (1 + _ROUNDING)


def _stated(row: Row) -> tuple[str, str]:
    """Return value and unit from columns of their own, or from an answer such as ``(31.5, 'centimeter')``."""
    if row.get('answer_value'):
        return row['answer_value'], row.get('answer_unit', '')
    try:
        value, unit = ast.literal_eval(row['answer'])
    except (ValueError, SyntaxError, TypeError):
        raise ValueError(f'answer {row["answer"]!r} is no length; expected answer_value and answer_unit') from None
    return str(value), str(unit)


def _claims(row: Row) -> bool:
    return bool(row.get('answer_value') and row.get('answer_unit')) or bool(_TUPLE.match(row['answer']))


def _truth(row: Row) -> Truth:
    number, name = _stated(row)
    found = quantities(f'{number} {name}')
    if len(found) != 1 or found[0][1] not in METRES:
        raise ValueError(f'length {number!r} {name!r} is not understood; units are {", ".join(METRES)} and their names')
    value, unit = found[0]
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f'length {value:g} {unit} is not positive')
    return Truth(f'{value:g} {unit}', value=value, unit=unit)


def _score(said: str, truth: Truth) -> Score:
    metres = read(said, truth.unit)
    if metres is None:
        return Score(0.0, figures=dict.fromkeys(FACTORS, 0.0))
    true = truth.value * METRES[truth.unit]
    figures = {name: float(within(metres, true, factor)) for name, factor in FACTORS.items()}
    return Score(figures['delta_2'], f'{metres:g} m', figures)


RATIO = Scoring('ratio', _claims, _truth, _score)
