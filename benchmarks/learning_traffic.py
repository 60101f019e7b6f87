"""Requests to the demo's target, recorded once and kept beside its models.

What the target says does not depend on the draft, so every arm is given the very same requests.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks.workload import PROMPT_TOKENS, Workload, prompts_of

from aurora.buffer.v1 import buffer_pb2
from aurora_common.durable import write_file
from aurora_common.errors import InvalidInputError
from aurora_demo.corpus import DOMAINS
from aurora_demo.vocabulary import load_vocabulary
from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_inference.trajectory.completion import Completion
from aurora_inference.trajectory.record import trajectory
from aurora_model.folder import read_folder

SAMPLED_TEMPERATURE = 0.7
TEMPERATURES = (0.0, SAMPLED_TEMPERATURE)
# Requests of each domain that no arm is given, on which drafts are compared.
PROBES = 16
_CONTEXT_TOKENS = 512

Prompts: TypeAlias = Sequence[tuple[int, ...]]
Phases: TypeAlias = tuple[tuple[str, int], ...]
Pool: TypeAlias = Mapping[tuple[str, float], Sequence[buffer_pb2.Trajectory]]


@dataclass(frozen=True, slots=True)
class Story:
    """Requests of several domains in turn, to a draft that knows the first.

    `from_nothing`: to one with random weights instead.
    """

    name: str
    temperature: float
    phases: Phases
    from_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A story's requests in order, and for each domain some that are not among them."""

    entries: Sequence[buffer_pb2.Entry]
    probes: Mapping[str, Sequence[buffer_pb2.Entry]]


def recorded(
    work: Workload,
    counts: Mapping[str, int],
    prompted: Callable[[str, int], Prompts],
    *,
    tokens: int,
) -> Pool:
    """So many requests of each domain, at each temperature, of `tokens` output tokens.

    `prompted`: that many prompts of a domain.
    """
    pool: dict[tuple[str, float], Sequence[buffer_pb2.Trajectory]] = {}
    for domain, count in counts.items():
        prompts: Prompts = ()
        for temperature in TEMPERATURES:
            file = _file(work, domain, temperature, tokens)
            records = _read(file) if file.exists() else ()
            if len(records) < count:
                print(f"recording {count} requests of {domain} at T={temperature}", flush=True)
                prompts = prompts or prompted(domain, count)
                records = _recorded(work, domain, prompts, temperature, tokens)
                _write(file, records)
            pool[domain, temperature] = list(records)[:count]
    return pool


@dataclass(frozen=True, slots=True)
class OwnDomain:
    """A domain whose documents are the lines of a file; the name follows from its content."""

    file: Path
    name: str
    lines: tuple[str, ...] = field(repr=False)

    @classmethod
    def read(cls, file: Path) -> OwnDomain:
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"--domain: cannot read {file}: {error}") from error
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        return cls(file, f"own-{digest}", tuple(content.splitlines()))


@dataclass(frozen=True, slots=True)
class Prompter:
    """Prompts of the demo's domains, and of the reader's own."""

    work: Workload
    own: OwnDomain | None
    quick: bool

    def __call__(self, domain: str, count: int) -> Prompts:
        for known in DOMAINS:
            if domain == known:
                return prompts_of(self.work, known, count, quick=self.quick)
        assert self.own is not None
        vocabulary = load_vocabulary(self.work.target)
        encoded = (tuple(vocabulary.encode(line)[:PROMPT_TOKENS]) for line in self.own.lines)
        prompts = [prompt for prompt in encoded if prompt]
        if len(prompts) < count:
            raise InvalidInputError(
                f"--domain: {self.own.file} has {len(prompts)} documents, one a line: {count} or "
                "more are needed"
            )
        return prompts[:count]


def told(story: Story, pool: Pool, seed: int) -> Told:
    """The story with requests drawn by `seed`; there must be enough in the pool."""
    domains = sorted({domain for domain, _ in story.phases})
    waiting: dict[str, list[buffer_pb2.Trajectory]] = {}
    for domain in domains:
        fresh = list(pool[domain, story.temperature][PROBES:])
        random.Random(f"{seed} {domain}").shuffle(fresh)
        waiting[domain] = fresh
    drawn = [waiting[domain].pop() for domain, count in story.phases for _ in range(count)]
    return Told(
        entries=_entries(drawn),
        probes={domain: _entries(pool[domain, story.temperature][:PROBES]) for domain in domains},
    )


def needed(story: Story, domain: str) -> int:
    """How many requests of a domain the pool must have."""
    return PROBES + sum(count for each, count in story.phases if each == domain)


def _entries(records: Sequence[buffer_pb2.Trajectory]) -> list[buffer_pb2.Entry]:
    return [
        buffer_pb2.Entry(id=f"1-{number}", trajectory=record)
        for number, record in enumerate(records, start=1)
    ]


def _file(work: Workload, domain: str, temperature: float, tokens: int) -> Path:
    return work.target.parent / "bench" / f"traffic-{domain}-{temperature}-{tokens}.bin"


def _read(path: Path) -> Sequence[buffer_pb2.Trajectory]:
    return buffer_pb2.AppendRequest.FromString(path.read_bytes()).trajectories


def _write(path: Path, records: Sequence[buffer_pb2.Trajectory]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer_pb2.AppendRequest(trajectories=records).SerializeToString())


def _recorded(
    work: Workload,
    domain: str,
    prompts: Prompts,
    temperature: float,
    tokens: int,
) -> list[buffer_pb2.Trajectory]:
    completions: dict[str, Completion] = {}
    engine = new_engine(
        Target.load(read_folder(work.target), dtype=work.dtype, device=Cpu()),
        EngineSettings(max_context_tokens=_CONTEXT_TOKENS),
        on_completion=lambda each: completions.update({each.request.id: each}),
    )
    for number, prompt in enumerate(prompts):
        sampling = Sampling(temperature=temperature, seed=number if temperature else None)
        name = f"{domain}-{temperature}-{number}"
        engine.submit(Request(name, prompt, tokens, sampling, ignore_eos=True, domain=domain))
    while not engine.idle:
        engine.step()
    return [
        trajectory(
            completions[f"{domain}-{temperature}-{number}"],
            target_digest=work.identity.digest,
            tokenizer_digest=work.identity.tokenizer_digest,
            finished_at_ms=0,
        )
        for number in range(len(prompts))
    ]
