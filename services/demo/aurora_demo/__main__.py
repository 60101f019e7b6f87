"""`aurora demo`: trains tiny models, runs a scenario of shifting traffic, and writes a report.

Two deployments get the same traffic, one with a frozen draft and one whose draft learns from it:
real text first, then a shift to generated logs, then back. At last a worse and a slower draft are
published on purpose.
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the deployments share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import asyncio
import json
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from aurora_client import AuroraClientError
from aurora_common.durable import write_file
from aurora_common.errors import AuroraError, StorageError
from aurora_common.flag import add_version_flag
from aurora_common.machine import machine_description
from aurora_common.port import free_port
from aurora_demo.corpus import (
    ORIGINS,
    TRAFFIC_MODULES,
    TRAINING_MODULES,
    read_modules,
)
from aurora_demo.deployment import Deployment, Ports
from aurora_demo.head import HEAD_TRAINING, HeadKind, with_head
from aurora_demo.measurement import Measurement, figures
from aurora_demo.models import (
    DemoModels,
    cache_root,
    parameter_count,
    prepared_models,
    training_documents,
)
from aurora_demo.offer import OFFERS, Offering
from aurora_demo.progress import TrainingProgress
from aurora_demo.recipe import RECIPE
from aurora_demo.report import page, picture
from aurora_demo.run import Story
from aurora_demo.scenario import SCENARIO, SIDES, Scenario, Side
from aurora_demo.screen import LiveScreen
from aurora_demo.traffic import fresh_prompts


def main() -> None:
    """Runs the demo; on an error exits with code 1 and one line."""
    parser = argparse.ArgumentParser(prog="aurora demo", description=__doc__)
    add_version_flag(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for the report (%(default)s)"
    )
    parser.add_argument(
        "--kind",
        choices=("Standalone", *get_args(HeadKind)),
        default="Standalone",
        help="of both drafts (%(default)s)",
    )
    options = parser.parse_args()
    console = Console()
    try:
        _run(options.out.absolute(), options.kind, console)
    except (AuroraError, AuroraClientError) as error:
        sys.exit(f"aurora demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(out: Path, kind: HeadKind | Literal["Standalone"], console: Console) -> None:
    _clear(out)
    library = Path(sysconfig.get_path("stdlib"))
    documents = training_documents(RECIPE, library)
    progress = TrainingProgress(console)
    models = prepared_models(RECIPE, documents, cache_root(), progress)
    if kind != "Standalone":
        models = with_head(models, kind, documents[HEAD_TRAINING.domain], progress)
    seen = "\n".join(text for texts in documents.values() for text in texts)
    prompts = _prompts(SCENARIO, models, read_modules(library, TRAFFIC_MODULES), seen)
    console.print(
        f"starting two deployments of kind {kind}: one with a frozen draft, one whose draft learns",
        highlight=False,
    )
    with ExitStack() as stack:
        deployments: dict[Side, Deployment] = {
            side: stack.enter_context(
                Deployment(side, out / side, Ports(free_port(), free_port()), models)
            )
            for side in SIDES
        }
        for deployment in deployments.values():
            deployment.wait_until_ready()
        screen = LiveScreen(SCENARIO, console)
        with screen.shown():
            offering = Offering(deployments["adapted"].published, models.target)
            story = Story(SCENARIO, deployments, prompts, screen, offering)
            measured = asyncio.run(story.run())
    _write(out, measured, models)
    _conclude(out, measured, console)


def _clear(out: Path) -> None:
    """Clears the folder of earlier runs; raises StorageError if it is not writable."""
    try:
        for side in SIDES:
            shutil.rmtree(out / side, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}") from error


def _prompts(
    scenario: Scenario, models: DemoModels, held_out: Sequence[str], seen: str
) -> list[list[str]]:
    """The prompts of each block, all different."""
    size = scenario.requests_per_block
    needed: dict[str, int] = {}
    for phase in scenario.phases:
        needed[phase.domain] = needed.get(phase.domain, 0) + phase.blocks * size
    vocabulary = models.vocabulary()
    fresh = {
        phase.domain: iter(
            fresh_prompts(
                phase.domain,
                needed[phase.domain],
                seed=scenario.seed,
                codec=vocabulary,
                held_out=held_out,
                seen=seen,
            )
        )
        for phase in scenario.phases
    }
    return [
        [next(fresh[phase.domain]) for _ in range(size)]
        for phase in scenario.phases
        for _ in range(phase.blocks)
    ]


def _write(out: Path, measured: Measurement, models: DemoModels) -> None:
    found = figures(measured)
    summary = {
        "command": shlex.join(["aurora", "demo", *sys.argv[1:]]),
        "machine": machine_description(),
        "kind": models.kind,
        "figures": {name: asdict(figure) for name, figure in found.items()},
        "canaries": [asdict(canary) for canary in measured.canaries],
        "blocks": [
            asdict(block) | {"tokens_per_second": round(block.tokens_per_second, 1)}
            for block in measured.blocks
        ],
    }
    write_file(out / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")
    write_file(out / "report.html", page(SCENARIO, measured, found, _notes(models)).encode())
    write_file(out / "report.svg", picture(SCENARIO, measured, kind="svg"))


def _notes(models: DemoModels) -> list[str]:
    """Notes by which a reader can judge the figures."""
    machine = machine_description()
    return [
        *(f"{phase.title}: {ORIGINS[phase.domain]}" for phase in SCENARIO.phases[:2]),
        "No prompt begins with text that a model was trained on: the real text of the traffic "
        f"comes from {len(TRAFFIC_MODULES)} modules of the library, that of the training from "
        f"{len(TRAINING_MODULES)} others.",
        f"The target (25.2 M parameters) serves in {models.target_dtype}; the draft "
        f"({models.kind}, {parameter_count(models.draft) / 1e6:.1f} M) knew only Python source at "
        "the start.",
        f"Concurrent requests: {SCENARIO.concurrency}, of {SCENARIO.max_tokens} tokens each, at "
        f"temperature {SCENARIO.temperature:g}; the two sides take turns and never serve at once. "
        "The trainer runs on the same cores whenever it has something to learn.",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}.",
    ]


def _conclude(out: Path, measured: Measurement, console: Console) -> None:
    found = figures(measured)
    shown = {
        "adapted_over_static": "adapted ÷ static, tokens/s after the shift, serving only",
        "adapted_over_static_net": "the same, all training charged to it",
    }
    for name, label in shown.items():
        value = f"{found[name].value:.2f}×" if name in found else "not reached in this run"
        console.print(f"{label}: {value}", highlight=False, soft_wrap=True)
    console.print(
        f"drafts promoted: {found['promotions'].value:.0f}, refused: "
        f"{found['refusals'].value:.0f}; bad drafts offered and refused: "
        f"{found['bad_drafts_refused'].value:.0f} of {len(OFFERS)}; failed requests: "
        f"{found['failed_requests'].value:.0f}",
        highlight=False,
    )
    console.print(f"report: {out / 'report.html'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
