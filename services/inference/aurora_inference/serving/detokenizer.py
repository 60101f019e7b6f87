"""Incremental detokenisation: whole characters only, cut before a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

# Enough of the prompt for the tokenizer to know whether a space precedes the first new token.
_CONTEXT_TOKENS = 8


class Detokenizer:
    """Turns one request's output tokens into text, piece by piece.

    The pieces and `flush` together equal decoding all tokens at once; special tokens are skipped.
    A character is held back until all its bytes have arrived.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._context = _context(tokenizer, prompt_tokens)
        self._stream = DecodeStream(ids=self._context, skip_special_tokens=True)
        self._tokens: list[int] = []
        self._given: list[str] = []
        self._holds = False

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete; may be empty."""
        try:
            piece = self._stream.step(self._tokenizer, list(token_ids)) or ""
        except Exception:  # noqa: BLE001 - the library raises nothing narrower
            # Invalid UTF-8 can change how the bytes before it decode, which the stream rejects.
            # Start a new one; `flush` recovers what the old one held back if possible.
            self._stream = DecodeStream(ids=_letter(self._tokenizer), skip_special_tokens=True)
            piece = self._stream.step(self._tokenizer, list(token_ids)) or ""
        self._tokens += token_ids
        self._holds = not piece
        self._given.append(piece)
        return piece

    def flush(self) -> str:
        """The text held back, incomplete characters as U+FFFD; call once, at the end."""
        if not self._holds:
            return ""
        before = _text(self._tokenizer, self._context)
        whole = _text(self._tokenizer, [*self._context, *self._tokens])
        given = before + "".join(self._given)
        return whole[len(given) :] if whole.startswith(given) else ""


def _context(tokenizer: Tokenizer, before: Sequence[int]) -> list[int]:
    """The last tokens before a stream that end with a whole character.

    After U+FFFD, whether it is the prompt's own or stands for half a character, a stream would
    count what precedes it as new.
    """
    last = list(before[-_CONTEXT_TOKENS:])
    for end in range(len(last), 0, -1):
        if not _text(tokenizer, last[:end]).endswith("\ufffd"):
            return last[:end]
    return _letter(tokenizer)


def _letter(tokenizer: Tokenizer) -> list[int]:
    """A context that is none, but for a space that follows it, which is kept."""
    ids: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    return ids


def _text(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True)
    return text


class StopStrings:
    """Finds the first stop string in a stream of text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that can be emitted now; once `found`, the rest before the stop string.

        A suffix that may be the beginning of a stop string is held back.
        """
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            self._held = ""
            return text[: min(places)]
        shown = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """The text held back, which turned out not to be a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
