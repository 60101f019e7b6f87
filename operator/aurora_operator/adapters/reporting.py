"""Where reports of ended rollouts go: the trainer's model store, and a webhook if there is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aurora_operator.adapters.webhook import Webhook
from aurora_operator.domain.report.cloud_event import CONTENT_TYPE, cloud_event
from aurora_operator.domain.report.record import record_content, record_name
from aurora_operator.domain.report.report import Report
from aurora_operator.reconcile.outbox import Outbox
from aurora_operator.reconcile.reports import Reports


def reporting(
    keep_record: Callable[[str, bytes], Awaitable[None]],
    webhook: Webhook | None,
    *,
    on_sent: Callable[[], None],
    on_failure: Callable[[str], None] = lambda cause: None,
) -> Reports:
    """One deployment's reports.

    `keep_record` gets a record's name and content. `on_failure` gets why the webhook has not taken
    a verdict, once for several failures in a row.
    """

    async def record(report: Report) -> None:
        await keep_record(record_name(report), record_content(report))

    records = Outbox("records", record, on_sent=on_sent)
    if webhook is None:
        return Reports(records=records)

    async def announce(report: Report) -> None:
        await webhook.send(cloud_event(report), content_type=CONTENT_TYPE)

    announcements = Outbox("notifications", announce, on_sent=on_sent, on_failure=on_failure)
    return Reports(records=records, announcements=announcements)
