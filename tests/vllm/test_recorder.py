"""What the recorder does at its limits; with a real vLLM it is in test_capture."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from aurora_vllm.recorder import Recorder

VOCABULARY = 100


@dataclass
class Runner:
    """What of vLLM's V1 runner the recorder reads; every sampled token is 7."""

    max_num_reqs: int = 4
    requests: dict[str, Any] = field(default_factory=dict)
    input_batch: Any = field(default_factory=lambda: SimpleNamespace(req_ids=[]))
    discard_request_mask: Any = field(
        default_factory=lambda: SimpleNamespace(np=np.zeros(8, dtype=bool))
    )

    def _sample(self, logits, metadata):
        return SimpleNamespace(sampled_token_ids=torch.full((len(self.input_batch.req_ids), 1), 7))

    def begin(self, name: str, **extra: Any) -> None:
        self.requests[name] = SimpleNamespace(sampling_params=SimpleNamespace(extra_args=extra))
        self.input_batch.req_ids.append(name)

    def end(self, name: str) -> None:
        del self.requests[name]
        self.input_batch.req_ids.remove(name)

    def step(self) -> list[int]:
        logits = torch.randn(len(self.input_batch.req_ids), VOCABULARY)
        return self._sample(logits, None).sampled_token_ids[:, 0].tolist()


def test_captures_beyond_the_limit_are_dropped_and_counted():
    runner = Runner()
    recorder = Recorder(runner, limit_bytes=2000)
    runner.begin("a", aurora_key="a", aurora_capture=1)
    for _ in range(20):
        assert runner.step() == [7]
    runner.begin("b", aurora_key="b", aurora_capture=1)
    for _ in range(3):
        runner.step()
    runner.end("a")
    runner.end("b")

    batch, payload = recorder.hand_out(max_bytes=1 << 20, acknowledged=None)

    assert recorder.dropped == 1
    assert b'"key": "b"' in payload
    assert b'"key": "a"' not in payload
    assert 0 < recorder.pending_bytes <= 2000
    recorder.hand_out(max_bytes=1 << 20, acknowledged=batch)
    assert recorder.pending_bytes == 0


def test_a_batch_has_no_more_than_was_asked_for_but_one_request():
    runner = Runner()
    recorder = Recorder(runner, limit_bytes=1 << 20)
    for name in "abc":
        runner.begin(name, aurora_key=name, aurora_capture=1)
    runner.step()
    for name in "abc":
        runner.end(name)

    first, payload = recorder.hand_out(max_bytes=1, acknowledged=None)
    then, _ = recorder.hand_out(max_bytes=1, acknowledged=first)

    assert b'"more": true' in payload
    assert payload.count(b'"key"') == 1
    assert then == first + 1


def test_the_other_choices_of_a_request_are_not_followed():
    runner = Runner()
    recorder = Recorder(runner, limit_bytes=1 << 20)
    for name in ("0_a", "1_a"):
        runner.begin(name, aurora_key="a", aurora_capture=1)
    runner.step()
    runner.end("0_a")
    runner.end("1_a")

    _, payload = recorder.hand_out(max_bytes=1 << 20, acknowledged=None)

    assert payload.count(b'"key"') == 1
    runner.begin("2", aurora_key="a")
    runner.step()
    assert recorder.steps_by_key() == {"a": 1}


def test_discarded_tokens_are_not_captured():
    runner = Runner()
    recorder = Recorder(runner, limit_bytes=1 << 20)
    runner.begin("a", aurora_key="a", aurora_capture=1)
    runner.discard_request_mask.np[0] = True
    runner.step()
    runner.discard_request_mask.np[0] = False
    runner.step()
    runner.end("a")

    _, payload = recorder.hand_out(max_bytes=1 << 20, acknowledged=None)

    assert b'"tokens": 1' in payload


def test_a_fault_in_recording_ends_the_recording_alone(caplog):
    runner = Runner()
    recorder = Recorder(runner, limit_bytes=1 << 20)
    runner.begin("a", aurora_key="a", aurora_capture=1)
    runner.discard_request_mask = None

    assert runner.step() == [7]
    assert runner.step() == [7]
    assert recorder.steps_by_key() == {}
    assert caplog.text.count("recording failed") == 1
