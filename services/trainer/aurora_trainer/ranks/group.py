"""A group of ranks, formed of those that answered one call; rank 0 is the trainer.

All of a group's keys in the store begin with the call's number.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType

import torch
from torch import Tensor, distributed, nn

_WAIT_SECONDS = 60.0
# Of an operation, which an abandoned one ends within.
_POLL_SECONDS = 0.001
_LEAVE = "leave"


class Group:
    """torch's default process group, of gloo: ranks compute on CPUs.

    Every operation takes part with all ranks in the same order, and raises RuntimeError if one of
    them is gone or does not take part within the timeout; the group is of no use then. A process
    has one group at a time.
    """

    def __init__(
        self,
        store: distributed.Store,
        *,
        rank: int,
        size: int,
        timeout_seconds: float,
    ) -> None:
        """Blocks until all ranks are connected; raises RuntimeError after the timeout.

        `store`: for this group alone.
        """
        self.rank = rank
        self.size = size
        self._store = store
        self._step = 0
        self._abandoned = threading.Event()
        try:
            distributed.init_process_group(
                "gloo",
                store=distributed.PrefixStore("group", store),
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=timeout_seconds),
            )
        except RuntimeError:
            self.close()
            raise

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection, and so the others' operations."""
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def dismiss(self) -> None:
        """Rank 0: tells the others to leave instead of waiting for another step."""
        self._store.set(f"step-{self._step + 1}", _LEAVE)

    def begin(self, task: bytes) -> None:
        """Rank 0: begins a step by sending its task."""
        self._step += 1
        self._store.set(f"step-{self._step}", str(len(task)))
        # Everyone has seen the one before.
        self._store.delete_key(f"step-{self._step - 1}")
        # A copy, since torch has no tensors that cannot be written to.
        self.broadcast(torch.frombuffer(bytearray(task), dtype=torch.uint8))

    def next_task(self) -> bytes | None:
        """The other ranks: waits for a step, however long; None: leave."""
        self._step += 1
        key = f"step-{self._step}"
        wait_for(self._store, key)
        found = self._store.get(key)
        if found == _LEAVE.encode():
            return None
        task = torch.empty(int(found), dtype=torch.uint8)
        self.broadcast(task)
        return task.numpy().tobytes()

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrites the tensor of each other rank with rank 0's."""
        self.wait(self.begin_broadcast(tensor))

    def begin_broadcast(self, tensor: Tensor) -> distributed.Work:
        """The same without waiting; the tensor must not change until `wait` returns."""
        return _begun(distributed.broadcast(tensor, 0, async_op=True))

    def add_up(self, tensor: Tensor) -> None:
        """Leaves the sum over the ranks in rank 0's tensor, and anything in the others'."""
        self.wait(_begun(distributed.reduce(tensor, 0, async_op=True)))

    def wait(self, work: distributed.Work) -> None:
        """Waits until an operation has ended."""
        while not work.is_completed():
            if self._abandoned.wait(_POLL_SECONDS):
                raise RuntimeError("the group is abandoned")
        work.wait()

    def abandon(self) -> None:
        """Ends any wait now, from any thread; `close` would still block as long as a rank hangs."""
        self._abandoned.set()


def wait_for(store: distributed.Store, key: str) -> None:
    """Waits for a key, however long; raises DistNetworkError if the trainer is gone."""
    while True:
        try:
            store.wait([key], timedelta(seconds=_WAIT_SECONDS))
        except distributed.DistStoreError:
            continue
        return


def _begun(work: distributed.Work | None) -> distributed.Work:
    # Only a process outside the group has none.
    assert work is not None
    return work


def flat_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """All gradients end to end, zeros for a parameter without one."""
    return torch.cat(
        [
            (torch.zeros_like(each) if each.grad is None else each.grad).reshape(-1)
            for each in parameters
        ]
    ).detach()


def set_gradient(parameters: Iterable[nn.Parameter], flat: Tensor) -> None:
    """Makes `flat`, as of `flat_gradient`, the parameters' gradients, without a copy."""
    start = 0
    for each in parameters:
        each.grad = flat[start : start + each.numel()].view_as(each)
        start += each.numel()
