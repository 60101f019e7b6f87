"""Which of the resident drafts serves a request: what its domain's record favours.

A record counts how many drafted tokens of a draft were accepted and rejected in a domain. Drafts of
one deployment have one shape, so a step costs the same with each, and the one with the highest
acceptance takes the fewest verify steps per token. A request begins with the draft of the highest
mean. If the budget of exploration allows, it begins with the one whose rate is the highest of a
draw from each posterior (Thompson sampling: Chapelle and Li, "An Empirical Evaluation of Thompson
Sampling", 2011), for a few tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator, Philox

# Of all tokens, those that are drafted for by a draft that is not the best known.
EXPLORED_SHARE = 0.02
# How many an exploration takes at most, and how many may be saved up.
_EXPLORED_TOKENS = 48
_SAVED_TOKENS = 4096.0
# A step gives at most so many, the bonus token included.
_LONGEST_STEP = 17
# A record forgets with a draft's own steps, and slower with those of others in its domain.
_MEMORY = 0.99
_MEMORY_BESIDE_OTHERS = 0.9998
# Accepted and rejected tokens of a draft before anything is known of it.
_PRIOR_TOKENS = 1.0
# A draft with fewer tokens on a domain's record is not known there, and not preferred.
_KNOWN_TOKENS = 32.0
# One that is known to be worse than this is not preferred to what is unknown.
_LEAST_RATE = 0.1
# By how much the acceptance of another must exceed the stable draft's.
_MARGIN = 0.01
# After so many steps with a draft a request may change to another, and so often at most.
_STEPS_BEFORE_CHANGE = 8
_MOST_CHANGES = 4
_STANDARD_DEVIATIONS = 2.0
# Those seen least recently are forgotten.
MAX_DOMAINS = 256
_SHARE_TOKENS = 8192
# What a draft that raised an error has against it.
_FAILURE_TOKENS = 64


@dataclass(slots=True)
class Counts:
    """Drafted tokens that were accepted, and first ones that were rejected."""

    accepted: float = 0.0
    rejected: float = 0.0
    # The domain's steps when they were last counted.
    steps: int = 0

    @property
    def tokens(self) -> float:
        return self.accepted + self.rejected

    def add(self, accepted: float, rejected: float, *, memory: float = 1.0) -> None:
        self.accepted = self.accepted * memory + accepted
        self.rejected = self.rejected * memory + rejected


@dataclass(slots=True)
class Trial:
    """One request's drafts: the present one, and what was accepted of each so far.

    `may_change`: it may go on with another draft. `exploring`: for so many tokens more it tries a
    draft that is not the best known.
    """

    domain: str
    digest: str
    may_change: bool = False
    exploring: int = 0
    explores: bool = False
    steps: int = 0
    changes: int = 0
    seen: dict[str, Counts] = field(default_factory=dict)


@dataclass(slots=True)
class _Domain:
    steps: int = 0
    drafts: dict[str, Counts] = field(default_factory=dict)


class Portfolio:
    """The records, and the choices that follow from them.

    `seed` and the number of a choice determine its draws, by the counter of Philox.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._choices = 0
        # By the domain; the last is the newest.
        self._domains: dict[str, _Domain] = {}
        # Tokens that may be explored.
        self._budget = 0.0
        self._served: dict[str, float] = {}

    # Choices.

    def begin(
        self,
        domain: str,
        drafts: Sequence[str],
        *,
        max_tokens: int,
        explore: bool,
        bounded: bool,
    ) -> Trial:
        """Chooses a request's draft among digests, of which the first is the stable one.

        `bounded`: an exploration can end within the request. Without `explore` the best known
        draft serves.
        """
        best = self.best(domain, drafts)
        tokens = min(max_tokens, _EXPLORED_TOKENS) if bounded else max_tokens
        if explore and self._budget >= tokens:
            drawn = self._drawn(domain, drafts)
            if drawn != best:
                self._budget -= tokens
                return Trial(domain, drawn, may_change=bounded, exploring=tokens, explores=True)
        return Trial(domain, best, may_change=bounded)

    def best(self, domain: str, drafts: Sequence[str]) -> str:
        """Of the drafts that are known in a domain, the one of the highest mean.

        The first one if none is, or if the others are hardly better.
        """
        stable = drafts[0]
        known = [each for each in drafts if self._is_known(domain, each)]
        other = max(known, key=lambda each: self.rate(domain, each), default=stable)
        needed = self.rate(domain, stable) + _MARGIN if stable in known else _LEAST_RATE
        return other if self.rate(domain, other) > needed else stable

    def following(self, trial: Trial, drafts: Sequence[str]) -> str | None:
        """The draft that a request goes on with, None if it keeps its own.

        An exploration ends with the best known. Otherwise the request changes if what was accepted
        of its draft, with two standard deviations, is below what another one promises.
        """
        if not trial.may_change:
            return None
        if trial.explores:
            return (
                None if trial.exploring >= _LONGEST_STEP else self._after_exploring(trial, drafts)
            )
        if trial.changes == _MOST_CHANGES or trial.steps < _STEPS_BEFORE_CHANGE:
            return None
        measured = trial.seen.get(trial.digest)
        others = [each for each in drafts if each != trial.digest]
        if measured is None or not others:
            return None
        promises = {each: self._promise(trial, each) for each in others}
        other = max(others, key=lambda each: promises[each])
        return other if promises[other] > _upper(measured) else None

    def change(self, trial: Trial, digest: str) -> None:
        """The request goes on with this draft."""
        trial.changes += not trial.explores
        self._stop_exploring(trial)
        trial.digest, trial.steps = digest, 0

    # Records.

    def observe(self, trial: Trial, drafted: int, accepted: int, tokens: int) -> None:
        """Counts a step of a request: what its draft drafted, and the tokens that it gave."""
        digest = trial.digest
        self._count_served(digest, tokens)
        if trial.explores:
            trial.exploring -= tokens
        else:
            self._budget = min(self._budget + EXPLORED_SHARE * tokens, _SAVED_TOKENS)
        if drafted == 0:
            return
        trial.steps += 1
        rejected = int(accepted < drafted)
        trial.seen.setdefault(digest, Counts()).add(accepted, rejected)
        domain = self._domain(trial.domain)
        domain.steps += 1
        counts = domain.drafts.setdefault(digest, Counts(steps=domain.steps))
        _fade(counts, domain.steps)
        counts.add(accepted, rejected, memory=_MEMORY)

    def end(self, trial: Trial, *, draft_failed: bool) -> None:
        """A request has ended; a draft that failed counts as one that nothing was accepted of."""
        self._stop_exploring(trial)
        if draft_failed:
            domain = self._domain(trial.domain)
            counts = domain.drafts.setdefault(trial.digest, Counts(steps=domain.steps))
            counts.add(0, _FAILURE_TOKENS, memory=0.0)

    def keep(self, digests: Collection[str]) -> None:
        """Forgets every other draft."""
        for domain in self._domains.values():
            domain.drafts = {each: domain.drafts[each] for each in domain.drafts if each in digests}
        self._served = {each: self._served[each] for each in self._served if each in digests}

    def rate(self, domain: str, digest: str) -> float:
        """The mean acceptance of a draft in a domain."""
        accepted, rejected = self._posterior(domain, digest)
        return accepted / (accepted + rejected)

    def share(self, digest: str) -> float:
        """Of the last thousands of output tokens, the share that a draft served."""
        total = sum(self._served.values())
        return self._served.get(digest, 0.0) / total if total else 0.0

    def _posterior(self, domain: str, digest: str) -> tuple[float, float]:
        """Both parameters of the Beta distribution of a draft's acceptance in a domain."""
        counts = self._counts(domain, digest)
        return counts.accepted + _PRIOR_TOKENS, counts.rejected + _PRIOR_TOKENS

    def _counts(self, domain: str, digest: str) -> Counts:
        """What is known of a draft in a domain now."""
        record = self._domains.get(domain)
        counts = None if record is None else record.drafts.get(digest)
        if record is None or counts is None:
            return Counts()
        _fade(counts, record.steps)
        return counts

    def _drawn(self, domain: str, drafts: Sequence[str]) -> str:
        """The draft of the highest acceptance of a draw from each posterior."""
        counter = np.array([0, self._choices, 0, 0], np.uint64)
        self._choices += 1
        draws = Generator(Philox(key=np.array([self._seed, 0], np.uint64), counter=counter))
        rates = {each: draws.beta(*self._posterior(domain, each)) for each in drafts}
        return max(drafts, key=lambda each: rates[each])

    def _promise(self, trial: Trial, digest: str) -> float:
        """What a draft would have accepted in a request: as in it so far, else as in its domain."""
        seen = trial.seen.get(digest)
        if seen is not None:
            return seen.accepted / seen.tokens
        return self.rate(trial.domain, digest) if self._is_known(trial.domain, digest) else 0.0

    def _is_known(self, domain: str, digest: str) -> bool:
        return self._counts(domain, digest).tokens >= _KNOWN_TOKENS

    def _after_exploring(self, trial: Trial, drafts: Sequence[str]) -> str | None:
        best = self.best(trial.domain, drafts)
        if best != trial.digest:
            return best
        # It has become the best known meanwhile.
        self._stop_exploring(trial)
        return None

    def _stop_exploring(self, trial: Trial) -> None:
        """What an exploration has left goes back into the budget."""
        if trial.explores:
            self._budget += trial.exploring
            trial.explores, trial.exploring = False, 0

    def _domain(self, name: str) -> _Domain:
        domain = self._domains.pop(name, None) or _Domain()
        self._domains[name] = domain
        if len(self._domains) > MAX_DOMAINS:
            del self._domains[next(iter(self._domains))]
        return domain

    def _count_served(self, digest: str, tokens: int) -> None:
        served = self._served
        served[digest] = served.get(digest, 0.0) + tokens
        if served[digest] > _SHARE_TOKENS:
            for each in served:
                served[each] /= 2


def _fade(counts: Counts, steps: int) -> None:
    """Forgets a little for each step of the domain since they were counted."""
    if steps > counts.steps + 1:
        counts.add(0, 0, memory=_MEMORY_BESIDE_OTHERS ** (steps - counts.steps - 1))
    counts.steps = max(counts.steps, steps)


def _upper(counts: Counts) -> float:
    """The acceptance that a request's draft may have, with two standard deviations."""
    tokens = counts.tokens + 2
    rate = (counts.accepted + 1) / tokens
    return rate + _STANDARD_DEVIATIONS * math.sqrt(rate * (1 - rate) / tokens)
