"""The engine's own routes and those of Aurora's plugin in it, as typed calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp

from aurora_common.errors import (
    AuroraError,
    CheckpointError,
    ConflictError,
    InvalidInputError,
    UnavailableError,
)
from aurora_inference.contract import DraftReference

ROUTES = "/v1/aurora"
# Of the plugin: its routes may change with the second number.
_WORKS_WITH = "0.1."
_PROBE_SECONDS = 5.0
# The plugin answers between two steps, and one with a long prompt may take its time.
_SWITCH_SECONDS = 30.0
# Under the operator's own, so that it hears why.
_STAGE_SECONDS = 240.0


class UnrelatedDraftError(ConflictError):
    """What the live draft left in the attention cache misleads this one: it needs a reset."""


class TargetShape(NamedTuple):
    """Of the model that an engine serves: enough to tell it from most others."""

    vocab_size: int
    hidden_size: int
    layers: int

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.hidden_size}, {self.vocab_size} tokens"


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """`instance` changes with every start of the engine; `staged`: digests beside `live`.

    `start`: the draft that it started with.
    """

    instance: str
    start: DraftReference
    live: DraftReference
    staged: frozenset[str]
    speculation_length: int
    method: str
    target: TargetShape


@dataclass(frozen=True, slots=True)
class Switch:
    """What a switch cost, and how many verify steps of each request came before it."""

    microseconds: int
    steps: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the engine serves; `is_base`: the target itself, not an adapter."""

    name: str
    max_context_tokens: int
    is_base: bool


class Plugin:
    """Raises UnavailableError if the engine cannot be reached or fails."""

    def __init__(self, session: aiohttp.ClientSession, engine: str, key: str) -> None:
        """`engine`: its URL without a path; `key`: its --api-key, empty if it has none."""
        self._session = session
        self._engine = engine
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def check_health(self) -> None:
        """Raises UnavailableError if the engine says that it cannot decode."""
        await self._call("GET", "/health", seconds=_PROBE_SECONDS)

    async def models(self) -> tuple[Model, ...]:
        content = _object(await self._call("GET", "/v1/models", seconds=_PROBE_SECONDS))
        return tuple(
            Model(one["id"], one.get("max_model_len") or 0, one.get("parent") is None)
            for one in content["data"]
        )

    async def metrics(self) -> bytes:
        """Its Prometheus page in the text format."""
        headers = {"Accept": "text/plain;version=0.0.4"}
        return await self._call("GET", "/metrics", seconds=_PROBE_SECONDS, headers=headers)

    async def status(self) -> PluginStatus:
        """Raises UnavailableError, too, if the plugin is missing or of another version."""
        content = _object(await self._call("GET", f"{ROUTES}/status", seconds=_SWITCH_SECONDS))
        version = content.get("plugin", "")
        if not version.startswith(_WORKS_WITH):
            raise UnavailableError(
                f"the engine has version {version or 'unknown'} of Aurora's plugin; this gateway "
                f"works with {_WORKS_WITH}x: install the plugin that comes with it"
            )
        return PluginStatus(
            instance=content["instance"],
            start=_draft(content["start"]),
            live=_draft(content["live"]),
            staged=frozenset(draft["digest"] for draft in content["staged"]),
            speculation_length=content["speculation_length"],
            method=content["method"],
            target=TargetShape(
                content["target"]["vocab_size"],
                content["target"]["hidden_size"],
                content["target"]["num_hidden_layers"],
            ),
        )

    async def stage(self, draft: DraftReference, path: str | None) -> None:
        """Loads a checkpoint beside the live one; raises CheckpointError if it is refused.

        Without a path, the draft that the engine started with, wherever it read that.
        """
        body = {"digest": draft.digest, "name": draft.name, "path": path}
        await self._command("stage", body, seconds=_STAGE_SECONDS)

    async def activate(self, digest: str, *, reset: bool) -> Switch:
        """Makes a staged draft the live one, between two steps, and stages the live one.

        `reset` forgets the keys and values that it left; requests in flight begin anew. Raises
        UnrelatedDraftError if that is needed.
        """
        body = {"digest": digest, "reset": reset}
        content = _object(await self._command("activate", body, seconds=_SWITCH_SECONDS))
        return Switch(content["flip_us"], content["steps"])

    async def unstage(self, digest: str) -> None:
        await self._command("unstage", {"digest": digest}, seconds=_SWITCH_SECONDS)

    async def capture(self, *, max_bytes: int, acknowledge: int) -> bytes:
        """What was captured of requests that have ended: the same until it is acknowledged."""
        body = {"max_bytes": max_bytes, "ack": acknowledge or None}
        return await self._command("capture", body, seconds=_SWITCH_SECONDS)

    async def _command(self, verb: str, body: Mapping[str, object], *, seconds: float) -> bytes:
        headers = {"Content-Type": "application/json"}
        content = json.dumps(body).encode()
        return await self._call(
            "POST", f"{ROUTES}/{verb}", seconds=seconds, headers=headers, content=content
        )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> bytes:
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method,
                    self._engine + path,
                    headers={**self._headers, **(headers or {})},
                    data=content,
                ) as response,
            ):
                answer = await response.read()
        except TimeoutError as error:
            raise UnavailableError(f"the engine did not answer within {seconds:.0f} s") from error
        except aiohttp.ClientError as error:
            raise UnavailableError(f"the engine cannot be reached: {error}") from error
        if response.status >= 400:
            raise _refusal(path, response.status, answer)
        return answer


def _draft(content: Mapping[str, str]) -> DraftReference:
    return DraftReference(content["name"], content["digest"])


def _refusal(path: str, status: int, answer: bytes) -> AuroraError:
    try:
        found = json.loads(answer)["error"]
        message, code = str(found["message"]), found.get("code")
    except (ValueError, LookupError, TypeError):
        message, code = f"status {status}", None
    if code in ("bad_checkpoint", "wrong_digest"):
        return CheckpointError(message)
    if code in ("bad_digest", "no_store", "outside_store"):
        return InvalidInputError(message)
    if code == "other_lineage":
        return UnrelatedDraftError(message)
    if code in ("live", "not_staged", "occupied"):
        return ConflictError(message)
    if status == 401:
        return UnavailableError("the engine refuses the gateway's key: check --engine-key")
    if status == 404 and path.startswith(ROUTES):
        return UnavailableError("the engine does not have Aurora's plugin")
    return UnavailableError(f"the engine refuses {path}: {message}")


def _object(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise UnavailableError("the engine's answer is not JSON") from error
    if not isinstance(found, dict):
        raise UnavailableError("the engine's answer is not a JSON object")
    return found
