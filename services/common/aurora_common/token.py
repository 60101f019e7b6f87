"""Bearer tokens from the files of a folder, as a Secret is mounted."""

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

_LOOK_SECONDS = 1.0


class TokenFolder:
    """Each file's content, without surrounding white space, is a token that is accepted.

    The folder is looked at again at most once a second; the last good tokens are valid while it
    cannot be read. Only digests of the tokens are kept.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises NotFoundError where there is no such folder."""
        if not folder.is_dir():
            raise NotFoundError(f"--tokens {folder}: no such folder")
        self._folder = folder
        self._clock = clock
        self._digests: tuple[bytes, ...] = ()
        self._stamp: Stamp | None = None
        # Why the newest were not taken; empty: they were.
        self._refused = ""
        self._look_at = clock()
        self._look()

    def admits(self, token: str) -> bool:
        """Whether it is one of the tokens; takes as long whichever it is."""
        if self._clock() >= self._look_at:
            self._look()
        digest = _digest(token.encode("utf-8", "surrogateescape"))
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return bool(token) and any(matches)

    def _look(self) -> None:
        self._look_at = self._clock() + _LOOK_SECONDS
        try:
            now = stamp(self._folder)
            if now == self._stamp:
                return
            tokens = [(self._folder / name).read_bytes().strip() for name, *_ in now]
        except OSError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                reason = {"folder": str(self._folder), "reason": self._refused}
                logger.error("tokens not taken", extra={"fields": reason})
            return
        self._stamp, self._refused = now, ""
        self._digests = tuple(_digest(token) for token in tokens if token)
        fields: dict[str, object] = {
            "folder": str(self._folder),
            "tokens": len(self._digests),
        }
        if self._digests:
            logger.info("tokens taken", extra={"fields": fields})
        else:
            logger.warning("no token: every request is refused", extra={"fields": fields})


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
