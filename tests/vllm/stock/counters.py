"""The gateway's counters beside vLLM's own, from one page of metrics."""

from __future__ import annotations

import re

COUNTERS = {
    "aurora_spec_drafts_total": "vllm:spec_decode_num_drafts_total",
    "aurora_spec_draft_tokens_total": "vllm:spec_decode_num_draft_tokens_total",
    "aurora_spec_accepted_tokens_total": "vllm:spec_decode_num_accepted_tokens_total",
}
POSITION = re.compile(r'position="(\d+)"')


def by_position(page: str, name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith(name + "{"):
            place = POSITION.search(line)
            key = place[1] if place else ""
            found[key] = found.get(key, 0.0) + float(line.rpartition(" ")[2])
    return found


def totals(page: str) -> dict[str, tuple[float, float]]:
    """Of each counter the gateway's and vLLM's."""
    return {
        own: (sum(by_position(page, own).values()), sum(by_position(page, engines).values()))
        for own, engines in COUNTERS.items()
    }
