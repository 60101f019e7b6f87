"""Sends prompts to an OpenAI-compatible endpoint with the stock client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import openai

from aurora_demo.measurement import ServedRequest
from aurora_demo.scenario import Scenario, Side

_REQUEST_SECONDS = 120.0


class Endpoint:
    """One side's endpoint; requests are numbered in sending order."""

    def __init__(self, side: Side, base_url: str, scenario: Scenario) -> None:
        self.side = side
        self._scenario = scenario
        self._sent = 0
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key="none",
            timeout=_REQUEST_SECONDS,
            max_retries=0,
            # It is on this machine, where no proxy of `http_proxy` leads.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        )

    async def send(
        self, prompts: Sequence[str], on_served: Callable[[ServedRequest], None]
    ) -> list[ServedRequest]:
        """Sends the prompts, `concurrency` at a time, and returns the outcome of each."""
        room = asyncio.Semaphore(self._scenario.concurrency)

        async def one(number: int, prompt: str) -> ServedRequest:
            async with room:
                served = await self._complete(number, prompt)
            on_served(served)
            return served

        first = self._sent
        self._sent += len(prompts)
        return await asyncio.gather(
            *(one(first + index, prompt) for index, prompt in enumerate(prompts))
        )

    async def close(self) -> None:
        await self._client.close()

    async def _complete(self, number: int, prompt: str) -> ServedRequest:
        started = time.perf_counter()
        try:
            completion = await self._client.completions.create(
                model=self.side,
                prompt=prompt,
                max_tokens=self._scenario.max_tokens,
                temperature=self._scenario.temperature,
                seed=self._scenario.seed + number,
                extra_body={"ignore_eos": True},
            )
        except openai.OpenAIError:
            return ServedRequest(self.side, number, "", "", 0, 0.0, 0, 0, failed=True)
        speculation: dict[str, Any] = (completion.model_extra or {})["aurora"]
        return ServedRequest(
            side=self.side,
            number=number,
            draft=speculation["draft"],
            arm=speculation["arm"],
            tokens=completion.usage.completion_tokens if completion.usage else 0,
            seconds=time.perf_counter() - started,
            drafted_tokens=speculation["drafted_tokens"],
            accepted_tokens=speculation["accepted_tokens"],
            failed=False,
        )
