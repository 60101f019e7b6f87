"""Prometheus metrics: request latencies as observed, the engine's counters at each scrape.

Names beginning with `vllm:` are vLLM's own, so that its benchmarks and dashboards work unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from aurora_inference.contract import DraftCounters, EngineCounters, EngineStatus

_LATENCY_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip


class RequestMetrics(Collector):
    """Latencies and token counts of finished requests."""

    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._time_to_first_token = self._histogram(
            "vllm:time_to_first_token_seconds", "From arrival to the first token.", model_name
        )
        self._inter_token = self._histogram(
            "vllm:inter_token_latency_seconds", "Between two steps' tokens.", model_name
        )
        self._end_to_end = self._histogram(
            "vllm:e2e_request_latency_seconds", "From arrival to the last token.", model_name
        )
        self._per_token = self._histogram(
            "vllm:request_time_per_output_token_seconds",
            "A request's mean time for each token but the first.",
            model_name,
        )
        self._prompt_tokens = self._counter(
            "vllm:prompt_tokens", "Prompt tokens of finished requests.", model_name
        )
        self._generation_tokens = self._counter(
            "vllm:generation_tokens", "Output tokens of finished requests.", model_name
        )

    def first_token(self, seconds: float) -> None:
        self._time_to_first_token.observe(seconds)

    def next_tokens(self, seconds: float) -> None:
        """A step's tokens arrived `seconds` after the previous step's."""
        self._inter_token.observe(seconds)

    def ended(
        self, prompt_tokens: int, completion_tokens: int, *, seconds: float, decode_seconds: float
    ) -> None:
        """A request took `seconds` in total, `decode_seconds` of them after its first token."""
        self._end_to_end.observe(seconds)
        self._prompt_tokens.inc(prompt_tokens)
        self._generation_tokens.inc(completion_tokens)
        if completion_tokens > 1:
            self._per_token.observe(decode_seconds / (completion_tokens - 1))

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()

    def _histogram(self, name: str, text: str, model_name: str) -> Histogram:
        return Histogram(
            name, text, ["model_name"], registry=self._registry, buckets=_LATENCY_SECONDS
        ).labels(model_name)

    def _counter(self, name: str, text: str, model_name: str) -> Counter:
        return Counter(name, text, ["model_name"], registry=self._registry).labels(model_name)


class Page(NamedTuple):
    content: bytes
    content_type: str


def exposition(*collectors: Collector, accept: str = "") -> Page:
    """The collectors' metrics, as OpenMetrics if the scraper's `accept` asks for it."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    if choose_encoder(accept)[1].startswith("application/openmetrics-text"):
        # Otherwise the library would write vLLM's colons as underscores.
        content: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]
            registry, escaping=openmetrics.ALLOWUTF8
        )
        return Page(content, openmetrics.CONTENT_TYPE_LATEST)
    return Page(generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)


