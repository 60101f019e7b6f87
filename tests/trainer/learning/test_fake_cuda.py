"""A training step on a GPU, as far as it can be shown without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, backward, nothing, on_device

from aurora_model.decoder import Decoder
from aurora_model.draft import draft_kind, eagle3_unroll
from aurora_trainer.data.batch import pack
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.judge import acceptance as judged
from aurora_trainer.judge.sampling import Sampling
from aurora_trainer.learning import gradient, learner
from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.learning.learner import Learner, LearnerSettings

# Copies of a module ask for it.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
# Which kind, and whether beside the target, which then computes what it thinks.
CASES = [("standalone", False), ("standalone", True), ("eagle3", True)]


def _copied(tensors):
    """What a host copy gives: the places of rows ascend, and all else is 0."""
    copies = [nothing(each) for each in tensors]
    return [np.arange(len(each)) if each.dtype == np.int64 else each for each in copies]


@pytest.fixture
def samples(make_samples):
    return make_samples(3)


@pytest.fixture
def fake_mode(samples, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    for module in (gradient, learner, eagle3_unroll):
        monkeypatch.setattr(module, "on_host", _copied)
    monkeypatch.setattr(judged, "on_host", lambda tensors: [nothing(each) for each in tensors])
    with FakeCuda() as mode:
        yield mode


def _learner(config, kind: str, *, beside_target: bool) -> Learner:
    draft = on_device(draft_kind(kind).random(config, 0), torch.float32)
    settings = LearnerSettings(objective="LK", learning_rate=1e-3, unroll=Unroll(3))
    if not beside_target:
        return Learner(draft, settings, packed=lambda samples: pack(samples, device=DEVICE))
    target = on_device(Decoder(config), torch.float32).requires_grad_(requires_grad=False)
    draft.attach(target)
    teacher = Teacher(target, draft.target_layers(config))
    return Learner(draft, settings, packed=teacher.pack)


@pytest.mark.parametrize(("kind", "beside_target"), CASES)
def test_a_step_stays_on_the_device(target, samples, fake_mode, kind, beside_target):
    trained = _learner(target.decoder.config, kind, beside_target=beside_target)
    for _ in range(2):
        assert trained.step(samples).applied
    trained.evaluate(samples)
    for parameter in (*trained.draft.parameters(), *trained.average.parameters()):
        assert parameter.device == DEVICE
    for parameter in trained.draft.parameters():
        assert parameter.grad is not None
        assert parameter.grad.device == DEVICE
    trained.restore_snapshot()


@pytest.mark.parametrize(("kind", "beside_target"), CASES)
def test_a_request_is_judged_on_the_device(target, samples, fake_mode, kind, beside_target):
    trained = _learner(target.decoder.config, kind, beside_target=beside_target)
    teacher = trained._packed.__self__ if beside_target else None
    for temperature in (0.0, 0.7):
        judged.acceptance(
            trained.average,
            samples[0],
            Sampling(temperature, top_k=5),
            vocab_size=target.decoder.config.vocab_size,
            drafted=1,
            teacher=teacher,
        )


@pytest.mark.parametrize(("kind", "beside_target"), CASES)
def test_a_batch_left_on_the_cpu_is_an_error(
    target, samples, fake_mode, monkeypatch, kind, beside_target
):
    trained = _learner(target.decoder.config, kind, beside_target=beside_target)
    packed = trained._packed
    monkeypatch.setattr(
        trained._gradient, "_packed", lambda samples: _with_tokens_on_cpu(packed(samples))
    )
    with pytest.raises(RuntimeError, match="device"):
        trained.step(samples)


def _with_tokens_on_cpu(batch):
    return replace(batch, tokens=batch.tokens.to("cpu"), positions=batch.positions.to("cpu"))
