import asyncio
import time

import pytest

from aurora_common.errors import NotFoundError, UnavailableError
from aurora_operator.adapters import lease
from aurora_operator.adapters.lease import Election, LeaseLostError


class _Api:
    """A Lease API that answers slowly, then not at all."""

    def __init__(self) -> None:
        self.lease: dict | None = None
        self.written_at = 0.0
        self.answers = True

    async def get(self, kind, namespace, name):
        if not self.answers:
            raise UnavailableError("away")
        if self.lease is None:
            raise NotFoundError("no lease")
        return self.lease

    async def create(self, kind, body):
        self.written_at = time.monotonic()
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        self.answers = False
        # Others count from the write, not from its answer.
        await asyncio.sleep(0.3)
        return self.lease

    async def replace(self, kind, body):
        raise UnavailableError("away")


async def test_the_deadline_of_the_first_renewal_counts_from_the_request_of_the_lease(
    monkeypatch,
):
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(lease, "RENEW_DEADLINE_SECONDS", 0.5)
    api = _Api()
    election = Election(api, namespace="aurora", name="aurora-operator", identity="me")
    await election.acquire()
    with pytest.raises(LeaseLostError):
        await election.hold()
    assert time.monotonic() - api.written_at < 0.7
