"""`aurora rollout history` and `explain`: what is said of rollouts that ended or go on."""

import json
from copy import deepcopy

import pytest
import yaml
from typer.testing import CliRunner

from aurora_client._cli import picture
from aurora_client._cli.app import app
from aurora_client._cli.run import CommandError
from aurora_client.testing import FakeServer

LIVE = {
    "id": "chat-7",
    "candidate": {"checkpoint": "ckpt-7", "digest": "sha256:" + "a7" * 32},
    "state": "Analyzing",
    "step": 1,
    "startedAt": "2026-01-01T10:00:00Z",
    "deadline": "2026-01-01T16:00:00Z",
    "evidence": {
        "requests": 212,
        "effectBps": 52,
        "ciBps": [-90, 194],
        "threshold": "4.6052",
        "promotionThreshold": "6.397",
        "replay": {
            "savedBps": 153,
            "ciBps": [12, 294],
            "requests": 240,
            "path": {"every": 8, "logE": ["-0.1", "2.1", "6.4"], "logHarm": ["0.1", "0", "-2.0"]},
        },
    },
    "clauses": [
        {"name": "Better", "holds": True, "required": "6.397", "found": "6.4123"},
        {"name": "SavesOverall", "holds": True, "required": "0.0", "found": "11.2"},
        {"name": "MinRequests", "holds": False, "required": "300.0", "found": "212.0"},
        {"name": "LiveNotWorse", "holds": True, "required": "0.0", "found": "194.2"},
        {
            "name": "WithinMargin",
            "holds": False,
            "required": "1000.0",
            "found": "1340.0",
            "subject": "tpot",
        },
        {"name": "NoReplayHarm", "holds": True, "required": "4.6052", "found": "-2.0"},
        {
            "name": "NoClassHarm",
            "holds": True,
            "required": "5.2983",
            "found": "2.65",
            "subject": "answers of up to 64 tokens",
        },
        {"name": "FewCrashes", "holds": True, "required": "3.0", "found": "1.0"},
        {"name": "OfALaterOperator", "holds": False, "required": "2.0"},
    ],
}
HISTORY = [
    {
        "id": "chat-6",
        "checkpoint": "ckpt-6",
        "digest": "sha256:" + "b6" * 32,
        "outcome": "RolledBack",
        "reason": "ReplayHarm: answers of up to 64 tokens",
        "effectBps": -40,
        "effectCiBps": [-200, 120],
        "savedBps": -210,
        "savedCiBps": [-300, -120],
        "replayed": 140,
        "requests": 80,
        "startedAt": "2026-01-01T09:00:00Z",
        "at": "2026-01-01T09:03:20Z",
        "clauses": [
            {"name": "Better", "holds": False, "required": "5.2983", "found": "-1.2"},
            {
                "name": "NoClassHarm",
                "holds": False,
                "required": "5.2983",
                "found": "5.4",
                "subject": "answers of up to 64 tokens",
            },
        ],
    },
    {
        "id": "chat-5",
        "checkpoint": "ckpt-5",
        "digest": "sha256:" + "c5" * 32,
        "outcome": "Inconclusive",
        "reason": "DeadlineReached",
        "requests": 3,
        "at": "2026-01-01T08:00:00Z",
        "clauses": [{"name": "MinRequests", "holds": False, "required": "300.0", "found": "3.0"}],
    },
    # As an earlier operator wrote it.
    {"id": "chat-4", "outcome": "Promoted", "reason": "AcceptanceBetter", "effectBps": 300},
]
QUEUE = {
    "waiting": {"checkpoint": "ckpt-9", "digest": "sha256:" + "d9" * 32},
    "superseded": ["sha256:" + "e8" * 32],
}


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def aurora(server):
    def invoke(*arguments, status=None):
        given = {"rollout": LIVE, "history": HISTORY, "queue": QUEUE}
        server.show(given if status is None else status, [])
        command = ["rollout", *arguments, "--operator", server.address]
        result = CliRunner().invoke(app, command)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return invoke


def test_history_lists_the_rollouts_newest_first(aurora):
    rows = aurora("history").splitlines()
    assert [row.split()[0] for row in rows] == ["rollout", "chat-7", "chat-6", "chat-5", "chat-4"]
    for text in ("in progress", "ckpt-7", "a7a7a7a7a7a7", "Analyzing", "212"):
        assert text in rows[1]
    for text in (
        "RolledBack",
        "ReplayHarm: answers of up to 64 tokens",
        "-2.10% (-3.00 to -1.20)",
        "-0.40 (-2.00 to +1.20)",
        "140",
        "80",
        "3m20s",
    ):
        assert text in rows[2]
    # What an earlier operator did not keep.
    assert rows[4].split() == [
        *("chat-4", "–", "–", "–", "Promoted", "AcceptanceBetter", "–", "+3.00", "–", "0", "–"),
    ]


def test_history_is_printed_as_it_is_stored(aurora):
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        live, *past = load(aurora("history", "-o", output))
        assert (live["id"], live["outcome"], live["savedCiBps"]) == (
            "chat-7",
            "Analyzing",
            [12, 294],
        )
        assert {key: past[0][key] for key in HISTORY[0] if key != "clauses"} == {
            key: value for key, value in HISTORY[0].items() if key != "clauses"
        }
        assert past[0]["clauses"][1]["subject"] == "answers of up to 64 tokens"


def test_without_a_rollout_history_says_so(aurora):
    assert aurora("history", status={}) == "no rollout yet\n"
    assert json.loads(aurora("history", "-o", "json", status={})) == []


