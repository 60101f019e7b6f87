"""The connection to a deployment's trainer while it is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable

from aurora_common.errors import AuroraError, UnavailableError
from aurora_common.lasting import LastingFailures
from aurora_common.tls import Certificates
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.kubernetes import Json
from aurora_operator.adapters.trainer import CheckpointFeed
from aurora_operator.cluster.fleet import component_pods, is_ready, peer
from aurora_operator.cluster.kinds import Key
from aurora_operator.domain.objects.pod import GRPC
from aurora_operator.domain.plan.housekeeping import Housekeeping
from aurora_operator.domain.plan.observation import Problem, TrainerView
from aurora_operator.domain.status.deployment import Candidate

logger = logging.getLogger(__name__)


class TrainerLink:
    """Passes every published checkpoint to `offer`, what the trainer does to `observe`.

    It has the trainer prune old checkpoints, and tells it which draft is stable and how rollouts
    ended.
    """

    def __init__(
        self,
        key: Key,
        *,
        after_sequence: Callable[[], int],
        offer: Callable[[Candidate], None],
        observe: Callable[[TrainerView], None],
    ) -> None:
        self._key = key
        self._after_sequence = after_sequence
        self._offer = offer
        self._observe = observe
        self._place: tuple[str, Peer] | None = None
        self._feed: CheckpointFeed | None = None
        self._failures = LastingFailures()
        self._tasks: set[asyncio.Task[None]] = set()
        # What the last prune was about.
        self._pruned: Housekeeping | None = None

    async def follow(
        self, pods: Iterable[Json], identity: Certificates | None, *, secure: bool
    ) -> None:
        """Connects to the trainer that is ready; `secure`: only with an identity."""
        place = None
        for pod in component_pods(pods, "trainer"):
            if is_ready(pod) and pod["status"].get("podIP") and (identity or not secure):
                trainer = peer(pod, self._key, "trainer", GRPC, identity)
                place = (pod["metadata"]["uid"], trainer)
        if place == self._place:
            return
        await self.close()
        if place is not None:
            self._place, self._feed = place, CheckpointFeed(place[1], self._after_sequence)
            self._start(self._offer_all(self._feed))
            self._start(self._observe_all(self._feed))

    @property
    def judge(self) -> CheckpointFeed | None:
        """What replays recorded requests; None while no trainer is ready."""
        return self._feed

    @property
    def is_failing(self) -> bool:
        """Whether the trainer could not be followed when `problems` was called last."""
        return bool(self._failures)

    def problems(self) -> tuple[Problem, ...]:
        """What the trainer has not been able to do for the operator for a while."""
        if self._feed is not None and (cause := self._feed.failure):
            self._failures.failed("follow", f"its checkpoints cannot be followed: {cause}")
        else:
            self._failures.succeeded("follow")
        if self._feed is None:
            self._failures.succeeded("prune")
        return tuple(
            Problem("ComponentFailing", f"trainer: {cause}")
            for cause in self._failures.lasting().values()
        )

    def prune(self, wanted: Housekeeping) -> None:
        """Prunes if what is wanted changed."""
        feed = self._feed
        if feed is None or wanted == self._pruned:
            return
        self._pruned = wanted
        self._start(self._prune(feed, wanted))

    async def keep_record(self, name: str, content: bytes) -> None:
        """Keeps an ended rollout's record; raises UnavailableError while no trainer is ready."""
        if self._feed is None:
            raise UnavailableError("no trainer is ready")
        await self._feed.keep_record(name, content)

    async def close(self) -> None:
        """Closes the connection."""
        tasks, feed = self._tasks, self._feed
        self._tasks, self._feed, self._place, self._pruned = set(), None, None, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if feed is not None:
            await feed.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _offer_all(self, feed: CheckpointFeed) -> None:
        async for candidate in feed.checkpoints():
            self._offer(candidate)

    async def _observe_all(self, feed: CheckpointFeed) -> None:
        async for view in feed.views():
            # It may have been restarted: it is told again.
            self._pruned = None
            self._observe(view)

    async def _prune(self, feed: CheckpointFeed, wanted: Housekeeping) -> None:
        try:
            await feed.prune(wanted)
        except AuroraError as error:
            # Retried by the next reconcile.
            self._pruned = None
            self._failures.failed("prune", f"its checkpoints cannot be pruned: {error}")
            fields = {"key": str(self._key), "reason": str(error)}
            logger.warning("prune failed; will retry", extra={"fields": fields})
        else:
            self._failures.succeeded("prune")
