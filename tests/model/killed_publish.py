"""Publishes a draft again and again, killed (SIGKILL) one file operation later each time.

Argument: the folder. Prints how many publications were killed before one came through.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

import torch

from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.draft import publish_draft, random_draft
from aurora_model.rope import DefaultRope
from aurora_model.target import TargetIdentity

CONFIG = DecoderConfig("llama", 97, 32, 64, 2, 4, 2, 8, 64, DefaultRope(10_000.0))
FILE_OPERATIONS = (
    "open",
    "os.chmod",
    "os.mkdir",
    "os.listdir",
    "os.scandir",
    "os.rename",
    "shutil.",
)


def publish_and_die(draft: Decoder, root: Path, operations: int) -> None:
    """Publishes; dies at its file operation number `operations`."""
    left = operations

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event.startswith(FILE_OPERATIONS):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    target = TargetIdentity("sha256:target", "sha256:tokenizer", 97)
    sys.addaudithook(count)
    publish_draft(draft, root, name=f"ckpt-{operations}", target=target)
    os._exit(0)


def main(root: Path) -> None:
    # A forked child has none of its parent's threads.
    torch.set_num_threads(1)
    draft = random_draft(CONFIG, seed=0)
    for operations in itertools.count():
        child = os.fork()
        if child == 0:
            publish_and_die(draft, root, operations)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(operations)  # noqa: T201
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
