"""A scripted engine behind the real fronts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import httpx2
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aurora_common.errors import OverloadedError
from aurora_common.store.registry import model_store
from aurora_inference.contract import (
    ArmCounters,
    DraftCounters,
    EngineCounters,
    FinishReason,
    Progress,
    Receipt,
    Request,
    SpeculationReport,
)
from aurora_inference.http.app import openai_app
from aurora_inference.native.control import NativeControl
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.serving.gate import Gate, Serving
from aurora_inference.serving.metrics import RequestMetrics
from aurora_inference.serving.text_service import ServedModel, TextService

MODEL = "tiny"
CONTEXT_TOKENS = 200
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'developer' %}{{ raise_exception('no developers') }}"
    "{% endif %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_CORPUS = ["hello world, this is a test of 世界 and 🙂 naïve café STOP words here"] * 3


def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=320,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<unk>", "<s>", "</s>"],
            show_progress=False,
        ),
    )
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), eos_token="</s>")
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


@dataclass
class ScriptedRunner:
    """`checkpoints`: what is on disk, digest to a drafter or to the error that loading raises."""

    checkpoints: dict[str, object] = field(default_factory=dict)
    draft_kinds = ("standalone",)
    device = "cpu"

    def load_drafter(self, folder, digest):
        found = self.checkpoints[digest]
        if isinstance(found, Exception):
            raise found
        return found


class ScriptedEngine(Engine):
    """The slots are real; counters and the pause of a promotion are fixed."""

    def __init__(self) -> None:
        super().__init__(ScriptedRunner(), EngineSettings(), on_completion=lambda _: None)
        self.slots.outcomes.instance = "instance-1"

    def counters(self) -> EngineCounters:
        stable = ArmCounters(
            requests=2,
            verify_steps=5,
            drafted_tokens=20,
            accepted_tokens=9,
            output_tokens=14,
            accepted_per_position=[5, 3, 1],
        )
        arms = {"stable": stable, "candidate": ArmCounters()}
        ngram = DraftCounters(
            verify_steps=3, drafted_tokens=9, accepted_tokens=4, accepted_per_position=[2, 1, 1, 0]
        )
        return EngineCounters("instance-1", arms, running=1, waiting=2, ngram=ngram)

    def promote(self, digest: str) -> Receipt:
        super().promote(digest)
        return Receipt(7)


@dataclass
class ScriptedWorker:
    """Answers each request with `steps`, a group of tokens each, then with `finish`.

    `finish` None: the request runs until it is cancelled.
    """

    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    steps: list[tuple[int, ...]] = field(default_factory=list)
    finish: FinishReason | None = "length"
    full: bool = False
    # Whether the newest cancellation said that the text is complete.
    answered: bool = False
    problem: str = ""
    requests: list[Request] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    sinks: dict[str, Callable[[Progress], None]] = field(default_factory=dict)

    def submit(self, request: Request, sink: Callable[[Progress], None]) -> None:
        if self.full:
            raise OverloadedError("64 requests are waiting already, the most allowed")
        self.requests.append(request)
        self.sinks[request.id] = sink
        for place, tokens in enumerate(self.steps, start=1):
            last = place == len(self.steps)
            self._report(request, tokens, self.finish if last else None)

    def cancel(self, request_id: str, *, answered: bool = False) -> None:
        self.cancelled.set()
        self.answered = answered
        sink = self.sinks.pop(request_id, None)
        if sink is not None:
            sink(Progress(request_id, (), "cancelled", self.report()))

    def between_steps(self, operation):
        future: Future = Future()
        try:
            future.set_result(operation())
        except Exception as error:  # noqa: BLE001 - handed to the caller
            future.set_exception(error)
        return future

    def report(self) -> SpeculationReport:
        return SpeculationReport("ckpt-7", "sha256:" + "7" * 64, "stable", 4, 12, 6, 5, 2)

    def _report(self, request: Request, tokens, finish) -> None:
        report = self.report() if finish is not None else None
        if finish is not None:
            self.sinks.pop(request.id)(Progress(request.id, tuple(tokens), finish, report))
        else:
            self.sinks[request.id](Progress(request.id, tuple(tokens), None, None))


@pytest.fixture
def worker() -> ScriptedWorker:
    return ScriptedWorker()


@pytest.fixture
def loads(worker) -> dict[str, object]:
    return worker.engine.runner.checkpoints


@pytest.fixture
async def serving(worker, tokenizer) -> Serving:
    text = TextService(
        worker,
        tokenizer,
        ServedModel(MODEL, CONTEXT_TOKENS, len(tokenizer), 100, 1_700_000_000),
        RequestMetrics(MODEL),
    )
    control = NativeControl(worker.engine, worker, model_store())
    return Serving(text, control, "sha256:target", "sha256:tokenizer", None)


@pytest.fixture
async def gate(serving) -> Gate:
    opened = Gate()
    opened.open(serving)
    return opened


@pytest.fixture
async def http(gate):
    """A client of the HTTP application, without a network."""
    transport = httpx2.ASGITransport(
        openai_app(gate, opt_out_header="x-aurora-no-train"), raise_app_exceptions=False
    )
    async with httpx2.AsyncClient(transport=transport, base_url="http://aurora") as client:
        yield client


def events(body: str) -> list[dict]:
    """The JSON events of a stream, which must end with [DONE]."""
    lines = [line for line in body.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
