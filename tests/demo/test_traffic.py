"""Prompts: of the right length, seeded, and of nothing that was trained on."""

from __future__ import annotations

import pytest

from aurora_common.errors import NotFoundError
from aurora_demo.corpus import DOMAINS
from aurora_demo.traffic import MAX_PROMPT_TOKENS, MIN_PROMPT_TOKENS, fresh_prompts


class Characters:
    """Each character is a token."""

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, tokens):
        return "".join(map(chr, tokens))


MODULES = ["import this\n\n\ndef walk(top):\n    yield from sorted(top)\n" * 20, "x = 1\n" * 60]


def prompts(domain, count=12, *, seed=5, seen=""):
    return fresh_prompts(domain, count, seed=seed, codec=Characters(), held_out=MODULES, seen=seen)


@pytest.mark.parametrize("domain", DOMAINS)
def test_prompts_are_different_seeded_and_of_the_length_asked_for(domain):
    first = prompts(domain)
    assert first == prompts(domain)
    assert first != prompts(domain, seed=6)
    assert len(set(first)) == 12
    assert all(MIN_PROMPT_TOKENS <= len(each) <= MAX_PROMPT_TOKENS for each in first)


def test_a_python_prompt_begins_with_a_line():
    for prompt in prompts("python"):
        assert any(f"\n{prompt}" in f"\n{module}" for module in MODULES)


def test_training_text_is_left_out():
    every = prompts("logs", 40)
    seen = "\n".join(every[::2])
    fresh = prompts("logs", 40, seen=seen)
    assert not any(prompt in seen for prompt in fresh)
    assert fresh[:20] == every[1::2]


def test_too_little_text_is_reported():
    with pytest.raises(NotFoundError, match=r"only \d+ of 400 fresh prompts of domain python"):
        prompts("python", 400)
