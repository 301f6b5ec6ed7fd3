"""All scorings by name, and which of them a row is for."""

from __future__ import annotations

from training.benchmarks.choice import CHOICE
from training.benchmarks.free_text import FREE_TEXT
from training.benchmarks.items import Row, Scoring
from training.benchmarks.number import INTEGER, NUMBER
from training.benchmarks.ratio import RATIO
from training.benchmarks.yes_no import YES_NO

# The first that claims a row has it, so the most particular come first.
SCORINGS = {scoring.name: scoring for scoring in (NUMBER, INTEGER, RATIO, CHOICE, YES_NO, FREE_TEXT)}


def scoring_of(row: Row) -> Scoring:
    """Return the scoring that a row asks for."""
    return next(scoring for scoring in SCORINGS.values() if scoring.claims(row))
