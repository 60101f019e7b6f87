"""What one deployment's ended rollouts leave behind: records, and notifications if any."""

from __future__ import annotations

from collections.abc import Sequence

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.observation import Sent
from aurora_operator.domain.report.report import Report, report_of
from aurora_operator.domain.status.deployment import Status, Verdict
from aurora_operator.reconcile.outbox import Outbox


class Reports:
    """Builds each report while its evidence is in the status, and keeps it until it is sent."""

    def __init__(
        self, *, records: Outbox | None = None, announcements: Outbox | None = None
    ) -> None:
        self._records = records
        self._announcements = announcements
        self._built: dict[tuple[str, object], Report] = {}

    @property
    def records(self) -> Sent | None:
        """What was recorded; None if nothing is."""
        return None if self._records is None else self._records.sent

    @property
    def announcements(self) -> Sent | None:
        """What was announced; None if nothing is."""
        return None if self._announcements is None else self._announcements.sent

    @property
    def problem(self) -> str:
        """What keeps records from being written for a while, or empty."""
        cause = "" if self._records is None else self._records.lasting_failure
        return f"rollout records cannot be written: {cause}" if cause else ""

    def send(
        self,
        deployment: AuroraDeployment,
        generation: int,
        *,
        before: Status,
        after: Status,
    ) -> None:
        """Sends what `after`, the stored status, says is left."""
        left = max(after.unrecorded, after.unannounced)
        known = self._built
        self._built = {}
        for verdict in after.history[:left]:
            is_new = verdict not in before.history
            self._built[verdict.key] = known.get(verdict.key) or report_of(
                deployment, generation, verdict, before=before if is_new else None, after=after
            )
        for outbox, count in (
            (self._records, after.unrecorded),
            (self._announcements, after.unannounced),
        ):
            if outbox is not None:
                outbox.offer(self._oldest_first(after.history[:count]))

    async def close(self) -> None:
        """Cancels what is in progress."""
        for outbox in (self._records, self._announcements):
            if outbox is not None:
                await outbox.close()

    def _oldest_first(self, verdicts: Sequence[Verdict]) -> list[Report]:
        return [self._built[verdict.key] for verdict in reversed(verdicts)]