def test_explain_says_what_a_rollout_waits_for(aurora):
    shown = aurora("explain")
    words = " ".join(shown.split())
    for text in (
        "chat-7 Analyzing ckpt-7 a7a7a7a7a7a7",
        "It waits for 88 more live requests, tpot within its margin (+13.40%, at most +10.00%) and "
        "OfALaterOperator.",
        "it ends without a verdict, and the stable draft stays.",
        "log E 6.41 at least 6.40",
        "at least +0.11% above +0.00%",
        "nearest: answers of up to 64 tokens",
        "1 died fewer than 3",
        "better ▁▃█ log E, full at 6.40; a mark each 8 requests",
        "worse ▁▁▁ log E, full at 4.61",
        "+1.53% (95%: +0.12 to +2.94)",
        "+0.52 points (95%: -0.90 to +1.94)",
    ):
        assert text in words
    rows = {row[1:].split("  ")[1]: row for row in shown.splitlines() if row[:1] in ("✓", "○")}
    assert rows["enough live requests are judged"].startswith("○")
    assert "━━━━━━━━━━━━━━━━━───────" in rows["enough live requests are judged"]
    assert rows["live acceptance is not lower"].startswith("✓")


@pytest.mark.parametrize(
    "wanted", ["chat-6", "ckpt-6", "b6b6b6", "sha256:" + "b6" * 32, "sha256:b6b6b6b6"]
)
def test_explain_finds_a_rollout_that_ended(aurora, wanted):
    shown = aurora("explain", wanted)
    for text in (
        "chat-6  RolledBack  ckpt-6  b6b6b6b6b6b6  after 3m20s",
        "It was rolled back: in replay it is slower than the stable draft (answers of up to 64 "
        "tokens).",
        "○  the evidence that it is better reaches its threshold",
        "✗  replay proves no harm to a class; nearest: answers of up to 64 tokens",
        "-2.10% (95%: -3.00 to -1.20)",
    ):
        assert text in shown
    assert "better  " not in shown


def test_explain_says_what_a_deadline_left_open(aurora):
    assert (
        "It ended without a verdict, and the stable draft stayed: maxDuration passed before the "
        "rule was met; it lacked 297 more live requests." in aurora("explain", "chat-5")
    )


def test_explain_knows_less_of_what_an_earlier_operator_wrote(aurora):
    assert aurora("explain", "chat-4").splitlines()[1:] == [
        "It was promoted: live requests prove that it is accepted more often."
    ]


@pytest.mark.parametrize(
    ("state", "paused", "says"),
    [
        ("Pending", False, "It waits for every inference to load the candidate"),
        ("WaitingForTraffic", False, "It waits for a first live request"),
        ("Promoting", False, "every inference to make the candidate stable"),
        ("Replaying", False, "A dry run, which changes nothing. It waits for 88 more"),
        ("Analyzing", True, "It is paused"),
    ],
)
def test_explain_says_what_a_state_waits_for(aurora, state, paused, says):
    live = deepcopy(LIVE) | {"state": state}
    assert says in aurora("explain", status={"rollout": live, "paused": paused})


def test_explain_says_that_a_dry_run_changed_nothing(aurora):
    past = {"id": "chat-7", "outcome": "WouldRollBack", "reason": "ReplayHarm: domain law"}
    shown = aurora("explain", status={"history": [past]})
    assert (
        "A dry run, which changed nothing: replay would have rolled it back: in replay it is "
        "slower than the stable draft (domain law)." in shown
    )


def test_the_newest_rollout_that_ended_still_has_its_evidence(aurora):
    ended = deepcopy(LIVE) | {"state": "Promoted", "reason": "ReplayBetter"}
    past = {"id": "chat-7", "outcome": "Promoted", "reason": "ReplayBetter"}
    shown = aurora("explain", status={"rollout": ended, "history": [past]})
    assert "It was promoted: recorded requests prove that it saves time" in shown
    assert "▁▃█" in shown
    assert "At 2026" not in shown


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("chat-1", "no rollout 'chat-1': name an id, a checkpoint, or at least 6 digits"),
        ("b6", "no rollout 'b6'"),
        ("ckpt-9", "ckpt-9 has no rollout yet: it is the next one"),
        ("e8e8e8", "e8e8e8e8e8e8 never had a rollout: a newer draft was published first"),
    ],
)
def test_explain_says_why_it_knows_no_such_rollout(aurora, wanted, says):
    with pytest.raises(CommandError, match=says):
        aurora("explain", wanted)


def test_explain_without_a_rollout_says_so(aurora):
    with pytest.raises(CommandError, match="no rollout yet"):
        aurora("explain", status={})


def test_a_sparkline_is_full_at_its_top_alone():
    line = picture.sparkline([-3.0, 0.0, 2.0, 4.59, 4.6, 9.0], top=4.6, style="green")
    assert line.plain == "▁▁▄▇██"
    assert picture.sparkline([1.0], top=0.0, style="green").plain == "▁"


@pytest.mark.parametrize(
    ("estimate", "low", "high", "drawn"),
    [
        (100, 50, 200, "─" * 20 + "┼" + "─" * 4 + "┝" + "━" * 4 + "●" + "━" * 9 + "┥"),
        (0, 0, 0, "─" * 20 + "●" + "─" * 20),
        (-100, -100, 100, "●" + "━" * 19 + "┿" + "━" * 19 + "┥"),
    ],
)
def test_an_interval_lies_on_an_axis_with_0_in_its_middle(estimate, low, high, drawn):
    assert picture.interval(estimate, low, high, "green").plain == drawn
