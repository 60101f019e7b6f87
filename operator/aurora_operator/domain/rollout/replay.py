"""Is the candidate faster? Both drafts, scored on the very same recorded requests.

Verification is lossless: what was said does not depend on the draft. So two drafts can be compared
on requests that neither served for it, by the verify steps S that each is expected to need for the
tokens of a request (the trainer's `judge` computes them). What a step costs is for `time_saved` to
count: the same with two drafts of one shape.

A request scores W = 1 − S(candidate) / S(stable), the share of its time that the candidate saves.
Gamblers as in `betting` stake against "the mean of W − δ is at no time above 0", with W at least
−1: a request that takes twice as long counts in full. So the stakes are small, and a gain of one
point takes 400 requests to prove; with W clipped to ±CLIP it takes 150, and a candidate that
collapses on 1.5% of the requests, and is slower for it, is promoted in 15% of the rollouts. The
process against harm stakes on −W clipped to ±CLIP. Every request weighs the same in W. What all
requests together save, D = S(stable) − S(candidate), weighs long answers more and is not clipped: a
draft that wins on many short answers and loses on the few that take most of the time has D below 0.
A candidate is faster if both say so, at the same level α (`time_saved.is_faster`).

Requests fall into classes, by their domain and by the length of their answers, and each class has a
process of its own against harm. Class j of a rollout has α / (j (j + 1)), so that all of them
together raise a false alarm with probability at most α.

Requests that the candidate served have no score: whatever it does to those, it cannot choose the
requests by which it is judged. Nor can their ends: requests come in the order of their admission,
from the one on that was the first to be admitted after the comparison began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from aurora_common.codec import Wire
from aurora_common.stream_id import stream_order
from aurora_operator.domain.rollout.betting import (
    FAIR,
    REQUIRED,
    ROUNDED,
    WEALTH,
    bet,
    log_e_value,
    log_share,
)
from aurora_operator.domain.rollout.interval import half_width, welford
from aurora_operator.domain.rollout.path import EvidencePath, sampled

# Of W, in the tests for harm.
CLIP = 0.25
_LARGEST_LOSS = 1.0
# Of the largest stake that cannot go bankrupt. W is small beside the largest loss, so that large
# stakes find it soonest; the others are for noisy traffic.
_FRACTIONS = (0.95, 0.7, 0.4, 0.1)
# Answers of at most so many tokens, and longer ones.
_LENGTHS = (64, 512)
_MAX_DOMAINS = 16
_NO_DOMAIN = "no domain"
_MAX_CLASSES = _MAX_DOMAINS + 2 + len(_LENGTHS) + 1
_SHOWN_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Score:
    """One recorded request: the verify steps that each draft is expected to need for it.

    `id` is the position in the buffer's stream at which it was judged; those of one position come
    together. `shapes_differ`: a step may cost another time with one than with the other.
    """

    id: str
    domain: str
    output_tokens: int
    stable_steps: float
    candidate_steps: float
    shapes_differ: bool = False

    def exchanged(self, cost: float = 1.0) -> Score:
        """With the roles of the drafts exchanged; the new candidate's steps cost so much more."""
        return replace(
            self, stable_steps=self.candidate_steps, candidate_steps=cost * self.stable_steps
        )

    @property
    def saved(self) -> float:
        """W before it is clipped."""
        if self.stable_steps <= 0:
            return 0.0
        return 1 - self.candidate_steps / self.stable_steps


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests among which the candidate must do no harm."""

    name: Annotated[str, "A domain, or a length of answers."]
    requests: Annotated[int, "How many were judged.", REQUIRED] = 0
    log_harm_wealth: Annotated[
        tuple[float, ...], "Log wealth of each gambler on worse.", WEALTH
    ] = FAIR

    @property
    def log_harm(self) -> Annotated[float, "Natural logarithm of the e-value for worse.", ROUNDED]:
        return log_e_value(self.log_harm_wealth)


@dataclass(frozen=True, slots=True)
class Replay:
    """What replaying recorded requests has shown; it survives a restart exactly."""

    after: Annotated[str, "Stream id through which recorded requests were judged."] = ""
    requests: Annotated[int, "How many were judged.", REQUIRED] = 0
    log_wealth: Annotated[tuple[float, ...], "Log wealth of each gambler on better.", WEALTH] = (
        0.0,
    ) * len(_FRACTIONS)
    log_harm_wealth: Annotated[
        tuple[float, ...], "Log wealth of each gambler on worse.", WEALTH
    ] = FAIR
    stable_steps: Annotated[float, "Mean verify steps that the stable draft needs.", REQUIRED] = 0.0
    saved_steps: Annotated[float, "Mean verify steps that the candidate saves.", REQUIRED] = 0.0
    saved_scatter: Annotated[float, "Sum of their squared deviations.", REQUIRED] = 0.0
    classes: Annotated[
        tuple[RequestClass, ...],
        "Requests among which it must do no harm.",
        Wire(max_items=2 * _MAX_CLASSES),
    ] = ()
    begin: Annotated[
        str, "Stream id after which a request must have been admitted; empty: any is judged."
    ] = ""
    path: Annotated[EvidencePath | None, "How the evidence grew."] = None
    candidate_scatter: Annotated[
        float, "Sum of squared deviations of the steps that the candidate needs."
    ] = 0.0
    saved_product: Annotated[
        float, "Sum of products of their deviations and of those of the steps saved."
    ] = 0.0
    shapes_differ: Annotated[
        bool, "Whether a step may cost another time with the candidate, which must be measured."
    ] = False

    @property
    def log_e(self) -> Annotated[float, "Natural logarithm of the e-value for better.", ROUNDED]:
        return log_e_value(self.log_wealth)

    @property
    def log_harm(self) -> Annotated[float, "Natural logarithm of the e-value for worse.", ROUNDED]:
        return log_e_value(self.log_harm_wealth)

    @property
    def saved_bps(self) -> Annotated[int, "Share of the verify steps that it saves; basis points."]:
        return self._share_bps(self.saved_steps)

    @property
    def ci_bps(
        self,
    ) -> Annotated[
        tuple[int, int] | None, "Its 95% interval, asymptotic; absent before two requests."
    ]:
        width = half_width(self.saved_scatter, self.requests, _SHOWN_ALPHA)
        if width is None:
            return None
        return self._share_bps(self.saved_steps - width), self._share_bps(self.saved_steps + width)

    def _share_bps(self, steps: float) -> int:
        if self.stable_steps <= 0:
            return 0
        return round(min(max(steps / self.stable_steps, -1.0), 1.0) * 10_000)


def replayed(replay: Replay, score: Score, *, min_effect: float = 0.0) -> Replay:
    """The evidence once `score` is counted, which must be new; `read` sees to that.

    `min_effect` ≥ 0 is δ, the share of its time by which a request must become shorter; it stays
    the same for a whole rollout.
    """
    saved = min(max(score.saved, -CLIP), CLIP)
    mean, scatter = welford(
        replay.saved_steps,
        replay.saved_scatter,
        replay.requests,
        score.stable_steps - score.candidate_steps,
    )
    steps, _ = welford(replay.stable_steps, 0.0, replay.requests, score.stable_steps)
    needed, candidate_scatter = welford(
        replay.stable_steps - replay.saved_steps,
        replay.candidate_scatter,
        replay.requests,
        score.candidate_steps,
    )
    # With one deviation from the mean before and one from that after, as in `welford`.
    product = (score.stable_steps - score.candidate_steps - replay.saved_steps) * (
        score.candidate_steps - needed
    )
    better = bet(
        replay.log_wealth,
        score.saved - min_effect,
        largest_loss=_LARGEST_LOSS + min_effect,
        fractions=_FRACTIONS,
    )
    worse = bet(replay.log_harm_wealth, -saved, largest_loss=CLIP)
    return replace(
        replay,
        after=score.id,
        requests=replay.requests + 1,
        log_wealth=better,
        log_harm_wealth=worse,
        stable_steps=steps,
        saved_steps=mean,
        saved_scatter=scatter,
        classes=_with_classes(replay.classes, score, saved),
        path=sampled(replay.path, replay.requests + 1, better, worse),
        candidate_scatter=candidate_scatter,
        saved_product=replay.saved_product + product,
        shapes_differ=replay.shapes_differ or score.shapes_differ,
    )


def read(
    replay: Replay, scores: Iterable[Score], *, through: str, min_effect: float = 0.0
) -> Replay:
    """The evidence once those of `scores` are counted that were not before.

    All up to `through` was read.
    """
    known = stream_order(replay.after)
    for score in scores:
        if stream_order(score.id) > known:
            replay = replayed(replay, score, min_effect=min_effect)
    if stream_order(through) <= stream_order(replay.after):
        return replay
    # The last ones had no score.
    return replace(replay, after=through)


def replayed_harm(replay: Replay, *, threshold: float) -> str | None:
    """On which requests the candidate is slower, if on any; `threshold` is log(1/α)."""
    if replay.log_harm >= threshold:
        return "all requests"
    for number, one in enumerate(replay.classes, start=1):
        if one.log_harm >= class_threshold(number, threshold):
            return one.name
    return None


def class_threshold(number: int, threshold: float) -> float:
    """What the log of the e-value for harm must reach in class `number`, from 1."""
    return threshold + log_share(number)


def _with_classes(
    classes: tuple[RequestClass, ...], score: Score, saved: float
) -> tuple[RequestClass, ...]:
    """The classes once a request is counted in its own; a new one comes last."""
    names = {_length(score.output_tokens), _domain(score.domain, classes)}
    known = {one.name for one in classes}
    found = (*classes, *(RequestClass(name) for name in sorted(names - known)))
    return tuple(
        replace(
            one,
            requests=one.requests + 1,
            log_harm_wealth=bet(one.log_harm_wealth, -saved, largest_loss=CLIP),
        )
        if one.name in names
        else one
        for one in found
    )


def _length(tokens: int) -> str:
    for bound in _LENGTHS:
        if tokens <= bound:
            return f"answers of up to {bound} tokens"
    return f"answers of over {_LENGTHS[-1]} tokens"


def _domain(domain: str, classes: tuple[RequestClass, ...]) -> str:
    """Clients name domains: those after the first few count as one."""
    name = f"domain {domain}" if domain else _NO_DOMAIN
    known = [one.name for one in classes if one.name.startswith("domain ")]
    if name in (_NO_DOMAIN, *known) or len(known) < _MAX_DOMAINS:
        return name
    return "other domains"
