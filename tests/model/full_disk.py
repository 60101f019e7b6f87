"""Publishes a draft onto a full disk, and prints the error and the files left behind.

Arguments: how the room is made short, `tmpfs` (exit code 77 where it cannot be mounted) or
`limit` (on the size of a file), and the folder.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from aurora_common.errors import AuroraError
from aurora_model.config import DecoderConfig
from aurora_model.draft import publish_draft, random_draft
from aurora_model.rope import DefaultRope
from aurora_model.target import TargetIdentity

ROOM_BYTES = 1 << 20
CONFIG = DecoderConfig("llama", 97, 256, 1024, 2, 4, 2, 64, 64, DefaultRope(10_000.0))


def main(room: str, root: Path) -> None:
    if room == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES))
        publish(root)
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", root]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        sys.exit(77)
    try:
        publish(root)
    finally:
        subprocess.run(["umount", root], check=True)


def publish(root: Path) -> None:
    draft = random_draft(CONFIG, seed=0).to(torch.bfloat16)
    target = TargetIdentity("sha256:target", "sha256:tokenizer", 97)
    try:
        publish_draft(draft, root, name="ckpt-1", target=target)
    except AuroraError as error:
        print(type(error).__name__, [path.name for path in root.iterdir()])  # noqa: T201
        print(error, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