class TrajectoryCounts(Protocol):
    """How many trajectories the recorder has delivered, lost and still holds, and how it fares."""

    @property
    def sent(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def problem(self) -> str: ...


# Hashed by identity, as a registry requires.
@dataclass(frozen=True, eq=False, slots=True)
class EngineCollector(Collector):
    """The engine's metrics at one moment; `trajectories` is None if none are recorded.

    `as_vllm`: also under vLLM's names, which a vLLM itself has already.
    """

    model_name: str
    status: EngineStatus
    counters: EngineCounters
    trajectories: TrajectoryCounts | None
    as_vllm: bool = True

    def collect(self) -> Iterator[Metric]:
        yield from self._speculation_by_arm()
        yield from self._speculation_by_ngram()
        yield from self._requests()
        yield from self._trajectories()
        if self.as_vllm:
            yield from self._speculation_as_vllm()

    def _speculation_by_arm(self) -> Iterator[Metric]:
        drafts = CounterMetricFamily(
            "aurora_spec_drafts", "Verify steps that had a draft.", labels=["arm"]
        )
        drafted = CounterMetricFamily("aurora_spec_draft_tokens", "Drafted.", labels=["arm"])
        accepted = CounterMetricFamily(
            "aurora_spec_accepted_tokens",
            "Drafted tokens that the target accepted, by their position in the draft.",
            labels=["arm", "position"],
        )
        drafting = CounterMetricFamily(
            "aurora_spec_drafting_seconds", "Time that its draft took to propose.", labels=["arm"]
        )
        output = CounterMetricFamily("aurora_output_tokens", "Generated.", labels=["arm"])
        requests = CounterMetricFamily("aurora_requests", "Begun.", labels=["arm"])
        failed = CounterMetricFamily("aurora_failed_requests", "Failed.", labels=["arm"])
        for arm, counts in self.counters.arms.items():
            drafts.add_metric([arm], counts.verify_steps)
            drafted.add_metric([arm], counts.drafted_tokens)
            for position, count in enumerate(counts.accepted_per_position):
                accepted.add_metric([arm, str(position)], count)
            drafting.add_metric([arm], counts.drafting_seconds)
            output.add_metric([arm], counts.output_tokens)
            requests.add_metric([arm], counts.requests)
            failed.add_metric([arm], counts.failed_requests)
        yield from (drafts, drafted, accepted, drafting, output, requests, failed)
        # A slot's draft changes over time, so the counters have no digest label: join on arm.
        info = GaugeMetricFamily(
            "aurora_draft_info",
            "1 for the draft that each arm serves.",
            labels=["arm", "draft", "draft_digest"],
        )
        for arm, draft in (("stable", self.status.stable), ("candidate", self.status.candidate)):
            if draft is not None:
                info.add_metric([arm, draft.name, draft.digest], 1)
        yield info
        if self.status.retained:
            share = GaugeMetricFamily(
                "aurora_retained_draft_share",
                "Of the last output tokens, the share that each retained draft served.",
                labels=["draft", "draft_digest"],
            )
            for each in self.status.retained:
                share.add_metric([each.draft.name, each.draft.digest], each.share_bps / 10_000)
            yield share

    def _speculation_by_ngram(self) -> Iterator[Metric]:
        counts = self.counters.ngram
        if counts is None:
            return
        yield CounterMetricFamily(
            "aurora_ngram_drafts",
            "Verify steps of requests without a draft that n-grams drafted for.",
            counts.verify_steps,
        )
        yield CounterMetricFamily(
            "aurora_ngram_draft_tokens", "Drafted by n-grams.", counts.drafted_tokens
        )
        accepted = CounterMetricFamily(
            "aurora_ngram_accepted_tokens",
            "Tokens drafted by n-grams that the target accepted, by their position in the draft.",
            labels=["position"],
        )
        for position, count in enumerate(counts.accepted_per_position):
            accepted.add_metric([str(position)], count)
        yield accepted

    def _speculation_as_vllm(self) -> Iterator[Metric]:
        """Whatever drafted, as vLLM counts."""
        every: list[DraftCounters] = [*self.counters.arms.values()]
        if self.counters.ngram is not None:
            every.append(self.counters.ngram)
        yield self._count(
            "vllm:spec_decode_num_drafts", "Drafts.", sum(each.verify_steps for each in every)
        )
        yield self._count(
            "vllm:spec_decode_num_draft_tokens",
            "Drafted.",
            sum(each.drafted_tokens for each in every),
        )
        yield self._count(
            "vllm:spec_decode_num_accepted_tokens",
            "Accepted.",
            sum(each.accepted_tokens for each in every),
        )
        by_position = CounterMetricFamily(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "Accepted, by position in the draft.",
            labels=["model_name", "position"],
        )
        for position in range(max(len(each.accepted_per_position) for each in every)):
            accepted = sum(
                each.accepted_per_position[position]
                for each in every
                if position < len(each.accepted_per_position)
            )
            by_position.add_metric([self.model_name, str(position)], accepted)
        yield by_position

    def _requests(self) -> Iterator[Metric]:
        running, waiting = self.counters.running, self.counters.waiting
        if self.as_vllm:
            yield self._gauge("vllm:num_requests_running", "In the batch.", running)
            yield self._gauge("vllm:num_requests_waiting", "Queued.", waiting)
        # The custom metrics API, which HorizontalPodAutoscalers use, allows no colon in names.
        yield GaugeMetricFamily("aurora_running_requests", "In the batch.", value=running)
        yield GaugeMetricFamily("aurora_waiting_requests", "Queued.", value=waiting)
        yield GaugeMetricFamily(
            "aurora_speculation_length",
            "Tokens drafted in a step, as the controller chose last.",
            value=self.status.speculation_length,
        )

    def _trajectories(self) -> Iterator[Metric]:
        counts = self.trajectories
        yield CounterMetricFamily(
            "aurora_trajectories_sent", "Acknowledged by the buffer.", counts.sent if counts else 0
        )
        yield CounterMetricFamily(
            "aurora_trajectories_dropped",
            "Lost: no room while the buffer was away, or refused by it.",
            counts.dropped if counts else 0,
        )
        yield GaugeMetricFamily(
            "aurora_trajectories_queued", "Not yet acknowledged.", counts.queued if counts else 0
        )
        yield CounterMetricFamily(
            "aurora_trajectory_sender_failures",
            "How often sending broke off unexpectedly and was started again.",
            counts.failures if counts else 0,
        )

    def _count(self, name: str, text: str, value: int) -> Metric:
        family = CounterMetricFamily(name, text, labels=["model_name"])
        family.add_metric([self.model_name], value)
        return family

    def _gauge(self, name: str, text: str, value: int) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["model_name"])
        family.add_metric([self.model_name], value)
        return family
