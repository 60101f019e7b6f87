"""How many tokens to draft: the length, possibly 0, that gives the most tokens per second.

The expected goodput of drafting k tokens is (1 + Σ_{i≤k} Π_{j≤i} a_j) / c(k): a_j the measured
acceptance rate at position j, c(k) the measured time of a step at the current batch size (after
"SmartSpec", Liu et al. 2024, arXiv 2406.14066, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence

from aurora_inference.native.ngram import MatchRate

# A new draft gets the benefit of the doubt.
_PRIOR_ACCEPTANCE = 0.7
_PRIOR_WEIGHT = 4.0
_ACCEPTANCE_MEMORY = 0.98
_COST_MEMORY = 0.95
_COST_MEMORY_OF_A_SHORTER_STEP = 0.5
# A step this many times as long as expected reflects a stall of the machine, not the length.
_OUTLIER = 4.0
# One step in every period probes a length this far from the best estimate.
_PROBE_PERIOD = 48
_PROBE_DISTANCE = 2
# As a fraction of a plain step, until measured.
_PRIOR_COST_OF_A_TOKEN = 0.15
# Where the length is fixed, n-grams are drafted if the first is more likely right than wrong.
_LEAST_EXPECTED_TOKENS = 1.5


class AcceptanceEstimate:
    """The acceptance rate at each position of a draft, given that all before it were accepted."""

    def __init__(self, max_length: int) -> None:
        self._tried = [0.0] * max_length
        self._accepted = [0.0] * max_length

    def observe(self, drafted: int, accepted: int) -> None:
        for position in range(min(accepted + 1, drafted)):
            self._tried[position] = self._tried[position] * _ACCEPTANCE_MEMORY + 1
            hit = 1.0 if position < accepted else 0.0
            self._accepted[position] = self._accepted[position] * _ACCEPTANCE_MEMORY + hit

    def expected_tokens(self) -> list[float]:
        """Expected tokens of a step that drafts 0, 1, … max_length tokens."""
        expected, survival, rate = [1.0], 1.0, _PRIOR_ACCEPTANCE
        for tried, accepted in zip(self._tried, self._accepted, strict=True):
            # A position never reached inherits the rate of the one before it.
            rate = (accepted + _PRIOR_WEIGHT * rate) / (tried + _PRIOR_WEIGHT)
            survival *= rate
            expected.append(expected[-1] + survival)
        return expected


class StepCost:
    """Seconds per decode step, by batch size and number of drafted tokens."""

    def __init__(self) -> None:
        self._measured: dict[tuple[int, int], float] = {}

    def observe(self, batch_size: int, length: int, seconds: float) -> None:
        key = (batch_size, length)
        self._measured[key] = _moved(self._measured.get(key), seconds)

    def seconds(self, batch_size: int, length: int) -> float:
        """Seconds of a step: measured, or estimated from the nearest measurements.

        Before any measurement a plain step counts as one second: only ratios matter.
        """
        known = self._measured.get((batch_size, length))
        if known is not None:
            return known
        plain = self._plain_seconds(batch_size)
        return plain * (1.0 + self._relative_cost_of_a_token(batch_size, length) * length)

    def _plain_seconds(self, batch_size: int) -> float:
        sizes = [size for size, length in self._measured if length == 0]
        if sizes:
            return self._measured[_nearest(sizes, batch_size), 0]
        drafting = min(self._measured, key=lambda key: abs(key[0] - batch_size), default=None)
        if drafting is None:
            return 1.0
        return self._measured[drafting] / (1.0 + _PRIOR_COST_OF_A_TOKEN * drafting[1])

    def _relative_cost_of_a_token(self, batch_size: int, length: int) -> float:
        """What one drafted token adds to a step, as a fraction of a plain step of that batch."""
        comparable = [key for key in self._measured if key[1] > 0 and (key[0], 0) in self._measured]
        if not comparable:
            return _PRIOR_COST_OF_A_TOKEN
        size, drafted = min(
            comparable, key=lambda key: (abs(key[0] - batch_size), abs(key[1] - length))
        )
        ratio = self._measured[size, drafted] / self._measured[size, 0]
        return max(0.0, ratio - 1.0) / drafted


def _nearest(sizes: Sequence[int], size: int) -> int:
    return min(sizes, key=lambda each: abs(each - size))


def _moved(average: float | None, value: float) -> float:
    if average is None:
        return value
    if value > _OUTLIER * average:
        return average
    # Interference only lengthens a step, so a shorter one carries more information.
    memory = _COST_MEMORY if value > average else _COST_MEMORY_OF_A_SHORTER_STEP
    return memory * average + (1 - memory) * value


class LengthController:
    """Chooses the speculation length of each step.

    `match_rate` is that of all requests for which n-grams are drafted.
    """

    def __init__(self, max_length: int, *, adaptive: bool) -> None:
        self.max_length = max_length
        self.match_rate = MatchRate()
        self._cost = StepCost()
        # Of steps in which only n-grams are drafted, which takes no time.
        self._ngram_cost = StepCost()
        self._adaptive = adaptive
        self._acceptance: dict[str, AcceptanceEstimate] = {}
        self._steps = 0

    def observe_acceptance(self, digest: str, drafted: int, accepted: int) -> None:
        if drafted:
            self._estimate(digest).observe(drafted, accepted)

    def observe_cost(self, batch_size: int, length: int, seconds: float, *, ngram: bool) -> None:
        """What a step took; `ngram`: only n-grams were drafted."""
        if ngram or length == 0:
            self._ngram_cost.observe(batch_size, length, seconds)
        if not ngram or length == 0:
            self._cost.observe(batch_size, length, seconds)

    def choose(
        self,
        digests: Sequence[str | None],
        matches: Sequence[Sequence[float]] = (),
        *,
        minimum: int,
    ) -> int:
        """The length for a batch, given the draft digest of each row or None without a draft.

        matches: of each row without a draft for which n-grams can be drafted, the expected tokens
        of a step that drafts 0, 1, … max_length of them. minimum: lower bound if a draft drafts,
        for evidence that must not depend on this controller's estimates.
        """
        drafting = [digest for digest in digests if digest is not None]
        if not (drafting or matches) or self.max_length == 0:
            return 0
        if not self._adaptive:
            likely = any(expected[1] >= _LEAST_EXPECTED_TOKENS for expected in matches)
            return self.max_length if drafting or likely else 0
        tokens = [float(len(digests) - len(drafting) - len(matches))] * (self.max_length + 1)
        for digest in set(drafting):
            share = drafting.count(digest)
            for length, expected in enumerate(self._estimate(digest).expected_tokens()):
                tokens[length] += share * expected
        for match in matches:
            for length, expected in enumerate(match):
                tokens[length] += expected
        cost = self._cost if drafting else self._ngram_cost
        best = max(
            range(self.max_length + 1),
            key=lambda length: tokens[length] / cost.seconds(len(digests), length),
        )
        return max(self._probed(best), min(minimum, self.max_length) if drafting else 0)

    def _probed(self, best: int) -> int:
        """Occasionally a neighbour of the best: a length never tried cannot prove better."""
        self._steps += 1
        if self._steps % _PROBE_PERIOD:
            return best
        down = best > 0 and self._steps % (2 * _PROBE_PERIOD) == 0
        return min(max(best + (-_PROBE_DISTANCE if down else _PROBE_DISTANCE), 0), self.max_length)

    def _estimate(self, digest: str) -> AcceptanceEstimate:
        return self._acceptance.setdefault(digest, AcceptanceEstimate(self.max_length))
