"""A buffer for tests of what is sent to one."""

from __future__ import annotations

import threading

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc


class CollectingBuffer(buffer_pb2_grpc.BufferServicer):
    """A buffer that keeps everything in a list."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self.trajectories: list[buffer_pb2.Trajectory] = []
        self.changed = threading.Condition()

    def Append(self, request_iterator, context):  # noqa: N802
        got = [one for request in request_iterator for one in request.trajectories]
        with self.changed:
            self.trajectories += got
            self.changed.notify_all()
        return buffer_pb2.AppendResponse(appended=len(got))

    def of(self, domain: str, count: int = 1) -> list[buffer_pb2.Trajectory]:
        """The trajectories of a domain, once there are at least `count`.

        AssertionError if they are not within `seconds`.
        """

        def found() -> list[buffer_pb2.Trajectory]:
            return [one for one in self.trajectories if one.domain == domain]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, self._seconds)
            return found()
