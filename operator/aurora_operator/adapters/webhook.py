"""POSTs events to a URL that whoever runs the operator has chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
from yarl import URL

from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_common.version import VERSION

_TIMEOUT_SECONDS = 10.0
_CONNECTIONS = 8
_SCHEMES = ("http", "https")


class Webhook:
    """One receiver; its URL may hold a secret, so that no error has it.

    `url_file` is read for each event: a mounted Secret may change. Redirects are not followed, and
    what the receiver answers is not read. Proxies are those of the environment.
    """

    def __init__(
        self, url_file: Path, *, on_result: Callable[[bool], None] = lambda delivered: None
    ) -> None:
        self._url_file = url_file
        self._on_result = on_result
        self._session: aiohttp.ClientSession | None = None

    async def send(self, event: bytes, *, content_type: str) -> None:
        """Returns once the receiver has accepted the event; raises UnavailableError otherwise."""
        try:
            await self._send(event, content_type)
        except UnavailableError:
            self._on_result(False)
            raise
        self._on_result(True)

    async def close(self) -> None:
        """Closes its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, event: bytes, content_type: str) -> None:
        try:
            url = await asyncio.to_thread(read_url, self._url_file)
        except InvalidInputError as error:
            raise UnavailableError(str(error)) from error
        headers = {"Content-Type": content_type, "User-Agent": f"aurora/{VERSION}"}
        try:
            async with self._opened().post(
                url, data=event, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"the webhook cannot be reached: {_reason(error)}") from None
        if not 200 <= status < 300:
            raise UnavailableError(f"the webhook answers {status}")

    def _opened(self) -> aiohttp.ClientSession:
        """Made inside the event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
                trust_env=True,
            )
        return self._session


def read_url(path: Path) -> URL:
    """The URL in a file; raises InvalidInputError, without the content, if it is none."""
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8 text") from None
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in _SCHEMES or not url.host:
        raise InvalidInputError(f"{path} has no URL: use http://host/path or https://host/path")
    return url


def _reason(error: Exception) -> str:
    """Without the URL, which some of aiohttp's messages repeat."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    return type(error).__name__
