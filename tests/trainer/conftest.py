"""A tiny target with peaked distributions, trajectories that it produced, and processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificate import Authority

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora.trainer.v1 import judge_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from aurora_common.port import free_port
from aurora_model.config import parse_config
from aurora_model.decoder import Decoder, causal_attend
from aurora_model.draft import random_draft
from aurora_model.target import TargetIdentity, target_identity
from aurora_model.weights import save_decoder
from aurora_trainer.data.record import RecordFormat, sample_from
from aurora_trainer.data.sample import Sample
from aurora_trainer.published import published_after
from aurora_trainer.settings import TrainSettings

VOCABULARY = 64
TOP = 8
PROMPT, OUTPUT = 4, 20
OPERATOR = "chat-operator.serving.svc"
SECONDS = 60.0

torch.set_num_threads(1)


@dataclass(frozen=True)
class TinyTarget:
    """A target on disk and in memory."""

    folder: Path
    identity: TargetIdentity
    decoder: Decoder

    @property
    def record_format(self) -> RecordFormat:
        return RecordFormat(
            self.identity.digest, self.identity.tokenizer_digest, VOCABULARY, max_tokens=128
        )


@pytest.fixture(scope="session")
def target(tmp_path_factory) -> TinyTarget:
    folder = tmp_path_factory.mktemp("target")
    config = parse_config(
        {
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "tie_word_embeddings": False,
        }
    )
    decoder = random_draft(config, seed=7)
    # Mostly the last token decides, and it decides clearly: what one layer can learn quickly.
    with torch.no_grad():
        decoder.embed_tokens.weight *= 10
        decoder.lm_head.weight *= 2
    save_decoder(decoder, folder)
    (folder / "tokenizer.json").write_text("{}")
    return TinyTarget(folder, target_identity(folder), decoder)


@pytest.fixture
def settings(tmp_path, target) -> TrainSettings:
    return TrainSettings(
        listen="127.0.0.1:0",
        metrics_listen=None,
        buffer="127.0.0.1:1",
        target=target.folder.as_uri(),
        models=tmp_path / "models",
        state=tmp_path / "state",
        draft=None,
        min_new_trajectories=10,
        min_interval_seconds=0.0,
        objective="LK",
        learning_rate=3e-3,
        batch_size=4,
        steps_per_round=3,
        holdout_percent=20,
        seed=0,
    )


@pytest.fixture(scope="session")
def make_records(target) -> Callable[..., list[buffer_pb2.Trajectory]]:
    """make_records(count, seed=0): the target's outputs after random prompts."""

    @torch.no_grad()
    def make(count: int, *, seed: int = 0, domain: str = "a") -> list[buffer_pb2.Trajectory]:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(VOCABULARY, (count, PROMPT), generator=generator)
        for _ in range(OUTPUT):
            probs = log_probs_after(target.decoder, tokens)[:, -1].exp()
            drawn = torch.multinomial(probs, 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
        rows = log_probs_after(target.decoder, tokens)[:, PROMPT - 1 : -1]
        return [
            record(target, tokens[i], rows[i], request_id=f"{domain}-{seed}-{i}", domain=domain)
            for i in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def make_samples(target, make_records) -> Callable[..., list[Sample]]:
    """make_samples(count, seed=0): the same as samples with increasing stream ids."""

    def make(count: int, *, seed: int = 0, domain: str = "a") -> list[Sample]:
        records = make_records(count, seed=seed, domain=domain)
        return [
            sample_from(f"{1000 + seed}-{i}", each, target.record_format)
            for i, each in enumerate(records)
        ]

    return make


def log_probs_after(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """[B, T] -> [B, T, V]."""
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return decoder.logits(decoder(tokens, positions, causal_attend)).log_softmax(-1)


def record(
    target: TinyTarget, tokens: torch.Tensor, rows: torch.Tensor, *, request_id: str, domain: str
) -> buffer_pb2.Trajectory:
    log_probs, ids = rows.topk(TOP, dim=-1)
    tail = (1 - log_probs.exp().sum(-1)).clamp_min(0)
    return buffer_pb2.Trajectory(
        request_id=request_id,
        domain=domain,
        target_digest=target.identity.digest,
        tokenizer_digest=target.identity.tokenizer_digest,
        sampling=buffer_pb2.Sampling(temperature=1.0, top_p=1.0),
        prompt_tokens=tokens[:PROMPT].tolist(),
        output_tokens=tokens[PROMPT:].tolist(),
        target=buffer_pb2.TargetDistributions(
            k=TOP,
            token_ids=ids.numpy().astype("<u4").tobytes(),
            log_probs=log_probs.numpy().astype("<f2").tobytes(),
            tail_mass=tail.numpy().astype("<f2").tobytes(),
        ),
    )


@pytest.fixture(scope="session")
def next_log_probs() -> Callable[[Decoder, torch.Tensor], torch.Tensor]:
    """next_log_probs(decoder, tokens): [B, T] -> [B, T, V]."""
    return log_probs_after


@pytest.fixture(scope="session")
def plain_sample() -> Callable[..., Sample]:
    """plain_sample(number, domain="a", outputs=4): a sample with dummy contents."""

    def make(number: int, *, domain: str = "a", outputs: int = 4) -> Sample:
        return Sample(
            stream_id=f"{number}-0",
            request_id=f"request-{number}",
            domain=domain,
            tokens=np.full(outputs + 2, number % VOCABULARY, np.int32),
            top_ids=np.zeros((outputs, 1), np.int32),
            log_probs=np.zeros((outputs, 1), np.float16),
            tail_mass=np.zeros(outputs, np.float16),
        )

    return make


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


class Child:
    """A child process with its log; `close` kills it if it still runs."""

    def __init__(self, folder: Path, module: str, *arguments: object) -> None:
        self._arguments = [sys.executable, "-m", module, *map(str, arguments)]
        self._log = folder / f"{module}-{'-'.join(map(str, arguments[:3]))}.log".replace("/", "_")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._arguments, stderr=log, stdout=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Certified:
    """The certificates of a world's components, all of which are also valid for `localhost`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = Authority()

    def flags(self, name: str, *, admit: str) -> tuple[object, ...]:
        return ("--tls", self.issued(name), "--admit", admit)

    def issued(self, name: str) -> Path:
        return self.authority.issue(self._folder / f"{name}-tls", name, "localhost")

    def channel(self, port: int, peer: str = OPERATOR) -> grpc.Channel:
        folder = self.issued(peer)
        credentials = grpc.ssl_channel_credentials(
            *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        )
        return grpc.secure_channel(f"localhost:{port}", credentials)


class World:
    """Redis, buffer and trainer, with clients of both services."""

    def __init__(
        self,
        folder: Path,
        target: Path,
        stack: contextlib.ExitStack,
        certified: Certified | None = None,
        trainer_flags: tuple[object, ...] = (),
    ) -> None:
        self._folder, self._stack = folder, stack
        self.buffer_port = free_port()
        self.trainer_port, self.metrics_port = free_port(), free_port()
        self.models, self.state = folder / "models", folder / "state"
        self.redis = Child(
            folder, "aurora_buffer", "redis", "--dir", folder / "redis",
            "--socket", folder / "redis.sock", "--appendfsync", "always",
        )  # fmt: skip
        self.buffer = Child(
            folder, "aurora_buffer", "serve", "--listen", f"127.0.0.1:{self.buffer_port}",
            "--redis-url", f"unix://{folder / 'redis.sock'}",
            "--max-age-seconds", 3600, "--max-bytes", 1 << 30,
            *(certified.flags("buffer", admit="localhost") if certified else ()),
        )  # fmt: skip
        self.trainer_arguments = (
            "train", "--listen", f"127.0.0.1:{self.trainer_port}",
            "--metrics-listen", f"127.0.0.1:{self.metrics_port}",
            "--buffer", f"localhost:{self.buffer_port}",
            "--target", target, "--models", self.models, "--state", self.state,
            "--min-new-trajectories", 10, "--min-interval-seconds", 0,
            "--objective", "LK", "--learning-rate", "3e-3", "--batch-size", 4,
            "--steps-per-round", 50, "--holdout-percent", 10,
            *(certified.flags("trainer", admit=OPERATOR) if certified else ()),
            *trainer_flags,
        )  # fmt: skip
        self.trainer = Child(folder, "aurora_trainer", *self.trainer_arguments)
        for child in (self.redis, self.buffer, self.trainer):
            stack.callback(child.close)
        options = [("grpc.max_reconnect_backoff_ms", 200)]
        self._buffer_channel, self.trainer_channel = (
            stack.enter_context(
                certified.channel(port)
                if certified
                else grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
            )
            for port in (self.buffer_port, self.trainer_port)
        )
        self.buffer_stub = buffer_pb2_grpc.BufferStub(self._buffer_channel)
        self.trainer_stub = trainer_pb2_grpc.TrainerStub(self.trainer_channel)
        self.judge_stub = judge_pb2_grpc.JudgeStub(self.trainer_channel)

    def rank(self, trainer_port: int, *flags: object) -> Child:
        """A rank beside the trainer whose ranks meet at a port, not started."""
        return new_rank(self._folder, self._stack, trainer_port, *flags)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits for the condition, and fails after a timeout."""
        until(condition, what)

    def start_buffer(self) -> None:
        if self.redis.process is None:
            self.redis.start()
        self.buffer.start()
        until(lambda: self._serving(self._buffer_channel), "the buffer serves")

    def start_trainer(self) -> None:
        self.trainer.start()
        until(lambda: self._serving(self.trainer_channel), "the trainer serves")

    def _serving(self, channel: grpc.Channel) -> bool:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def append(self, records: list[buffer_pb2.Trajectory]) -> None:
        request = buffer_pb2.AppendRequest(trajectories=records)
        self.buffer_stub.Append(iter([request]), timeout=SECONDS)

    def pending_and_lag(self) -> tuple[int, int] | None:
        for group in self.buffer_stub.GetStats(
            buffer_pb2.GetStatsRequest(), timeout=SECONDS
        ).groups:
            if group.name == "trainer":
                return group.pending, group.lag
        return None

    def last_id(self) -> str:
        return self.buffer_stub.GetStats(buffer_pb2.GetStatsRequest(), timeout=SECONDS).last_id

    def status(self) -> trainer_pb2.GetStatusResponse:
        return self.trainer_stub.GetStatus(trainer_pb2.GetStatusRequest(), timeout=SECONDS)

    def sequences(self) -> list[int]:
        return [each.sequence for each in published_after(self.models, 0)]


def new_rank(folder: Path, stack: contextlib.ExitStack, trainer_port: int, *flags: object) -> Child:
    child = Child(
        folder, "aurora_trainer", "rank", "--listen", f"127.0.0.1:{free_port()}",
        "--trainer", f"127.0.0.1:{trainer_port}", "--local-ranks", 2, *flags,
    )  # fmt: skip
    stack.callback(child.close)
    return child


@pytest.fixture
def make_world(tmp_path, target) -> Iterator[Callable[..., World]]:
    """make_world(certified=None, trainer_flags=()): a world with nothing started."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: World(tmp_path, target.folder, stack, **options)


@pytest.fixture
def world(make_world) -> World:
    return make_world()


@pytest.fixture
def certified(tmp_path) -> Certified:
    return Certified(tmp_path)


@pytest.fixture
def secure_world(make_world, certified) -> World:
    return make_world(certified=certified)


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], object], str], None]:
    """until(condition, what): waits for the condition, and fails after a timeout."""
    return until


@pytest.fixture
def make_rank(tmp_path) -> Iterator[Callable[..., Child]]:
    """make_rank(port, *flags): a rank for the trainer whose ranks meet at the port, not started."""
    with contextlib.ExitStack() as stack:
        yield lambda port, *flags: new_rank(tmp_path, stack, port, *flags)
