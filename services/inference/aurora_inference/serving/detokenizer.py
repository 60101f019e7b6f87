"""From tokens to text as they come: whole characters only, cut before a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

# Enough of the prompt for the tokenizer to know whether a space precedes the first new token.
_CONTEXT_TOKENS = 8


class Detokenizer:
    """Turns one request's output tokens into text piece by piece.

    The pieces and `flush` together are what decoding all tokens at once gives; special tokens have
    no text. A character whose bytes are not all there yet is held back.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._context = list(prompt_tokens[-_CONTEXT_TOKENS:])
        self._stream = DecodeStream(ids=self._context, skip_special_tokens=True)
        self._tokens: list[int] = []
        self._given: list[str] = []
        self._holds = False

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that is complete with these tokens, maybe empty."""
        self._tokens += token_ids
        try:
            piece = self._stream.step(self._tokenizer, list(token_ids)) or ""
        except Exception:  # noqa: BLE001 - the library raises nothing narrower
            # Bytes that are no UTF-8 can change how those before them decode, which the stream
            # refuses. It starts anew; what it held is made up for by `flush` where it can be.
            self._stream = DecodeStream(skip_special_tokens=True)
            piece = self._stream.step(self._tokenizer, list(token_ids)) or ""
        self._holds = not piece
        self._given.append(piece)
        return piece

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD; call once, at the end."""
        if not self._holds:
            return ""
        before = self._decode(self._context)
        whole = self._decode([*self._context, *self._tokens])
        given = before + "".join(self._given)
        return whole[len(given) :] if whole.startswith(given) else ""

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        return text


class StopStrings:
    """Finds the first stop string in a text that comes in pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that may be shown now; once `found`, the last before the stop string.

        The end of the text is held back while it may be the beginning of a stop string.
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
        """What was held back: it was no stop string after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`, the whole of it left out."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
