"""Takes what the gateway asked for out of the engine's answers again.

JSON is cut, not written anew: what stays keeps its bytes. The patterns match structure only, since
within a JSON string every quotation mark is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aurora_inference.contract import FinishReason
from aurora_inference.gateway.question import Question

_EVENT_END = b"\n\n"
_ERROR = b'data: {"error"'
_USAGE = b'"choices":[],'
# In a chunk of the text: the engine sends it always, --enable-force-include-usage.
_FORCED_USAGE = b',"usage":{'
_FINISHED = re.compile(rb'"finish_reason":"(\w+)"')
_TOKEN_IDS = re.compile(rb',"token_ids":\[([0-9,]*)\]')
_PROMPT_IDS = re.compile(rb',"prompt_token_ids":\[([0-9,]*)\]')
_FINGERPRINT = re.compile(rb',"system_fingerprint":"(?:[^"\\]|\\.)*"')
# A chunk that vLLM sends for its token ids alone.
_EMPTY_DELTA = re.compile(rb'"delta":\{\},"logprobs":null,"finish_reason":null')
_SPECULATION = "speculative_decoding"
_SPECULATION_VALUE = rb'"speculative_decoding":\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}'
_SPECULATION_MEMBER = re.compile(rb"," + _SPECULATION_VALUE + rb"|" + _SPECULATION_VALUE + rb",?")
_FLAT_METRICS = re.compile(rb'"metrics":\{[^{}]*\}')


@dataclass(slots=True)
class Report:
    """What an answer said beside its text.

    `finish_reason` is None until it has ended. `steps`: drafted and accepted tokens of each verify
    step; None if the engine did not say.
    """

    prompt_tokens: tuple[int, ...] = ()
    output_tokens: tuple[int, ...] = ()
    completion_tokens: int = 0
    finish_reason: FinishReason | None = None
    steps: tuple[tuple[int, int], ...] | None = None

    @property
    def has_token_ids(self) -> bool:
        """Whether every token is known: vLLM hides those of reasoning if the client wants that."""
        return bool(self.prompt_tokens) and 0 < self.completion_tokens == len(self.output_tokens)


def without_additions(content: bytes, asked: Question) -> tuple[bytes, Report]:
    """A whole answer as the client would have got it, and what it reported."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
    except (ValueError, LookupError, TypeError):
        return content, Report(finish_reason="error")
    report = Report(
        prompt_tokens=tuple(answer.get("prompt_token_ids") or choice.get("prompt_token_ids") or ()),
        output_tokens=tuple(choice.get("token_ids") or ()),
        finish_reason=_reason(choice.get("finish_reason")),
    )
    _read_usage(report, answer)
    if asked.hide_token_ids:
        content = _PROMPT_IDS.sub(b',"prompt_token_ids":null', content)
        content = _TOKEN_IDS.sub(b',"token_ids":null', content)
    metrics = answer.get("metrics")
    if metrics is not None:
        content = re.sub(_SPECULATION_VALUE, b'"speculative_decoding":null', content, count=1)
        if all(value is None for name, value in metrics.items() if name != _SPECULATION):
            content = _FLAT_METRICS.sub(b'"metrics":null', content, count=1)
    return content, report


@dataclass(slots=True)
class EventStream:
    """Server-sent events as the client would have got them; passed on as whole events.

    `report` is complete after `end`.
    """

    asked: Question
    report: Report = field(default_factory=Report)
    _rest: bytes = b""
    _ids: list[bytes] = field(default_factory=list)
    # The last chunk of the text, until the one with the usage, which is not passed on, has come.
    _held: bytes = b""
    _hide_usage: bool = False

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now."""
        data = self._rest + data
        end = data.rfind(_EVENT_END) + len(_EVENT_END)
        if end < len(_EVENT_END):
            self._rest = data
            return b""
        events, self._rest = data[:end], data[end:]
        if not (self.asked.request.record or self._held or _ends(events)):
            return events
        return b"".join(
            passed
            for event in events.split(_EVENT_END)[:-1]
            for passed in self._event(event + _EVENT_END)
        )

    def end(self) -> bytes:
        """What is left once the engine has ended the stream."""
        self.report.output_tokens = _tokens(b",".join(filter(None, self._ids)))
        left = self._held + self._rest
        self._held = self._rest = b""
        return left

    def _event(self, event: bytes) -> Iterator[bytes]:
        if event.startswith(b":"):
            # A comment, which keeps the connection alive.
            yield event
            return
        if _USAGE in event:
            yield from self._usage(event)
            return
        if event.startswith(_ERROR):
            self.report.finish_reason = "error"
        finished = _FINISHED.search(event)
        if finished is not None:
            self.report.finish_reason = _reason(finished[1].decode())
        if self.asked.request.record:
            event = self._without_ids(event)
        if finished is not None:
            self._hide_usage = self.asked.hide_usage and _FORCED_USAGE not in event
            if self._hide_usage:
                self._held += event
                return
        # Nothing is held here unless the engine failed before the usage.
        yield self._held
        self._held = b""
        yield event

    def _without_ids(self, event: bytes) -> bytes:
        hide = self.asked.hide_token_ids
        if not self.report.prompt_tokens and (found := _PROMPT_IDS.search(event)):
            self.report.prompt_tokens = _tokens(found[1])
            if hide:
                event = event.replace(found[0], b',"prompt_token_ids":null', 1)
        if found := _TOKEN_IDS.search(event):
            self._ids.append(found[1])
            if hide and _EMPTY_DELTA.search(event):
                return b""
            if hide:
                event = event.replace(found[0], b',"token_ids":null', 1)
        return event

    def _usage(self, event: bytes) -> Iterator[bytes]:
        answer = json.loads(event.removeprefix(b"data: "))
        _read_usage(self.report, answer)
        held, self._held = self._held, b""
        if not self._hide_usage:
            yield held
            # Chunks leave out what is null.
            cut = _SPECULATION_MEMBER.sub(b"", event, count=1)
            yield cut.replace(b',"metrics":{}', b"", 1)
            return
        # Without a chunk for the usage, the last one of the text has the fingerprint.
        if held and (fingerprint := _FINGERPRINT.search(event)):
            end = held.rindex(b"}")
            held = held[:end] + fingerprint[0] + held[end:]
        yield held


def _tokens(ids: bytes) -> tuple[int, ...]:
    return tuple(map(int, ids.split(b","))) if ids else ()


def _ends(events: bytes) -> bool:
    """Whether one of the events may say how the answer ended."""
    return b'"finish_reason":"' in events or _USAGE in events or _ERROR in events


def _read_usage(report: Report, answer: Mapping[str, Any]) -> None:
    report.completion_tokens = (answer.get("usage") or {}).get("completion_tokens", 0)
    found = (answer.get("metrics") or {}).get(_SPECULATION)
    if found is not None:
        # Absent if no step ran.
        drafted, accepted = found.get("per_step_drafted"), found.get("per_step_accepted")
        report.steps = tuple(zip(drafted or (), accepted or (), strict=True))


def _reason(reason: str | None) -> FinishReason | None:
    match reason:
        case None | "length" | "error":
            return reason
        case "abort":
            return "cancelled"
    # tool_calls, too: it only says how a text that stopped is to be read.
    return "stop"
