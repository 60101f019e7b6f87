"""The metrics page: the gateway's own metrics, then the engine's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aurora_common.errors import AuroraError
from aurora_inference.gateway.capture import Captures
from aurora_inference.gateway.control import GatewayControl
from aurora_inference.gateway.ledger import Ledger
from aurora_inference.gateway.plugin import Plugin
from aurora_inference.serving.metrics import EngineCollector, TrajectoryCounts, exposition

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class _GatewayCollector(Collector):
    control: GatewayControl
    ledger: Ledger
    captures: Captures
    reached: bool

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "aurora_engine_up",
            "1 if the engine answers, decodes and serves the draft that it should.",
            value=self.reached and not self.control.problem(),
        )
        yield CounterMetricFamily(
            "aurora_draft_switches", "Changes of the live draft.", self.control.switches
        )
        yield CounterMetricFamily(
            "aurora_draft_switch_seconds",
            "How long these held up decoding, in total.",
            self.control.switch_microseconds / 1e6,
        )
        yield CounterMetricFamily(
            "aurora_unreported_requests",
            "Requests of which the engine did not report what was drafted.",
            self.ledger.unreported_requests,
        )
        yield CounterMetricFamily(
            "aurora_captures_missing",
            "Trajectories recorded without the target's distributions, though these were wanted.",
            self.captures.missing,
        )


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """Prometheus' text format; without the engine's part if the engine does not answer."""

    model_name: str
    plugin: Plugin
    control: GatewayControl
    ledger: Ledger
    captures: Captures
    trajectories: TrajectoryCounts | None

    async def __call__(self) -> bytes:
        try:
            engines = await self.plugin.metrics()
        except AuroraError:
            engines = b""
        own = exposition(
            EngineCollector(
                model_name=self.model_name,
                status=await self.control.status(),
                counters=await self.control.counters(),
                trajectories=self.trajectories,
                as_vllm=False,
            ),
            _GatewayCollector(self.control, self.ledger, self.captures, bool(engines)),
        )
        return own.content + engines
