"""What judging costs: the processor time of scoring requests, by that of having served them.

A server with the adapted draft serves eight requests at a time and records all of them into a real
buffer with a real Redis. The judge then scores both drafts on each, as during a rollout.
`judging_cost_share` is its processor time by the server's for the same requests.

    python -m benchmarks.judging [--quick] [--rounds N] [--prompts N]
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc
import torch
from benchmarks.capture import buffering, tokens_per_second
from benchmarks.learning_side import record_format
from benchmarks.option import Count, parse
from benchmarks.report import median_figure, write_report
from benchmarks.server import serving
from benchmarks.sizing import processor_seconds
from benchmarks.workload import Workload, workload

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_client import AuroraClient
from aurora_model.draft import load_draft
from aurora_trainer.judge.comparison import Comparison, JudgedDraft, Pair, Score

STREAMS = 8
_SECONDS = 60.0
_PAGE = 32


class Recorded:
    """What the buffer has, read in order."""

    def __init__(self, address: str) -> None:
        channel = grpc.insecure_channel(address)
        self._stub = buffer_pb2_grpc.BufferStub(channel)  # type: ignore[no-untyped-call]
        self._after = ""

    def next(self, count: int) -> list[buffer_pb2.Entry]:
        """The next so many; raises TimeoutError if they do not come."""
        found: list[buffer_pb2.Entry] = []
        deadline = time.monotonic() + _SECONDS
        while len(found) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(found)} of {count} requests were recorded")
            request = buffer_pb2.ReadRequest(after=self._after, limit=_PAGE)
            entries = self._stub.Read(request, timeout=_SECONDS).entries
            if not entries:
                time.sleep(0.1)
                continue
            found += entries
            self._after = entries[-1].id
        return found


def comparison(work: Workload) -> Comparison:
    """Of the adapted draft, which serves, and the static one."""
    pair, drafts = [], []
    for folder in (work.adapted_draft, work.static_draft):
        draft, manifest = load_draft(folder, target=work.identity, dtype=torch.float32)
        drafts.append(draft)
        pair.append(JudgedDraft(manifest.digest, folder.as_uri()))
    return Comparison(
        Pair(pair[0], pair[1], any_shape=True),
        stable=drafts[0],
        candidate=drafts[1],
        record_format=record_format(work),
    )


def judge(judging: Comparison, entries: Sequence[buffer_pb2.Entry]) -> float:
    """The processor seconds of scoring them; raises RuntimeError if one has no score."""
    began = time.process_time()
    scores = [judging.score(entry) for entry in entries]
    spent = time.process_time() - began
    unjudged = [each for each in scores if not isinstance(each, Score)]
    if unjudged:
        raise RuntimeError(f"{len(unjudged)} requests have no score: {unjudged[0]}")
    return spent


def main() -> None:
    """Measures, prints, and writes out/bench/judging.json."""
    options = parse(__doc__, {"rounds": Count(11, 1), "prompts": Count(32, 8, "in each round")})
    work = workload(quick=options.quick)
    prompts = work.prompts(options.prompts)
    adapted = ("--draft", str(work.adapted_draft))
    digest = ("--draft-digest", work.draft_named("adapted").digest)
    served: list[float] = []
    judged: list[float] = []
    judging = comparison(work)
    with (
        buffering() as buffer,
        serving(work, "--buffer", buffer, *adapted, *digest) as server,
        AuroraClient(server.grpc) as client,
    ):
        recorded = Recorded(buffer)
        # The first round warms everything up and is not counted.
        for _ in range(options.rounds + 1):
            before = processor_seconds(server.pid)
            tokens_per_second(client, prompts, record=True, streams=STREAMS)
            entries = recorded.next(len(prompts))
            served.append(processor_seconds(server.pid) - before)
            judged.append(judge(judging, entries))
    shares = [one / other for one, other in zip(judged[1:], served[1:], strict=True)]
    each = 1e3 / len(prompts)
    write_report(
        "judging",
        {
            "judging_cost_share": median_figure(shares, "share"),
            "judging_ms_per_request": median_figure([each * one for one in judged[1:]], "ms"),
            "serving_ms_per_request": median_figure([each * one for one in served[1:]], "ms"),
        },
    )


if __name__ == "__main__":
    main()
