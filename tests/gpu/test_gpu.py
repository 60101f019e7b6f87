"""The engine and the trainer on a real GPU: `make test-gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import EngineSettings
from aurora_inference.native.launch import device_named, new_engine
from aurora_inference.native.runner.target import Target
from aurora_model.decoder import causal_attend
from aurora_model.device import OutOfMemoryError, memory_for, usable_device
from aurora_model.draft import Eagle3Draft, publish_draft, random_draft, small_draft_config
from aurora_model.folder import read_folder
from aurora_model.weights import load_decoder
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.learning.learner import Learner, LearnerSettings

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no usable GPU"),
]

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def device() -> torch.device:
    return usable_device(DEVICE)


def _engine(folder, dtype, draft=None):
    target = Target.load(read_folder(folder), dtype=dtype, device=device_named(DEVICE))
    settings = EngineSettings(max_context_tokens=256, adaptive_speculation=False)
    engine = new_engine(target, settings, on_completion=lambda completion: None)
    if draft is not None:
        engine.stage("stable", engine.runner.load_drafter(draft, ""))
    return engine


def _texts(engine, samplings) -> list[list[int]]:
    for number, sampling in enumerate(samplings):
        prompt = tuple(range(3, 40 + 11 * number))
        engine.submit(Request(str(number), prompt, 40, sampling, ignore_eos=True))
    texts = [[] for _ in samplings]
    while not engine.idle:
        for progress in engine.step():
            texts[int(progress.request_id)] += progress.token_ids
            assert progress.finish_reason in (None, "length")
    return texts


@pytest.fixture(scope="module")
def drafts(target_folder, identity, tmp_path_factory):
    root = tmp_path_factory.mktemp("drafts")
    config = load_decoder(target_folder, dtype=torch.float32).config
    made = {
        "standalone": random_draft(small_draft_config(config), 1),
        "eagle3": Eagle3Draft.random(config, 1),
    }
    return {
        kind: publish_draft(draft, root, name=kind, target=identity)[0]
        for kind, draft in made.items()
    }


def test_logits_are_those_of_the_cpu(target_folder, device):
    tokens = torch.arange(3, 60)[None]
    found = []
    for each in ("cpu", str(device)):
        decoder = load_decoder(target_folder, dtype=torch.float32, device=each)
        fed = tokens.to(each)
        positions = torch.arange(tokens.shape[1], device=each)[None]
        with torch.inference_mode():
            found.append(decoder.logits(decoder(fed, positions, causal_attend)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["standalone", "eagle3"])
def test_a_draft_changes_no_text(target_folder, drafts, kind):
    plain = _texts(_engine(target_folder, torch.float32), [GREEDY] * 4)
    assert _texts(_engine(target_folder, torch.float32, drafts[kind]), [GREEDY] * 4) == plain


@pytest.mark.parametrize("kind", ["standalone", "eagle3"])
def test_every_sampling_runs_in_bfloat16(target_folder, drafts, kind):
    samplings = [
        GREEDY,
        Sampling(1.0),
        Sampling(0.8, top_p=0.9),
        Sampling(1.0, top_k=5),
        Sampling(1.0, seed=1),
    ]
    texts = _texts(_engine(target_folder, torch.bfloat16, drafts[kind]), samplings)
    assert [len(text) for text in texts] == [40] * len(samplings)


def _samples(vocabulary: int, count: int) -> list[Sample]:
    """Token ids alone, of which the target computes what it thinks."""
    random = np.random.default_rng(0)
    nothing = np.zeros((32, 0))
    return [
        Sample(
            stream_id=f"1-{number}",
            request_id=str(number),
            domain="",
            tokens=random.integers(3, vocabulary, 48).astype(np.int32),
            top_ids=nothing.astype(np.int32),
            log_probs=nothing.astype(np.float16),
            tail_mass=np.ones(32, np.float16),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("kind", ["standalone", "eagle3"])
def test_losses_are_those_of_the_cpu(target_folder, identity, device, kind):
    samples = _samples(identity.vocab_size, 8)
    losses = {}
    for each in ("cpu", str(device)):
        target = load_decoder(target_folder, dtype=torch.float32, device=each)
        target.requires_grad_(requires_grad=False)
        draft = (
            Eagle3Draft.random(target.config, 1)
            if kind == "eagle3"
            else random_draft(small_draft_config(target.config), 1)
        ).to(each)
        draft.attach(target)
        teacher = Teacher(target, draft.target_layers(target.config))
        settings = LearnerSettings(objective="LK", learning_rate=1e-3, unroll=Unroll(3))
        learner = Learner(draft, settings, packed=teacher.pack)
        losses[each] = [learner.step(samples).loss for _ in range(5)]
    assert losses[str(device)] == pytest.approx(losses["cpu"], rel=1e-3)


def test_too_little_memory_is_named(device):
    with (
        pytest.raises(OutOfMemoryError, match="out of device memory for a test"),
        memory_for("a test"),
    ):
        torch.empty(1 << 46, device=device)
