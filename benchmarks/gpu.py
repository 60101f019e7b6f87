"""Our kernels on a GPU, beside the plain torch that they replace, as it is and compiled.

Ratios are of times within one run, the best of several each; `_of_copy` is how much of the
bandwidth of a copy, measured here, a kernel reaches with the logits that it must read.
`distill_loss_memory` is the peak of a forward and backward pass beyond its inputs.

    python -m benchmarks.gpu [--quick] [--vocabulary N] [--rows N] [--positions N]
        [--width N]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, write_report
from torch import Tensor
from torch.utils.benchmark import Timer

from aurora_kernels import capture, distill_loss, verify
from aurora_kernels.capture import reference as plain_capture
from aurora_kernels.distill_loss import reference as plain_loss
from aurora_kernels.sampling import SamplingRows
from aurora_kernels.verify import Draws
from aurora_kernels.verify import reference as plain_verify

DRAFTED, TOP = 6, 64
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each kernel is given, on which device."""

    device: torch.device
    vocabulary: int
    rows: int
    positions: int
    width: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """Of a row that chance alone determines."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """A kernel and what it replaces; `read_bytes`: what it must read at least, 0 if it computes."""

    name: str
    ours: Run
    plain: Run
    compiled: Run
    read_bytes: int


def verification(sizes: Sizes) -> Contest:
    """A decode step of rows without truncation."""
    device = sizes.device
    logits = torch.randn(sizes.rows, DRAFTED + 1, sizes.vocabulary, device=device)
    probs = torch.randn(sizes.rows, DRAFTED, sizes.vocabulary, device=device).softmax(dim=-1)
    rows = SamplingRows([Sampling()] * sizes.rows, str(device))
    drafted = probs.argmax(dim=-1)
    lengths = torch.full((sizes.rows,), DRAFTED, device=device)
    uniforms = torch.rand(sizes.rows, 2 * DRAFTED + 1, device=device)
    draws = Draws(uniforms[:, :DRAFTED], uniforms[:, DRAFTED:], None)
    compiled = torch.compile(plain_verify.verify_logits)
    given = (logits, drafted, probs, lengths, rows, draws)
    return Contest(
        "verify",
        lambda: verify.verify_logits(*given),
        lambda: plain_verify.verify_logits(*given),
        lambda: compiled(*given),
        logits.nbytes,
    )


def capturing(sizes: Sizes) -> Contest:
    """The top tokens at as many positions as a step has."""
    logits = torch.randn(sizes.rows * (DRAFTED + 1), sizes.vocabulary, device=sizes.device)
    compiled = torch.compile(plain_capture.capture)
    return Contest(
        "capture",
        lambda: capture.capture(logits, TOP),
        lambda: plain_capture.capture(logits, TOP),
        lambda: compiled(logits, TOP),
        logits.nbytes,
    )


def training(sizes: Sizes) -> Contest:
    """Forward and backward of the loss's log-probabilities."""
    device = sizes.device
    hidden = torch.randn(sizes.positions, sizes.width, device=device, requires_grad=True)
    head = torch.randn(sizes.vocabulary, sizes.width, device=device, requires_grad=True)
    first = torch.randint(0, sizes.vocabulary - TOP, (sizes.positions, 1), device=device)
    ids = first + torch.arange(TOP, device=device)
    compiled = torch.compile(plain_loss.bucket_log_probs)

    def both_ways(form: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Run:
        def run() -> object:
            return torch.autograd.grad(form(hidden, head, ids).sum(), (hidden, head))

        return run

    return Contest(
        "distill_loss",
        both_ways(distill_loss.bucket_log_probs),
        both_ways(plain_loss.bucket_log_probs),
        both_ways(compiled),
        0,
    )


def seconds(run: Run) -> float:
    """The best of several times, each with the device idle before and after."""
    timer = Timer("run()", globals={"run": run})
    return float(min(timer.blocked_autorange(min_run_time=0.5).times))


def copy_bandwidth(device: torch.device, count: int) -> float:
    """Bytes a second, read and written, of copying `count` float32."""
    source, destination = torch.empty(2, count, device=device)
    return float(2 * source.nbytes / seconds(lambda: destination.copy_(source)))


def figures_of(contest: Contest, bandwidth: float) -> dict[str, Figure]:
    """The times of both, and their ratios."""
    ours, plain, compiled = (
        seconds(run) for run in (contest.ours, contest.plain, contest.compiled)
    )
    figures = {
        contest.name: exact_figure(ours * 1e6, "µs"),
        f"{contest.name}_plain_over_ours": exact_figure(plain / ours, "ratio"),
        f"{contest.name}_compiled_over_ours": exact_figure(compiled / ours, "ratio"),
    }
    if contest.read_bytes:
        reached = 100 * contest.read_bytes / ours / bandwidth
        figures[f"{contest.name}_of_copy"] = exact_figure(reached, "%")
    return figures


def peak_bytes(run: Run) -> int:
    """How much more than before is allocated while it runs."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    """Measures, prints, and writes out/bench/gpu.json."""
    options = parse(
        __doc__,
        {
            "vocabulary": Count(151_936, 2048),
            "rows": Count(8, 2, "of a decode step"),
            "positions": Count(4096, 64, "of a training step"),
            "width": Count(1024, 64, "of hidden states"),
        },
    )
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device, and torch finds none here")
    device = torch.device("cuda")
    sizes = Sizes(device, options.vocabulary, options.rows, options.positions, options.width)
    bandwidth = copy_bandwidth(device, 1 << 28)
    figures = {"copy": exact_figure(bandwidth / 1e9, "GB/s")}
    for build in (verification, capturing, training):
        figures |= figures_of(build(sizes), bandwidth)
    loss = training(sizes)
    shares = peak_bytes(loss.ours) / peak_bytes(loss.plain)
    figures["distill_loss_memory_ours_over_plain"] = exact_figure(shares, "ratio")
    write_report("gpu", figures)


if __name__ == "__main__":
    main()
