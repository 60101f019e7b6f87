"""The gateway's counters beside vLLM's own, from one page of metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

COUNTERS = {
    "aurora_spec_drafts_total": "vllm:spec_decode_num_drafts_total",
    "aurora_spec_draft_tokens_total": "vllm:spec_decode_num_draft_tokens_total",
    "aurora_spec_accepted_tokens_total": "vllm:spec_decode_num_accepted_tokens_total",
}
GENERATED = "vllm:generation_tokens_total"
POSITION = re.compile(r'position="(\d+)"')


def by_position(page: str, name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith(name + "{"):
            place = POSITION.search(line)
            key = place[1] if place else ""
            found[key] = found.get(key, 0.0) + float(line.rpartition(" ")[2])
    return found


def total(page: str, name: str) -> float:
    """A metric, whatever its labels."""
    return sum(by_position(page, name).values())


def totals(page: str) -> dict[str, tuple[float, float]]:
    """Of each counter the gateway's and vLLM's."""
    return {own: (total(page, own), total(page, engines)) for own, engines in COUNTERS.items()}


async def generates(page: Callable[[], Awaitable[str]], tokens: int) -> None:
    """Returns once vLLM has generated that many more: how fast it is differs between machines."""
    goal = total(await page(), GENERATED) + tokens
    async with asyncio.timeout(60):
        while True:
            if total(await page(), GENERATED) >= goal:
                return
            await asyncio.sleep(0.005)
