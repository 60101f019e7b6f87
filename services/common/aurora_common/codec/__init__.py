"""Dataclasses as JSON: read, written and described by their types alone."""

from aurora_common.codec.record import codec
from aurora_common.codec.value import Codec, Wire

__all__ = ["Codec", "Wire", "codec"]
