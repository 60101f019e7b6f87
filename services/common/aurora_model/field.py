"""Reads typed values from a JSON object and collects every problem, not just the first."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from aurora_common.errors import InvalidInputError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises InvalidInputError naming the file."""
    try:
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path} must be a JSON object")
    return content


class Fields:
    """Reads one JSON object, appending a line to `problems` for each invalid value.

    After a problem a reader returns a valid stand-in, so that parsing continues and all problems
    are found; the caller raises once at the end. `prefix` is the path to the object.
    """

    def __init__(self, content: Mapping[str, Any], problems: list[str], prefix: str = "") -> None:
        self._content = content
        self._prefix = prefix
        self.problems = problems

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """The integer at `key`; required without a default."""
        value = self._content.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
            return value
        self.reject(key, f"an integer of at least {minimum}")
        return minimum

    def number(self, key: str, default: float | None = None, *, minimum: float = 0.0) -> float:
        """The finite number above `minimum` at `key`; required without a default."""
        value = self.optional_number(key, minimum=minimum)
        if value is not None:
            return value
        if default is None:
            self.reject(key, f"a number above {minimum:g}")
            return minimum + 1.0
        return default

    def optional_number(self, key: str, *, minimum: float = 0.0) -> float | None:
        """The finite number above `minimum` at `key`, or None if absent or null."""
        value = self._content.get(key)
        if value is None:
            return None
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value > minimum
        ):
            return float(value)
        self.reject(key, f"a number above {minimum:g}")
        return minimum + 1.0

    def within(self, key: str, low: float, high: float) -> float | None:
        """The number from `low` to `high` at `key`, or None if absent or null."""
        value = self._content.get(key)
        if value is None:
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        self.reject(key, f"a number from {low:g} to {high:g}")
        return low

    def token_ids(self, key: str) -> tuple[int, ...]:
        """The token ids at `key`, given as one, a list or null."""
        found = self._content.get(key)
        ids = found if isinstance(found, list) else [] if found is None else [found]
        if all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            return tuple(ids)
        self.reject(key, "a token id, a list of them, or null")
        return ()

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._content.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.reject(key, "true or false")
        return default

    def choice(self, key: str, allowed: Collection[str], default: str | None = None) -> str | None:
        """The string at `key`, one of `allowed`; None after a problem."""
        value = self._content.get(key, default)
        if isinstance(value, str) and value in allowed:
            return value
        self.reject(key, f"one of {', '.join(sorted(allowed))}")
        return None

    def only(self, allowed: Collection[str]) -> None:
        """Rejects every key that is not in `allowed`."""
        for key in sorted(set(self._content) - set(allowed)):
            self.reject(key, f"only the keys {', '.join(sorted(allowed))}")

    def reject(self, key: str, allowed: str) -> None:
        """Records that the value at `key` is invalid, and what is allowed."""
        found = f"is {self._content[key]!r}" if key in self._content else "is missing"
        self.problems.append(f"{self._prefix}{key} {found}: allowed is {allowed}")
