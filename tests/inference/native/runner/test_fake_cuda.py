"""Every path of the native engine on a GPU, as far as it can be shown without one.

Whole requests run under FakeTensorMode, from the prompt to the last token. That they do shows that
all tensors are on the device, and that nothing waits for it but `Device.on_host`.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, nothing, on_device
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from aurora_common.errors import DeviceLostError
from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cache import KeyValueCache
from aurora_inference.native.runner.cuda import Cuda
from aurora_inference.native.runner.drafter.eagle3 import Eagle3Drafter
from aurora_inference.native.runner.drafter.registry import DRAFT_KINDS
from aurora_inference.native.runner.drafter.standalone import StandaloneDrafter
from aurora_inference.native.runner.target import Target
from aurora_inference.native.runner.torch_runner import TorchRunner
from aurora_kernels.sampling import rows as sampling_rows
from aurora_model.config import read_config
from aurora_model.decoder import Decoder
from aurora_model.device import OutOfMemoryError
from aurora_model.draft import Eagle3Draft, StandaloneDraft
from aurora_model.target import TargetIdentity

VOCABULARY = 400
GREEDY = Sampling(temperature=0.0)
SAMPLINGS = MappingProxyType(
    {
        "greedy": [GREEDY] * 3,
        "sampled": [
            Sampling(temperature=0.8, top_k=5),
            Sampling(temperature=1.0, top_p=0.9),
            GREEDY,
        ],
        "seeded": [Sampling(temperature=1.0, seed=1), Sampling(temperature=1.0), GREEDY],
    }
)


class Gpu(Cuda):
    """Decides what no fake tensor can: of some of the first proposals, one token is accepted."""

    def __init__(self, *, accepts: bool) -> None:
        super().__init__(str(DEVICE), "a GPU that is not there")
        self.waits = 0
        self._to_accept = [1, 0, 1, 0] if accepts else []

    def timed(self):
        """Nothing that takes time: events need a driver."""
        return lambda: lambda: 0.0

    def on_host(self, tensors):
        self.waits += 1
        found = [nothing(each) for each in tensors]
        is_verdict = len(found) == 3 and found[0].shape == found[1].shape == found[2].shape[:1]
        if is_verdict and found[2].shape[1] and self._to_accept:
            found[0] = np.full_like(found[0], self._to_accept.pop())
        return found


@pytest.fixture
def fake_mode():
    with FakeCuda() as mode:
        yield mode


@pytest.fixture
def config(model_folders):
    return replace(read_config(model_folders["target"]), vocab_size=VOCABULARY)


@pytest.fixture(autouse=True)
def _draft_errors_are_errors(monkeypatch):
    def reraise(self, sequences, drafter):
        # Called while one is handled.
        raise

    monkeypatch.setattr(TorchRunner, "_give_up", reraise)


def _target(config, dtype=torch.bfloat16, *, accepts: bool = False) -> Target:
    decoder = on_device(Decoder(config), dtype)
    identity = TargetIdentity("sha256:t", "sha256:k", VOCABULARY, config=config)
    return Target(decoder, identity, stop_tokens=frozenset({2}), device=Gpu(accepts=accepts))


def _drafter(kind: str, target: Target, engine: Engine):
    room, config = engine.runner.drafter_room, target.decoder.config
    dtype = target.device.draft_dtype(target.dtype)
    match kind:
        case "standalone":
            draft = on_device(StandaloneDraft.random(config, 0), dtype)
            return StandaloneDrafter("d", "sha256:d", draft, room)
        case "eagle3":
            head = on_device(Eagle3Draft.random(config, 0), dtype)
            head.attach(target.decoder)
            return Eagle3Drafter("d", "sha256:d", head, target, room)
    raise AssertionError(f"draft kind {kind} has no test on a GPU")


def _engine(target: Target, kind: str, *, length: int = 3) -> Engine:
    engine = new_engine(
        target,
        EngineSettings(
            max_batch=4,
            max_context_tokens=128,
            max_speculation_length=length,
            adaptive_speculation=False,
            prefill_tokens=16,
        ),
        on_completion=lambda completion: None,
    )
    if kind != "ngram":
        engine.stage("stable", _drafter(kind, target, engine))
    return engine


def _run(engine: Engine, samplings, *, record: bool = True) -> None:
    for number, sampling in enumerate(samplings):
        engine.submit(
            Request(
                id=str(number),
                # A repeated prompt, in which n-grams are found; fed in several pieces.
                prompt_tokens=(5, 6, 7, 8) * (3 + 3 * number),
                max_tokens=12,
                sampling=sampling,
                record=record,
            )
        )
    while not engine.idle:
        engine.step()


@pytest.mark.parametrize("kind", [*DRAFT_KINDS, "ngram"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_whole_requests_stay_on_the_device(fake_mode, config, kind, sampling):
    # Rows without a match draft nothing, of which nothing can be accepted.
    target = _target(config, accepts=kind != "ngram")
    _run(_engine(target, kind), SAMPLINGS[sampling])


def test_it_decodes_without_drafts(fake_mode, config):
    _run(_engine(_target(config, torch.float32), "ngram", length=0), SAMPLINGS["sampled"])


@pytest.mark.parametrize(("record", "waits"), [(False, 1), (True, 2)])
def test_a_step_waits_once_for_its_verdict_and_once_for_a_record(fake_mode, config, record, waits):
    target = _target(config)
    engine = _engine(target, "standalone")
    _run(engine, [GREEDY], record=record)
    engine.submit(
        Request(id="r", prompt_tokens=(5, 6), max_tokens=9, sampling=GREEDY, record=record)
    )
    engine.step()
    before = target.device.waits
    engine.step()
    assert target.device.waits - before == waits


def test_as_many_requests_run_as_fit_into_memory(fake_mode, config, monkeypatch):
    target = _target(config)
    needed = KeyValueCache.row_bytes(config, capacity=100, dtype=target.dtype)
    monkeypatch.setattr(target.device, "free_bytes", lambda percent: 3 * needed + 1)
    assert target.rows_within(8, capacity=100, memory_percent=90) == 3
    assert target.rows_within(2, capacity=100, memory_percent=90) == 2
    monkeypatch.setattr(target.device, "free_bytes", lambda percent: needed - 1)
    with pytest.raises(OutOfMemoryError, match=r"one request of 100 tokens takes .* GiB, and 90%"):
        target.rows_within(8, capacity=100, memory_percent=90)


def test_a_row_takes_what_is_said(config):
    cache = KeyValueCache(config, rows=3, capacity=100, dtype=torch.bfloat16, device="cpu")
    taken = sum(each.nbytes for each in (*cache.keys, *cache.values))
    assert taken == 3 * KeyValueCache.row_bytes(config, capacity=100, dtype=torch.bfloat16)


def test_a_broken_context_is_named(fake_mode, config, monkeypatch):
    def broken(*args, **options):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    engine = _engine(_target(config), "ngram")
    monkeypatch.setattr(Target, "prefill", broken)
    with pytest.raises(DeviceLostError, match=r"lost to this process: CUDA error: an illegal .*d$"):
        _run(engine, [GREEDY])


def _misplaced_norm(target, engine):
    norm = target.decoder.norm
    norm.weight = nn.Parameter(norm.weight.to("cpu"))


def _misplaced_cache(target, engine):
    engine.runner._cache.keys[0] = engine.runner._cache.keys[0].to("cpu")


def _misplaced_draft(target, engine):
    (drafter,) = engine._drafters.values()
    drafter._decoder.norm.weight = nn.Parameter(drafter._decoder.norm.weight.to("cpu"))


@pytest.mark.parametrize("misplace", [_misplaced_norm, _misplaced_cache, _misplaced_draft])
def test_a_tensor_left_on_the_cpu_is_an_error(fake_mode, config, misplace):
    target = _target(config)
    engine = _engine(target, "standalone")
    misplace(target, engine)
    with pytest.raises(RuntimeError, match="device"):
        _run(engine, [GREEDY])


def test_a_wait_for_the_device_is_an_error(fake_mode, config, monkeypatch):
    def asked(top, top_p):
        return bool((top.sum(dim=-1, keepdim=True) < top_p).any())

    monkeypatch.setattr(sampling_rows, "_may_be_wider", asked)
    engine = _engine(_target(config), "ngram")
    with pytest.raises(DataDependentOutputException):
        _run(engine, SAMPLINGS["sampled"])
