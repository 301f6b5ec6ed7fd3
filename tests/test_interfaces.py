"""The built interfaces are those of the sources, and keep the promises that every response makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import cooper_msgs.action  # noqa: E402
import cooper_msgs.msg  # noqa: E402
import cooper_msgs.srv  # noqa: E402

FOLDER = Path(__file__).parents[1] / 'cooper_msgs'
SOURCES = sorted(path for kind in ('msg', 'srv', 'action') for path in (FOLDER / kind).iterdir())
PARTS = {'msg': ('',), 'srv': ('Request', 'Response'), 'action': ('Goal', 'Result', 'Feedback')}
REPLIES = [
    cooper_msgs.srv.Query.Response,
    cooper_msgs.srv.GetRelations.Response,
    cooper_msgs.srv.Correct.Response,
    cooper_msgs.action.Ask.Result,
]


def declared_fields(text):
    """Return the field names of one part of an interface file."""
    lines = (line.partition('#')[0].split() for line in text.splitlines())
    return [words[1] for words in lines if words]


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.name)
def test_built_as_written(path):
    kind = path.suffix[1:]
    built = getattr(getattr(cooper_msgs, kind), path.stem)
    parts = re.split(r'^---$', path.read_text(encoding='utf-8'), flags=re.MULTILINE)
    assert len(parts) == len(PARTS[kind])
    for part, text in zip(PARTS[kind], parts, strict=True):
        fields = (getattr(built, part) if part else built).get_fields_and_field_types()
        assert list(fields) == declared_fields(text)


def test_every_source_is_built():
    listed = set(re.findall(r'"(\w+/\w+\.\w+)"', (FOLDER / 'CMakeLists.txt').read_text(encoding='utf-8')))
    assert listed == {path.relative_to(FOLDER).as_posix() for path in SOURCES}


@pytest.mark.parametrize('reply', REPLIES, ids=lambda reply: reply.__name__)
def test_a_reply_says_which_frame_and_whether_it_worked(reply):
    fields = reply.get_fields_and_field_types()
    assert fields['header'] == 'std_msgs/Header'
    assert list(fields.items())[-2:] == [('success', 'boolean'), ('message', 'string')]


def test_the_action_asks_and_answers_like_the_service():
    query, ask = cooper_msgs.srv.Query, cooper_msgs.action.Ask
    assert query.Request.get_fields_and_field_types() == ask.Goal.get_fields_and_field_types()
    assert query.Response.get_fields_and_field_types() == ask.Result.get_fields_and_field_types()


def test_the_message_documents_every_predicate():
    from cooper_model.geometry import PREDICATES

    text = (FOLDER / 'msg/Relation.msg').read_text(encoding='utf-8')
    listed = re.search(r'^string predicate\s+# (.+)$', text, flags=re.MULTILINE)[1]
    assert set(listed.split(', ')) == set(PREDICATES)
