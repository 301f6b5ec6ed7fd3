"""The tokenizer: texts come back, streams agree with whole texts, control tokens stay out of reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooper_model.config import SpecialTokens
from cooper_model.tokenizer import CONTROL, Tokenizer
from tests.random_checkpoint import TAGS, tiny_config, tiny_tokenizer

TOKENS = tiny_config().tokens
TOKENIZER = Tokenizer(tiny_tokenizer(), TOKENS)


@given(st.text())
def test_any_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.sampled_from([*CONTROL.values(), *TAGS, 'a', ' ', '<', '|>', 'im_end'])).map(''.join))
def test_a_text_never_becomes_a_control_token(text):
    ids = TOKENIZER.encode(text)
    assert not {0, 1, 2, 3} & set(ids)
    assert TOKENIZER.decode(ids) == text


@given(st.lists(st.integers(0, len(TOKENIZER) + 5)))
def test_a_stream_gives_the_whole_text(ids):
    stream = TOKENIZER.stream()
    assert ''.join([*map(stream.push, ids), stream.flush()]) == TOKENIZER.decode(ids)


@given(st.text(alphabet='aé€😀 ', min_size=1))
def test_a_stream_never_shows_half_a_character(text):
    stream = TOKENIZER.stream()
    shown = [stream.push(i) for i in TOKENIZER.encode(text)]
    assert not any('\ufffd' in part for part in shown)
    assert ''.join(shown) == text


def test_tags_are_single_tokens_and_are_shown():
    for tag in TAGS:
        (token,) = TOKENIZER.encode(tag)
        assert TOKENIZER.decode([TOKENS.start, token, TOKENS.end, len(TOKENIZER) + 7]) == tag


def test_other_control_ids_are_refused():
    with pytest.raises(ValueError, match=r'<\|im_start\|> has id 0, the configuration says 9'):
        Tokenizer(tiny_tokenizer(), SpecialTokens(9, 1, 2, 3))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='tokenizer.json is missing'):
        Tokenizer.load(tmp_path, TOKENS)
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match='tokenizer.json is no tokenizer'):
        Tokenizer.load(tmp_path, TOKENS)
