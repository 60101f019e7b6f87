"""Bearer tokens from a folder of files, such as a mounted Secret."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from aurora_common.errors import NotFoundError
from aurora_common.watched_folder import Stamp, stamp

logger = logging.getLogger(__name__)

_RELOAD_SECONDS = 1.0


class TokenFolder:
    """Accepts each file's content, stripped of surrounding white space, as a token.

    Reloads at most once a second; while the folder cannot be read, the last tokens stay valid. Only
    digests of the tokens are kept.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises NotFoundError if the folder does not exist."""
        if not folder.is_dir():
            raise NotFoundError(f"--tokens {folder}: no such folder")
        self._folder = folder
        self._clock = clock
        self._digests: tuple[bytes, ...] = ()
        self._stamp: Stamp | None = None
        # Why the last reload failed; empty if it did not.
        self._refused = ""
        self._reload_at = clock()
        self._reload()

    def admits(self, token: str) -> bool:
        """Whether `token` is accepted, in constant time."""
        if self._clock() >= self._reload_at:
            self._reload()
        digest = _digest(token.encode("utf-8", "surrogateescape"))
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return bool(token) and any(matches)

    def _reload(self) -> None:
        self._reload_at = self._clock() + _RELOAD_SECONDS
        try:
            now = stamp(self._folder)
            if now == self._stamp:
                return
            tokens = [(self._folder / name).read_bytes().strip() for name, *_ in now]
        except OSError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                reason = {"folder": str(self._folder), "reason": self._refused}
                logger.error(
                    "token reload failed; the previous tokens stay valid", extra={"fields": reason}
                )
            return
        self._stamp, self._refused = now, ""
        self._digests = tuple(_digest(token) for token in tokens if token)
        fields: dict[str, object] = {"folder": str(self._folder), "tokens": len(self._digests)}
        if self._digests:
            logger.info("tokens reloaded", extra={"fields": fields})
        else:
            logger.warning("no tokens: every request is refused", extra={"fields": fields})


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
