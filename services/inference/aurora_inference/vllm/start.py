"""What a stock vLLM needs to serve behind a gateway: one folder, and a script in it that starts it.

    plugin/  aurora_vllm, for PYTHONPATH
    key      vLLM's API key, made once, which the gateway reads as well
    start    sets the environment and becomes `vllm serve`; needs no Aurora, only /bin/sh

A container of Aurora's image writes the folder into a volume, and vLLM's own image runs the script.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aurora_common.errors import StorageError
from aurora_inference.settings import Address
from aurora_vllm.distribution import write_folder

KEY, PLUGIN, START = "key", "plugin", "start"
_SHUTDOWN_SECONDS = 20
# Of a vLLM on several nodes; LeaderWorkerSet sets the variables. Node 0 serves.
_ON_NODES = """\
set -- "$@" --nnodes {nodes} --node-rank "$LWS_WORKER_INDEX" --master-addr "$LWS_LEADER_ADDRESS"
[ "$LWS_WORKER_INDEX" = 0 ] || set -- "$@" --headless
"""
# What vLLM calls each draft kind.
METHODS: Mapping[str, str] = MappingProxyType({"standalone": "draft_model", "eagle3": "eagle3"})


@dataclass(frozen=True, slots=True)
class Vllm:
    """How vLLM is started; `target` and `draft` are folders, `arguments` the user's own flags.

    `store`: checkpoints are taken from inside this folder only. `max_context_tokens` None: the
    target's own. `per_batch_size`: from how many requests on how many tokens are drafted.
    `nodes`: on how many it runs; the script is the same on each.
    """

    executable: str
    target: Path
    draft: Path
    store: Path
    listen: Address
    model_name: str
    dtype: str
    speculation_length: int
    max_context_tokens: int | None
    per_batch_size: Sequence[tuple[int, int]] = ()
    draft_kind: str = "standalone"
    nodes: int = 1
    arguments: Sequence[str] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """Aurora's flags come last, so that they hold."""
        speculation: dict[str, object] = {
            "method": METHODS[self.draft_kind],
            "model": str(self.draft),
            "num_speculative_tokens": self.speculation_length,
        }
        if self.per_batch_size:
            # Ranges; the last one goes on.
            ends = [size - 1 for size, _ in self.per_batch_size[1:]] + [self.per_batch_size[-1][0]]
            speculation["num_speculative_tokens_per_batch_size"] = [
                [size, end, tokens]
                for (size, tokens), end in zip(self.per_batch_size, ends, strict=True)
            ]
        context = self.max_context_tokens
        return (
            *(self.executable, "serve", str(self.target)),
            *("--shutdown-timeout", str(_SHUTDOWN_SECONDS), *self.arguments),
            *("--host", self.listen.host, "--port", str(self.listen.port)),
            *("--served-model-name", self.model_name, "--dtype", self.dtype),
            *(() if context is None else ("--max-model-len", str(context))),
            *("--speculative-config", json.dumps(speculation)),
            *("--worker-extension-cls", "aurora_vllm.worker.AuroraWorker"),
            *("--per-request-spec-decode-metrics", "detailed"),
        )


def write_start(vllm: Vllm, folder: Path) -> Path:
    """Writes the folder, keeping a key that is there; the script's path. Raises StorageError."""
    try:
        write_folder(folder / PLUGIN)
        if not (folder / KEY).exists():
            _write(folder / KEY, secrets.token_urlsafe(32), mode=0o600)
        return _write(folder / START, _script(vllm, folder), mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error


def _script(vllm: Vllm, folder: Path) -> str:
    """What the user set for Python's path and vLLM's plugins stays."""
    plugin, key, store = (
        shlex.quote(str(path)) for path in (folder / PLUGIN, folder / KEY, vllm.store)
    )
    return f"""\
#!/bin/sh
set -eu
export PYTHONPATH={plugin}${{PYTHONPATH:+:$PYTHONPATH}}
export VLLM_PLUGINS=${{VLLM_PLUGINS:+$VLLM_PLUGINS,}}aurora
export VLLM_USE_V2_MODEL_RUNNER=0
export AURORA_VLLM_STORE={store}
VLLM_API_KEY=$(cat {key})
export VLLM_API_KEY
set -- {shlex.join(vllm.command)}
{_ON_NODES.format(nodes=vllm.nodes) if vllm.nodes > 1 else ""}exec "$@"
"""


def _write(path: Path, content: str, *, mode: int) -> Path:
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    beside.touch(mode=mode)
    beside.write_text(content)
    return beside.replace(path)
