"""What a request's own tokens say about the next ones: they go on as they did before.

Drafting by n-grams, also called prompt lookup, needs no model and no training. It pays where the
output repeats its prompt or itself: code edits, summaries with quotes, extraction.
"""

from __future__ import annotations

from collections.abc import Iterable

# Of the states above the longest match, how many learn where they occurred last.
_REFRESHED = 4
_MEMORY = 0.98
_PRIOR_WEIGHT = 4.0
_MAX_SIZE = 6


class SuffixAutomaton:
    """Knows the longest suffix of its tokens that occurred in them before.

    Built one token at a time, each in amortised constant time (Blumer et al.: "The smallest
    automaton recognizing the subwords of a text", 1985). A state stands for the strings that end
    at the same places; its link leads to the longest suffix of them that ends at more places. So
    the link of the whole text is its longest suffix that has occurred before.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        # Of the longest suffix that occurred before: how many tokens, and where they ended.
        self.match_length = 0
        self._match_end = -1
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        # Where a state's strings ended last, as far as is known: always somewhere they did.
        self._end = [-1]
        self._last = 0

    @property
    def predicted(self) -> int | None:
        """The token that followed the match; None without one."""
        return self.tokens[self._match_end + 1] if self.match_length else None

    def continuation(self, count: int) -> list[int]:
        """The `count` tokens that followed the match; none without one.

        A match that reaches up to the end goes on with what it has just continued with, so that a
        text of period n is continued with period n.
        """
        if not self.match_length:
            return []
        start = self._match_end + 1
        found = self.tokens[start : start + count]
        period = len(found)
        while len(found) < count:
            found.append(found[-period])
        return found

    def append(self, token: int) -> None:
        place = len(self.tokens)
        self.tokens.append(token)
        following, link, length = self._next, self._link, self._length
        new = self._add({}, -1, length[self._last] + 1, place)
        state = self._last
        while state >= 0 and token not in following[state]:
            following[state][token] = new
            state = link[state]
        self._last = new
        if state < 0:
            link[new] = 0
        else:
            found = following[state][token]
            if length[found] != length[state] + 1:
                found = self._split(found, state, token)
            link[new] = found
        self._remember(link[new], place)

    def _split(self, found: int, state: int, token: int) -> int:
        """The state of the shorter strings of `found`, which end at the new place too."""
        following, link = self._next, self._link
        shorter = self._add(
            dict(following[found]), link[found], self._length[state] + 1, self._end[found]
        )
        link[found] = shorter
        while state >= 0 and following[state].get(token) == found:
            following[state][token] = shorter
            state = link[state]
        return shorter

    def _add(self, following: dict[int, int], link: int, length: int, end: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        self._end.append(end)
        return len(self._link) - 1

    def _remember(self, match: int, place: int) -> None:
        """Keeps the match's earlier end, then that it ended here too."""
        self.match_length = self._length[match]
        self._match_end = self._end[match]
        for _ in range(_REFRESHED):
            if match <= 0:
                break
            self._end[match] = place
            match = self._link[match]


class MatchRate:
    """How often the token after a match is the one that followed it before.

    By the match's *size*, the bits of its length, at most 6. Measured on every token of an output,
    drafted or not; until then the rate is that of `prior`, and without one b ÷ (b + 2).
    """

    def __init__(self, prior: MatchRate | None = None) -> None:
        self._prior = prior
        self._tried = [0.0] * (_MAX_SIZE + 1)
        self._hits = [0.0] * (_MAX_SIZE + 1)

    def observe(self, size: int, *, hit: bool) -> None:
        self._tried[size] = self._tried[size] * _MEMORY + 1.0
        self._hits[size] = self._hits[size] * _MEMORY + hit
        if self._prior is not None:
            self._prior.observe(size, hit=hit)

    def rate(self, size: int) -> float:
        prior = size / (size + 2) if self._prior is None else self._prior.rate(size)
        return (self._hits[size] + _PRIOR_WEIGHT * prior) / (self._tried[size] + _PRIOR_WEIGHT)


def match_size(length: int) -> int:
    return min(length.bit_length(), _MAX_SIZE)


class NgramHistory:
    """The tokens of one request, of which those after the prompt are the target's own."""

    def __init__(self, prompt_tokens: int, prior: MatchRate) -> None:
        """`prior`: that of all requests, which learns from this one."""
        self._prompt_tokens = prompt_tokens
        self._automaton = SuffixAutomaton()
        self._rate = MatchRate(prior)

    def __len__(self) -> int:
        return len(self._automaton.tokens)

    @property
    def match_length(self) -> int:
        """Of the longest suffix that occurred before; 0: none."""
        return self._automaton.match_length

    def read(self, tokens: Iterable[int]) -> None:
        """Appends tokens, and learns from those of the output whether their match had held."""
        automaton = self._automaton
        for token in tokens:
            if automaton.match_length and len(automaton.tokens) >= self._prompt_tokens:
                hit = automaton.predicted == token
                self._rate.observe(match_size(automaton.match_length), hit=hit)
            automaton.append(token)

    def continuation(self, count: int) -> list[int]:
        """The proposal: `count` tokens, or none if nothing matches."""
        return self._automaton.continuation(count)

    def expected_tokens(self, max_length: int) -> list[float]:
        """Expected tokens of a step that drafts 0, 1, … max_length tokens, given a match.

        A match of m tokens whose next token is right is one of m + 1 tokens.
        """
        expected, survival, size, rate = [1.0], 1.0, 0, 0.0
        for length in range(self.match_length, self.match_length + max_length):
            if match_size(length) != size:
                size = match_size(length)
                rate = self._rate.rate(size)
            survival *= rate
            expected.append(expected[-1] + survival)
        return expected
