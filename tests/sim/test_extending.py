"""The question type that docs/extending.md adds, added."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np

from cooper_sim import ask_questions
from cooper_sim.questions import MAKERS

PAGE = Path(__file__).parents[2] / 'docs' / 'extending.md'


def test_the_question_of_the_page_is_asked(samples, monkeypatch):
    block = re.search(r'^```python\n(.*?)^```$', PAGE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)[1]
    name = next(node.name for node in ast.parse(block).body if isinstance(node, ast.FunctionDef))
    monkeypatch.setattr('cooper_sim.questions.MAKERS', dict(MAKERS))
    names = {}
    exec(compile(block, PAGE.name, 'exec'), names)
    assert callable(names[name])
    asked = 0
    for sample in samples:
        for question in ask_questions(sample, np.random.default_rng(0), 1, {'fills_most': 1.0}):
            areas = {thing.name: thing.area for thing in sample.visible}
            assert question.category == 'fills_most' and question.answer in question.choices
            assert areas[question.answer] == max(areas.values())
            asked += 1
    assert asked > len(samples) // 2
