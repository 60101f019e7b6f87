"""The drafts of one worker, the live one and the staged one beside it, and the verbs on them."""

from __future__ import annotations

import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from huggingface_hub import snapshot_download

from aurora_vllm.checkpoint import (
    MANIFEST,
    Manifest,
    folder_digest,
    folder_in_store,
    manifests_beside,
    parse_manifest,
    read_checkpoint,
)
from aurora_vllm.cpu_sampling import mend
from aurora_vllm.draft_copy import DraftCopy
from aurora_vllm.layout import fitting_tensors, layout_of
from aurora_vllm.lineage import Lineage
from aurora_vllm.recorder import TOP_TOKENS, Recorder
from aurora_vllm.refusal import RefusedError, bad_checkpoint

STORE = "AURORA_VLLM_STORE"
_CAPTURE_LIMIT_BYTES = 256 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    digest: str
    name: str

    def to_json(self) -> Answer:
        return {"digest": self.digest, "name": self.name}


@dataclass(slots=True)
class _Loading:
    """A checkpoint on its way into the copy. The thread ends by setting `manifest` or `problem`."""

    draft: Draft
    load_seconds: float = 0.0
    manifest: Manifest | None = None
    # Those that lie beside it may link it to the live draft.
    others: tuple[Manifest, ...] = ()
    problem: Exception | None = None


