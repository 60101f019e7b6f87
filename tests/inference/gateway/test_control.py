"""The verbs of the control plane over an engine with one live draft and room for one more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count

import pytest

from aurora_common.checkpoint import CheckpointManifest, folder_digest
from aurora_common.errors import (
    CheckpointError,
    ConflictError,
    InvalidInputError,
    UnavailableError,
)
from aurora_common.store.registry import model_store
from aurora_inference.contract import Cursor, DraftReference
from aurora_inference.gateway import control as module
from aurora_inference.gateway import switchback
from aurora_inference.gateway.answer import Report
from aurora_inference.gateway.control import GatewayControl
from aurora_inference.gateway.ledger import Ledger
from aurora_inference.gateway.plugin import (
    PluginStatus,
    Switch,
    TargetShape,
    UnrelatedDraftError,
)
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_model.target import TargetIdentity

TARGET = TargetIdentity("sha256:target", "sha256:tokenizer", 320)
START = DraftReference("start", "sha256:start")
SHAPE = TargetShape(320, 64, 2)


@dataclass
class RoomForTwo:
    """The plugin's semantics: one live draft, one staged beside it, which a switch exchanges."""

    instance: str = "engine-1"
    live: DraftReference = START
    staged: DraftReference | None = None
    down: bool = False
    unrelated: set[str] = field(default_factory=set)
    refused: Exception | None = None
    steps: dict[str, int] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)
    hold: asyncio.Event | None = None

    def restart(self):
        self.instance, self.live, self.staged = self.instance + "+", START, None

    def _up(self):
        if self.down:
            raise UnavailableError("the engine cannot be reached")

    async def check_health(self):
        self._up()

    async def status(self):
        self._up()
        staged = frozenset({self.staged.digest} if self.staged else ())
        live = DraftReference(self.live.name, self.live.digest)
        return PluginStatus(self.instance, START, live, staged, 4, "draft_model", SHAPE)

    async def stage(self, draft, path):
        self._up()
        self.calls.append(("stage", draft.digest, path))
        if self.refused is not None:
            raise self.refused
        if draft.digest in (self.live.digest, self.staged and self.staged.digest):
            return
        if self.staged is not None:
            raise ConflictError("occupied")
        self.staged = draft

    async def unstage(self, digest):
        self._up()
        self.calls.append(("unstage", digest))
        if digest == self.live.digest:
            raise ConflictError("live")
        if self.staged is not None and self.staged.digest == digest:
            self.staged = None

    async def activate(self, digest, *, reset):
        self._up()
        self.calls.append(("activate", digest, reset))
        if self.hold is not None:
            await self.hold.wait()
        if digest == self.live.digest:
            return Switch(0, {})
        if self.staged is None or self.staged.digest != digest:
            raise ConflictError("not staged")
        if digest in self.unrelated and not reset:
            raise UnrelatedDraftError("reset")
        self.live, self.staged = self.staged, self.live
        return Switch(700, dict(self.steps))


@pytest.fixture
def plugin():
    return RoomForTwo()


@pytest.fixture
def ledger():
    return Ledger(OutcomeLog("gateway-1"))


