"""What is drafted follows the longest match, and pays where matches hold."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_inference.native.ngram import MatchRate, NgramHistory, SuffixAutomaton, match_size


def _automaton(tokens) -> SuffixAutomaton:
    automaton = SuffixAutomaton()
    for token in tokens:
        automaton.append(token)
    return automaton


def _history(tokens, *, prompt_tokens=0, prior=None) -> NgramHistory:
    history = NgramHistory(prompt_tokens, prior or MatchRate())
    history.read(tokens)
    return history


def _longest_match(tokens: list[int]) -> int:
    """Of the suffixes that occur before, overlaps included."""
    return max(
        (
            length
            for length in range(1, len(tokens))
            for start in range(len(tokens) - length)
            if tokens[start : start + length] == tokens[-length:]
        ),
        default=0,
    )


@given(st.integers(1, 4).flatmap(lambda most: st.lists(st.integers(0, most), max_size=40)))
def test_a_match_is_the_longest_suffix_that_occurred_before(tokens) -> None:
    automaton = SuffixAutomaton()
    for place, token in enumerate(tokens):
        automaton.append(token)
        read = tokens[: place + 1]
        length = automaton.match_length
        assert length == _longest_match(read)
        if length:
            # The match and what followed it are somewhere in the tokens.
            wanted = [*read[-length:], automaton.predicted]
            places = range(len(read) - length)
            assert any(read[start : start + length + 1] == wanted for start in places)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=30), st.integers(1, 12))
def test_a_continuation_has_the_length_asked_for_and_begins_as_predicted(tokens, count) -> None:
    automaton = _automaton(tokens)
    if automaton.match_length:
        assert len(automaton.continuation(count)) == count
        assert automaton.continuation(count)[0] == automaton.predicted
    else:
        assert automaton.continuation(count) == []
        assert automaton.predicted is None


def test_the_proposal_is_what_followed_the_match() -> None:
    quoted = list(range(10, 20))
    assert _automaton([*quoted, 1, 2, *quoted[:4]]).continuation(4) == quoted[4:8]


def test_the_most_recent_of_equal_matches_counts() -> None:
    assert _automaton([7, 8, 1, 7, 8, 2, 9, 7, 8]).continuation(2) == [2, 9]


def test_a_match_that_reaches_the_end_goes_on_with_its_period() -> None:
    assert _automaton([1, 2, 3, 1, 2, 3]).continuation(7) == [1, 2, 3, 1, 2, 3, 1]
    assert _automaton([5, 5]).continuation(3) == [5, 5, 5]


def test_nothing_is_proposed_where_nothing_repeats() -> None:
    history = _history(range(100))
    assert history.match_length == 0
    assert history.continuation(4) == []


def test_longer_matches_are_trusted_more_until_measured() -> None:
    rates = [MatchRate().rate(match_size(length)) for length in (1, 2, 4, 8, 16, 1000)]
    assert all(longer > shorter for shorter, longer in pairwise(rates))
    assert rates[0] < 0.5 < rates[-1] < 1


def test_only_the_output_says_whether_matches_hold() -> None:
    repeated = [1, 2, 3, 4] * 20
    rate = MatchRate()
    _history(repeated, prompt_tokens=len(repeated), prior=rate)
    assert rate.rate(3) == MatchRate().rate(3)
    _history(repeated, prompt_tokens=8, prior=rate)
    assert rate.rate(5) > 0.9 > MatchRate().rate(5)


def test_a_request_differs_from_the_others_by_what_it_has_shown() -> None:
    rate = MatchRate()
    copies = _history([1, 2, 3, 4] * 20, prior=rate)
    # The same match again and again, which never holds.
    strays = _history([part for other in range(9, 40) for part in (1, 2, other)], prior=rate)
    strays.read([1, 2])
    assert strays.match_length == 2
    assert strays.expected_tokens(1)[1] < 1.2
    assert copies.expected_tokens(6)[-1] > 6


@pytest.mark.parametrize("max_length", [1, 6, 16])
def test_expected_tokens_grow_from_one(max_length) -> None:
    expected = _history([1, 2, 3, 1, 2]).expected_tokens(max_length)
    assert len(expected) == max_length + 1
    assert expected[0] == 1.0
    assert all(0 < later - earlier < 1 for earlier, later in pairwise(expected))
