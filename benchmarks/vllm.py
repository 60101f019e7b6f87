"""Behind a stock vLLM: what a change of draft and the gateway cost, and whether evidence is exact.

`vllm_switch`, `vllm_gateway` and `vllm_evidence` one after the other, into one report. Needs the
environment of vLLM: `make bench-vllm`, twenty minutes on two cores.

    python -m benchmarks.vllm [--quick] [--activations N] [--rounds N] [--requests N] [--steps N]
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from benchmarks import vllm_gateway, vllm_switch
from benchmarks.option import Count, parse
from benchmarks.report import write_report
from benchmarks.vllm_evidence import evidence
from benchmarks.workload import workload
from stock.server import serving

from aurora_vllm.distribution import write_folder


def main() -> None:
    """Measures, prints, and writes out/bench/vllm.json."""
    options = parse(
        __doc__,
        {
            "activations": Count(300, 20),
            "rounds": Count(5, 1),
            "requests": Count(16, 8, "in each round"),
            "steps": Count(10_000, 200, "to be attributed"),
        },
    )
    # vLLM's attention on CPUs takes no heads as small as those of the quick models.
    work = workload(quick=False)
    amount = {"rounds": options.rounds, "requests": options.requests}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("switch: starting vLLM", flush=True)
        with serving(
            target=work.target,
            draft=work.static_draft,
            store=work.target.parent,
            python_path=[write_folder(folder / "plugin")],
            log=folder / "vllm.txt",
        ) as server:
            switching = vllm_switch.measure(work, server, activations=options.activations, **amount)
            figures = asyncio.run(switching)
            figures |= vllm_gateway.measure(work, server, folder, **amount)
    figures |= evidence(work, options.steps)
    write_report("vllm", figures)


if __name__ == "__main__":
    main()