@pytest.fixture
async def control(plugin, ledger, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(switchback, "_AFTER_FAILURE_SECONDS", 0.01)
    found = GatewayControl(plugin, model_store(), ledger, target=TARGET)
    watch = asyncio.create_task(found.watch())
    await until(lambda: not found.problem())
    yield found
    watch.cancel()
    await found.stop()


@pytest.fixture
def draft(tmp_path):
    numbers = count(1)

    def made(target="sha256:target") -> DraftReference:
        name = f"ckpt-{next(numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_text(name)
        digest = folder_digest(folder)
        manifest = CheckpointManifest(name, digest, target, "sha256:tokenizer")
        (folder / "aurora.json").write_bytes(manifest.to_json())
        return DraftReference(name, digest, folder.as_uri())

    return made


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a condition of another task
            await asyncio.sleep(0.002)


async def canary(control, draft):
    """A stable draft with URI and a candidate."""
    stable, candidate = draft(), draft()
    await control.stage("stable", stable)
    await control.stage("candidate", candidate)
    return stable, candidate


async def test_it_says_what_it_can_do(control):
    found = await control.capabilities()
    assert (found.slots, found.assignments) == (1, ("Switchback",))
    assert (found.captures, found.draft_kinds) == (("InStep", "TokenIds"), ("standalone",))


async def test_it_retains_no_draft(control, draft):
    with pytest.raises(InvalidInputError, match="no draft beside its slot"):
        await control.stage("retained", draft())
    assert (await control.capabilities()).retained == 0


async def test_the_draft_that_the_engine_started_with_is_stable(control):
    status = await control.status()
    assert (status.stable, status.candidate, status.speculation_length) == (START, None, 4)


async def test_a_canary_from_staging_to_promotion(control, plugin, draft):
    stable, candidate = await canary(control, draft)
    assert (plugin.live, plugin.staged) == (stable, candidate)
    status = await control.status()
    assert (status.stable, status.candidate) == (stable, candidate)
    assert (await control.promote(candidate.digest)).pause_microseconds == 700
    assert (plugin.live, plugin.staged) == (candidate, None)
    status = await control.status()
    assert (status.stable, status.candidate) == (candidate, None)
    assert (await control.promote(candidate.digest)).pause_microseconds == 0


async def test_every_verb_may_be_repeated(control, plugin, draft):
    stable, candidate = await canary(control, draft)
    before = list(plugin.calls)
    await control.stage("stable", stable)
    await control.stage("candidate", candidate)
    assert plugin.calls == before
    for _ in range(2):
        await control.unstage()
        assert (plugin.live, plugin.staged) == (stable, None)


async def test_another_candidate_replaces_the_first(control, plugin, draft):
    stable, _ = await canary(control, draft)
    other = draft()
    await control.stage("candidate", other)
    assert (plugin.live, plugin.staged) == (stable, other)


async def test_another_stable_draft_replaces_the_first_and_drops_the_candidate(
    control, plugin, draft
):
    await canary(control, draft)
    other = draft()
    await control.stage("stable", other)
    assert (plugin.live, plugin.staged) == (other, None)
    assert (await control.status()).candidate is None


async def test_a_digest_that_is_left_out_is_the_manifests(control, draft):
    named = draft()
    await control.stage("candidate", DraftReference("", "", named.uri))
    assert (await control.status()).candidate == named


async def test_the_first_draft_can_be_staged_by_name_without_a_switch(control, plugin, draft):
    first = draft()
    plugin.live = first
    await until(lambda: control.slots.stable == DraftReference(first.name, first.digest))
    await control.stage("stable", first)
    assert control.switches == 0
    assert (await control.status()).stable == first


async def test_refused_drafts_leave_the_stable_one(control, plugin, draft, tmp_path):
    stable = draft()
    await control.stage("stable", stable)
    with pytest.raises(CheckpointError, match="sha256:other; this engine serves sha256:target"):
        await control.stage("candidate", draft(target="sha256:other"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"aurora\.json"):
        await control.stage("candidate", DraftReference("x", "", (tmp_path / "empty").as_uri()))
    with pytest.raises(CheckpointError, match="No such file"):
        await control.stage("candidate", DraftReference("x", "", (tmp_path / "gone").as_uri()))
    plugin.refused = CheckpointError("NaN in model.safetensors")
    for slot in ("candidate", "stable"):
        with pytest.raises(CheckpointError, match="NaN"):
            await control.stage(slot, draft())
    assert (plugin.live, plugin.staged) == (stable, None)
    status = await control.status()
    assert (status.stable, status.candidate) == (stable, None)


async def test_a_stranger_is_activated_with_a_reset_alone(control, plugin, draft):
    relative, stranger = draft(), draft()
    plugin.unrelated.add(stranger.digest)
    await control.stage("stable", relative)
    await control.stage("stable", stranger)
    resets = [call[1:] for call in plugin.calls if call[0] == "activate"]
    assert resets == [
        (relative.digest, False),
        (stranger.digest, False),
        (stranger.digest, True),
    ]


async def test_promoting_what_is_not_staged_is_refused(control, draft):
    await canary(control, draft)
    with pytest.raises(ConflictError, match="cannot promote"):
        await control.promote("sha256:another")


# Engines that fail.


async def test_a_dead_engine_is_a_problem_and_verbs_say_so(control, plugin, draft):
    candidate = draft()
    plugin.down = True
    await until(control.problem)
    assert "cannot be reached" in control.problem()
    with pytest.raises(UnavailableError):
        await control.stage("candidate", candidate)
    plugin.down = False
    await until(lambda: not control.problem())
    await control.stage("candidate", candidate)


async def test_an_engine_that_restarts_gets_its_drafts_back_before_it_is_ready(
    control, plugin, draft
):
    stable, candidate = await canary(control, draft)
    plugin.down = True
    await until(control.problem)
    plugin.restart()
    plugin.hold = asyncio.Event()
    plugin.down = False
    await until(lambda: "stable draft" in control.problem())
    plugin.hold.set()
    await until(lambda: not control.problem())
    assert (plugin.live, plugin.staged) == (stable, candidate)


async def test_a_restart_that_nobody_saw_is_noticed(control, plugin, draft):
    stable = draft()
    await control.stage("stable", stable)
    plugin.restart()
    await until(lambda: plugin.live == stable)
    await until(lambda: not control.problem())


async def test_an_engine_that_dies_begins_the_evidence_anew(control, plugin, ledger, draft):
    await canary(control, draft)
    await control.split("chat-1", 5000)
    former = (await control.status()).instance
    plugin.restart()
    await until(lambda: ledger.outcomes.instance != former)
    await until(lambda: not control.problem())

    assert (await control.status()).instance == ledger.outcomes.instance
    page = await control.outcomes("chat-1", cursor=Cursor(former, 3), limit=10)
    assert page.outcomes == ()
    assert page.next == Cursor(ledger.outcomes.instance, 0)


async def test_an_engine_that_lost_a_draft_of_which_no_files_are_known_keeps_its_own(
    control, plugin
):
    plugin.restart()
    await until(lambda: control._status.instance == plugin.instance)
    assert (await control.status()).stable == START
    assert not control.problem()


async def test_a_caller_that_gives_up_does_not_stop_a_switch_halfway(control, plugin, draft):
    _, candidate = await canary(control, draft)
    plugin.hold = asyncio.Event()
    promoting = asyncio.create_task(control.promote(candidate.digest))
    await until(lambda: ("activate", candidate.digest, False) in plugin.calls)
    promoting.cancel()
    await asyncio.wait({promoting})
    plugin.hold.set()
    await until(lambda: control.slots.stable == candidate)
    assert plugin.live == candidate


# Switchback.


def answered(ledger, *steps):
    ledger.end(
        ledger.begin(f"k{id(steps)}"), Report((1,), (2,), 9, "length", steps), lambda _: None
    )


@pytest.fixture
def quick(monkeypatch):
    def seconds(candidate_bps, *, requests_per_second, former_seconds):
        return {"stable": 0.05, "candidate": 0.05}

    monkeypatch.setattr(switchback, "block_seconds", seconds)


async def test_a_share_of_the_time_alternates_the_drafts_in_pairs(
    control, plugin, draft, ledger, quick
):
    stable, candidate = await canary(control, draft)
    await control.split("chat-1", 5000)
    for _ in range(400):
        accepted = 3 if plugin.live == candidate else 1
        answered(ledger, (4, accepted))
        await asyncio.sleep(0.002)
    page = await control.outcomes("chat-1", cursor=Cursor("", 0), limit=1000)
    assert len(page.outcomes) >= 6
    assert [one.pair for one in page.outcomes] == [
        pair for pair in range(1, len(page.outcomes) // 2 + 1) for _ in range(2)
    ]
    for one in page.outcomes:
        assert one.candidate_bps == 5000
        served = one.served
        times = 3 if one.arm == "candidate" else 1
        assert served.accepted_tokens * 4 == served.drafted_tokens * times
    await control.split("", 0)
    assert plugin.live == stable
    calls = len(plugin.calls)
    await asyncio.sleep(0.15)
    assert len(plugin.calls) == calls


async def test_a_new_share_goes_on_with_the_numbers_of_the_pairs(control, draft, ledger, quick):
    await canary(control, draft)
    await control.split("chat-1", 5000)
    await until(lambda: control._switchback.pair >= 3)
    await control.split("chat-1", 2000)
    await until(lambda: control._switchback.pair >= 5)
    assert (await control.status()).candidate_bps == 2000
    await control.split("chat-2", 2000)
    assert control._switchback.pair <= 2


async def test_all_of_the_time_is_the_candidates_without_pairs(control, plugin, draft, ledger):
    _, candidate = await canary(control, draft)
    await control.split("chat-1", 10_000)
    assert plugin.live == candidate
    assert ledger.block is None
    await control.unstage()
    assert plugin.live != candidate


async def test_a_promotion_while_the_candidate_is_live_needs_no_switch(control, plugin, draft):
    _, candidate = await canary(control, draft)
    await control.split("chat-1", 10_000)
    assert (await control.promote(candidate.digest)).pause_microseconds == 0
    assert (plugin.live, plugin.staged) == (candidate, None)
    assert control._ledger.serving.arm == "stable"


async def test_a_pair_in_which_the_engine_restarts_is_lost_and_the_next_is_not(
    control, plugin, draft, ledger, quick
):
    await canary(control, draft)
    await control.split("chat-1", 5000)
    await until(lambda: control._switchback.pair >= 2)
    plugin.restart()
    await until(lambda: plugin.live != START)
    await until(lambda: not control.problem())
    lost = control._switchback.pair

    async def traffic():
        while True:
            answered(ledger, (4, 2))
            await asyncio.sleep(0.002)

    task = asyncio.create_task(traffic())
    await until(lambda: ledger.outcomes.page("chat-1", Cursor("", 0), 10).outcomes)
    task.cancel()
    page = await control.outcomes("chat-1", cursor=Cursor("", 0), limit=10)
    assert page.outcomes[0].pair > lost - 1


@pytest.mark.parametrize(
    ("rollout", "bps", "error"),
    [("r", 10_001, InvalidInputError), ("", 5000, InvalidInputError), ("r", 5000, ConflictError)],
)
async def test_shares_that_make_no_sense_are_refused(control, rollout, bps, error):
    with pytest.raises(error):
        await control.split(rollout, bps)


async def test_draining_waits_until_the_outcomes_are_fetched(control, draft, ledger, quick):
    await canary(control, draft)
    await control.split("chat-1", 5000)

    async def traffic():
        while True:
            answered(ledger, (4, 2))
            await asyncio.sleep(0.002)

    task = asyncio.create_task(traffic())
    await until(lambda: not ledger.outcomes.drained)
    task.cancel()
    await control.stop()
    draining = asyncio.create_task(control.drain())
    page = await control.outcomes("chat-1", cursor=Cursor("", 0), limit=1000)
    assert not draining.done()
    await control.outcomes("chat-1", cursor=page.next, limit=1000)
    await asyncio.wait_for(draining, 5)


async def test_one_that_puts_back_leaves_the_engine_with_the_draft_that_it_started_with(
    plugin, ledger, draft
):
    control = GatewayControl(plugin, model_store(), ledger, target=TARGET, puts_back=True)
    await canary(control, draft)

    await control.stop()

    assert plugin.live == START
    assert ("stage", START.digest, None) in plugin.calls


async def test_an_engine_that_is_gone_does_not_keep_the_gateway_from_stopping(
    plugin, ledger, draft
):
    control = GatewayControl(plugin, model_store(), ledger, target=TARGET, puts_back=True)
    await canary(control, draft)
    plugin.down = True

    await control.stop()


async def test_an_engine_with_another_target_is_never_well(plugin, ledger, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(switchback, "_AFTER_FAILURE_SECONDS", 0.01)
    other = TargetShape(320, 128, 4)
    control = GatewayControl(plugin, model_store(), ledger, target=TARGET, shape=other)
    watch = asyncio.create_task(control.watch())

    await until(lambda: "another target" in control.problem())

    assert "2 layers of 64, 320 tokens" in control.problem()
    assert "4 layers of 128, 320 tokens" in control.problem()
    watch.cancel()