class Drafts:
    """Every verb runs on the engine's thread between two steps; only `_load` runs beside it.

    There is room for one draft beside the live one; an activation exchanges the two.
    """

    def __init__(self, worker: Any) -> None:
        runner = worker.model_runner
        self._speculation = runner.speculative_config
        self._instance = secrets.token_hex(8)
        self._store = Path(os.environ[STORE]) if os.environ.get(STORE) else None
        if runner.device.type == "cpu":
            mend()
        self._start_folder = folder = _start_folder(self._speculation.draft_model_config)
        self._start = _start_manifest(folder)
        self._layout = layout_of(folder)
        self._first = self._live = Draft(folder_digest(folder), self._start.name or folder.name)
        self._lineage = Lineage()
        self._lineage.add(self._live.digest, self._start.parent_digest)
        self._staged: Draft | None = None
        self._loading: _Loading | None = None
        self._load_seconds = 0.0
        self._copy = DraftCopy(runner)
        self._recorder = Recorder(runner, limit_bytes=_CAPTURE_LIMIT_BYTES)

    def status(self) -> Answer:
        return {
            "instance": self._instance,
            "method": self._speculation.method,
            "speculation_length": self._speculation.num_speculative_tokens,
            "start": self._first.to_json(),
            "live": self._live.to_json(),
            "staged": [self._staged.to_json()] if self._staged else [],
            "capture": {
                "entries": TOP_TOKENS,
                "pending_bytes": self._recorder.pending_bytes,
                "dropped": self._recorder.dropped,
            },
        }

    def stage(self, digest: str, name: str, path: str | None) -> Answer:
        """Begins to load a checkpoint; `staging` says when it is resident.

        Without a path it is the draft that the engine started with, from where that was read.
        """
        if not _DIGEST.fullmatch(digest):
            raise RefusedError(
                f"digest {digest!r} is not of the form sha256:<64 hex digits>",
                status=400,
                code="bad_digest",
                param="digest",
            )
        if path is None and digest != self._first.digest:
            raise RefusedError(
                f"path is missing: only the draft {self._first.digest}, which the engine started "
                "with, needs none",
                status=400,
                code="bad_path",
                param="path",
            )
        self._settle()
        if digest in self._resident():
            return {"resident": True, "load_ms": self._load_seconds * 1e3}
        if self._loading is not None:
            return self._unsettled(digest)
        if self._staged is not None:
            raise RefusedError(
                f"the place beside the live draft holds {self._staged.digest}: unstage that first",
                status=409,
                code="occupied",
            )
        self._loading = _Loading(Draft(digest, name))
        Thread(
            target=self._load, args=(self._loading, path), name="aurora-stage", daemon=True
        ).start()
        return {"resident": False}

    def staging(self, digest: str) -> Answer:
        """Whether a draft is resident by now; raises why it was refused, once."""
        problem = self._settle()
        if digest in self._resident():
            return {"resident": True, "load_ms": self._load_seconds * 1e3}
        if self._loading is not None:
            return self._unsettled(digest)
        raise problem or _not_staged(digest)

    def unstage(self, digest: str) -> Answer:
        self._settle()
        if digest == self._live.digest:
            raise RefusedError(
                f"{digest} is live: activate another draft first", status=409, code="live"
            )
        if self._loading is not None and self._loading.draft.digest == digest:
            raise _busy(digest)
        if self._staged is not None and self._staged.digest == digest:
            self._staged = None
        return {}

    def activate(self, digest: str, *, reset: bool) -> Answer:
        if digest == self._live.digest:
            return {"flip_us": 0, "live": self._live.to_json(), "steps": {}}
        if self._staged is None or self._staged.digest != digest:
            raise _not_staged(digest)
        if not reset and not self._lineage.related(self._live.digest, digest):
            raise RefusedError(
                f"{digest} is not known to be related to the live draft {self._live.digest}, so "
                "the attention cache misleads it: activate it with reset",
                status=409,
                code="other_lineage",
                param="reset",
            )
        steps = self._recorder.steps_by_key()
        seconds = self._copy.exchange()
        self._live, self._staged = self._staged, self._live
        return {"flip_us": round(seconds * 1e6), "live": self._live.to_json(), "steps": steps}

    def capture(self, max_bytes: int, ack: int | None) -> Answer:
        batch, payload = self._recorder.hand_out(max_bytes=max_bytes, acknowledged=ack)
        return {"batch": batch, "payload": payload}

    def _resident(self) -> tuple[str, ...]:
        return tuple(draft.digest for draft in (self._live, self._staged) if draft is not None)

    def _unsettled(self, digest: str) -> Answer:
        assert self._loading is not None
        if self._loading.draft.digest != digest:
            raise _busy(self._loading.draft.digest)
        return {"resident": False}

    def _settle(self) -> Exception | None:
        """Ends a loading whose thread is done: the draft is staged, or the problem returned."""
        loading = self._loading
        if loading is None or (loading.manifest is None and loading.problem is None):
            return None
        self._loading = None
        if loading.manifest is None:
            return loading.problem
        started = time.perf_counter()
        try:
            self._copy.process()
        except RefusedError as error:
            return error
        self._load_seconds = loading.load_seconds + time.perf_counter() - started
        for each in loading.others:
            self._lineage.add(each.digest, each.parent_digest)
        self._lineage.add(loading.draft.digest, loading.manifest.parent_digest)
        self._staged = loading.draft
        return None

    def _load(self, loading: _Loading, path: str | None) -> None:
        try:
            # Its files may be links, as in a cache of Hugging Face, and were trusted at the start.
            folder, store = self._start_folder, Path("/")
            if path is not None:
                folder = folder_in_store(path, self._store)
                assert self._store is not None
                store = self._store
            checkpoint = read_checkpoint(folder, loading.draft.digest, store)
            self._check_tokenizer(checkpoint.manifest)
            tensors = fitting_tensors(checkpoint, self._layout)
            started = time.perf_counter()
            self._copy.load(tensors)
            loading.load_seconds = time.perf_counter() - started
            loading.others = tuple(manifests_beside(folder, store))
            loading.manifest = checkpoint.manifest
        except Exception as error:  # noqa: BLE001  (the thread's boundary: `staging` raises it)
            loading.problem = error

    def _check_tokenizer(self, manifest: Manifest) -> None:
        ours, theirs = manifest.tokenizer_digest, self._start.tokenizer_digest
        if ours and theirs and ours != theirs:
            raise bad_checkpoint(f"it was trained for tokenizer {ours}, this engine has {theirs}")


def _busy(digest: str) -> RefusedError:
    return RefusedError(f"{digest} is being staged: try again once it is", status=409, code="busy")


def _not_staged(digest: str) -> RefusedError:
    return RefusedError(f"{digest} is not staged", status=404, code="not_staged", param="digest")


def _start_folder(model_config: Any) -> Path:
    """Where vLLM read the draft that it started with; downloads nothing."""
    folder = Path(model_config.model)
    if folder.is_dir():
        return folder
    cached = snapshot_download(
        model_config.model, revision=model_config.revision, local_files_only=True
    )
    return Path(cached)


def _start_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    return parse_manifest(folder, path.read_bytes() if path.is_file() else None)
