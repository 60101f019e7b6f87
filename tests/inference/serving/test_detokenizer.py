"""Incremental detokenisation equals decoding at once, however the tokens are split."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from aurora_inference.serving.detokenizer import Detokenizer, StopStrings

from ..conftest import byte_level_tokenizer

_BYTE_LEVEL = byte_level_tokenizer()


def _pieces(tokens: list[int], rng: random.Random) -> list[list[int]]:
    pieces = []
    while tokens:
        size = rng.randint(1, 5)
        pieces.append(tokens[:size])
        tokens = tokens[size:]
    return pieces


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return byte_level_tokenizer()


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    """Like Llama 2's: marked spaces, byte fallback, the first space stripped."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", "a", "b", "▁a", "▁b", "▁ab", "世"]
    tokenizer = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def test_random_bytes_give_the_same_text_in_pieces(byte_level):
    rng = random.Random(0)
    for _ in range(300):
        prompt = byte_level.encode("hello world").ids
        tokens = [rng.randrange(byte_level.get_vocab_size()) for _ in range(40)]
        detokenizer = Detokenizer(byte_level, prompt)
        text = "".join(detokenizer.push(piece) for piece in _pieces(tokens, rng))
        text += detokenizer.flush()
        assert "hello world" + text == byte_level.decode(prompt + tokens)


def test_a_character_is_never_split(byte_level):
    tokens = byte_level.encode("日本🙂").ids
    assert len(tokens) > 3
    detokenizer = Detokenizer(byte_level, [5])
    pieces = [detokenizer.push([token]) for token in tokens]
    assert "".join(pieces) == "日本🙂"
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_incomplete_character_at_the_end_is_replaced(byte_level):
    tokens = byte_level.encode("a🙂").ids[:-1]
    detokenizer = Detokenizer(byte_level, [5])
    assert detokenizer.push(tokens) + detokenizer.flush() == "a\ufffd"


def test_special_tokens_have_no_text(byte_level):
    detokenizer = Detokenizer(byte_level, [5])
    end = byte_level.token_to_id("</s>")
    assert detokenizer.push([*byte_level.encode("hi").ids, end]) == "hi"


def test_the_space_before_the_first_word_is_kept(sentencepiece):
    prompt = [sentencepiece.token_to_id("▁a")]
    detokenizer = Detokenizer(sentencepiece, prompt)
    assert detokenizer.push([sentencepiece.token_to_id("▁ab")]) == " ab"


_TOKENS = st.lists(st.integers(0, 319), max_size=12)
_ENDINGS = st.sampled_from(["", "\ufffd", "ab\ufffd\ufffd", "🙂", "世"])


@given(prompt=_TOKENS, ending=_ENDINGS, cut=st.integers(0, 3), output=_TOKENS, seed=st.integers())
def test_the_text_is_the_generated_one_whatever_the_prompt(prompt, ending, cut, output, seed):
    tokenizer = _BYTE_LEVEL
    tokens = [token % tokenizer.get_vocab_size() for token in output]
    # Cut within a character, or after the prompt's own U+FFFD.
    end = tokenizer.encode(ending).ids
    before = [token % tokenizer.get_vocab_size() for token in prompt] + end[: len(end) - cut]
    detokenizer = Detokenizer(tokenizer, before)
    pieces = [detokenizer.push(piece) for piece in _pieces(tokens, random.Random(seed))]
    assert "".join(pieces) + detokenizer.flush() == tokenizer.decode(tokens)


@pytest.mark.parametrize("prompt", [[2], [1 + 0xF0, 1 + 0x9F], [257, 1 + 0xE4]])
def test_half_a_character_before_a_marked_space(sentencepiece, prompt):
    detokenizer = Detokenizer(sentencepiece, [*prompt, 1 + 0xE4])
    assert detokenizer.push([sentencepiece.token_to_id("▁ab")]) == " ab"


def test_invalid_utf8_does_not_end_the_stream(sentencepiece):
    rng = random.Random(1)
    for _ in range(300):
        detokenizer = Detokenizer(sentencepiece, [260])
        tokens = [rng.randrange(1, 264) for _ in range(30)]
        for piece in _pieces(tokens, rng):
            detokenizer.push(piece)
        detokenizer.flush()
        assert detokenizer.push([sentencepiece.token_to_id("▁a")]).endswith("a")


@given(
    st.lists(st.text("abc", max_size=4), max_size=8),
    st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_stop_strings_cut_where_the_whole_text_would_be_cut(pieces, stops):
    finder = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += finder.push(piece)
        if finder.found:
            break
    text = "".join(pieces)
    places = [text.find(stop) for stop in stops if stop in text]
    assert finder.found == bool(places)
    if not finder.found:
        assert shown + finder.flush() == text
    else:
        # Among the pieces seen so far: a later one may complete an earlier, longer stop.
        assert text.startswith(shown)
        assert any(text.startswith(stop, len(shown)) for stop in stops)


def test_a_possible_beginning_of_a_stop_string_is_held_back():
    finder = StopStrings(["STOP"])
    assert finder.push("say ST") == "say "
    assert finder.push("AR ") == "STAR "
    assert finder.push("STO") == ""
    assert finder.push("P now") == ""
    assert finder.found
