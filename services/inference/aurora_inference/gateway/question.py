"""What the gateway asks the engine for beside what the client asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aurora_inference.contract import Request, Sampling

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
# In `vllm_xargs`, which vLLM hands to the plugin in its worker.
KEY, CAPTURE = "aurora_key", "aurora_capture"

_WHITE_SPACE = b" \t\r\n"
_LARGEST = 1 << 31


@dataclass(frozen=True, slots=True)
class Client:
    """What is known of a request beside its body; `record`: whether it may be kept at all."""

    key: str
    tenant: str
    domain: str
    record: bool
    capture: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A body for the engine, and what must be taken out of the answer again.

    `request.prompt_tokens` are not known before the answer. `request.record`: token ids are in the
    answer; `hide_token_ids`: the client did not ask for them. `hide_usage`: nor for the chunk with
    the usage, on which the engine sends what was drafted.
    """

    body: bytes
    request: Request
    hide_token_ids: bool
    hide_usage: bool
    capture: bool


def question(
    path: str, body: bytes, client: Client, *, base_models: frozenset[str]
) -> Question | None:
    """The body with the gateway's additions; None: pass it as it is.

    None is for what the engine reports nothing about, several completions in one request, and for
    whatever it may refuse: then it must see exactly what the client sent. Only answers of
    `base_models` are the target's own, not an adapter's. The additions are inserted at the end:
    the client's own bytes stay as they are.
    """
    content = _object(body)
    if content is None or not _single(path, content):
        return None
    stream, own_ids = content.get("stream"), content.get("return_token_ids")
    options, arguments = content.get("stream_options"), content.get("vllm_xargs")
    if not (_flag(stream) and _flag(own_ids) and _mapping(options) and _mapping(arguments)):
        return None
    options = options or {}
    if not _flag(options.get("include_usage")):
        return None
    record = client.record and _recordable(content, base_models)
    capture = record and client.capture
    own = {KEY: client.key, CAPTURE: 1} if capture else {KEY: client.key}
    theirs = {name: value for name, value in (arguments or {}).items() if name != CAPTURE}
    additions: dict[str, object] = {"vllm_xargs": {**theirs, **own}}
    hide_token_ids = record and not own_ids
    if hide_token_ids:
        additions["return_token_ids"] = True
    hide_usage = bool(stream) and not options.get("include_usage")
    if hide_usage:
        additions["stream_options"] = {
            **options,
            "include_usage": True,
            # Ignored without the other.
            "continuous_usage_stats": False,
        }
    return Question(
        body=_with(body, additions),
        request=_request(content, client, record=record),
        hide_token_ids=hide_token_ids,
        hide_usage=hide_usage,
        capture=capture,
    )


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object, in UTF-8, that the engine will read; None if it is none."""
    if not body.lstrip(_WHITE_SPACE).startswith(b"{") or json.detect_encoding(body) != "utf-8":
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content or None


def _single(path: str, content: Mapping[str, Any]) -> bool:
    """Whether it asks for one completion of one prompt."""
    prompt = content.get("prompt")
    if path == COMPLETIONS and isinstance(prompt, list):
        is_tokens = bool(prompt) and type(prompt[0]) is int
        if len(prompt) != 1 and not is_tokens:
            return False
    counts = (content.get("n"), content.get("best_of"))
    one = all(count is None or (type(count) is int and count == 1) for count in counts)
    return one and not content.get("use_beam_search")


def _recordable(content: Mapping[str, Any], base_models: frozenset[str]) -> bool:
    """Whether token ids are all that the target saw, and may be asked for without side effects."""
    model = content.get("model")
    # With both, vLLM leaves the echoed text out.
    return (
        not content.get("echo")
        and content.get("prompt_embeds") is None
        and (model is None or model in base_models)
        and not _has_media(content.get("messages"))
    )


def _has_media(messages: object) -> bool:
    if not isinstance(messages, list):
        return False
    parts = [
        part
        for message in messages
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for part in message["content"]
    ]
    return any(
        isinstance(part, dict) and part.get("type") not in ("text", "refusal") for part in parts
    )


def _flag(value: object) -> bool:
    """Whether it is plainly a boolean or absent: pydantic takes more, which is left to it."""
    return value is None or value is True or value is False


def _mapping(value: object) -> bool:
    return value is None or isinstance(value, dict)


def _with(body: bytes, additions: Mapping[str, object]) -> bytes:
    """The object with more keys at its end; of two with one name, JSON's readers take the last."""
    start = body.rstrip(_WHITE_SPACE)[:-1]
    return start + b"," + json.dumps(additions, separators=(",", ":")).encode()[1:]


def _request(content: Mapping[str, Any], client: Client, *, record: bool) -> Request:
    seed, top_k = content.get("seed"), content.get("top_k")
    longest = content.get("max_completion_tokens") or content.get("max_tokens")
    return Request(
        id=client.key,
        prompt_tokens=(),
        max_tokens=longest if type(longest) is int else 0,
        sampling=Sampling(
            temperature=_number(content.get("temperature")),
            top_p=_number(content.get("top_p")),
            top_k=top_k if type(top_k) is int and 0 < top_k < _LARGEST else 0,
            seed=seed if type(seed) is int else None,
        ),
        ignore_eos=content.get("ignore_eos") is True,
        tenant=client.tenant,
        domain=client.domain,
        record=record,
    )


def _number(value: object) -> float:
    """As the engine's default if absent, or if the engine will refuse it."""
    if isinstance(value, int | float) and abs(value) < _LARGEST:
        return float(value)
    return 1.0
