"""A codec is derived from the dataclass alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_common.codec import Wire, codec


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Working."""

    since: datetime
    load: Annotated[float, "Its load.", Wire("share")] = 0.5


@dataclass(frozen=True, slots=True)
class Port:
    """A port."""

    number: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose it is."""

    name: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine.

    Not part of the description.
    """

    state: Annotated[Idle | Busy, "What it does.", Wire(inline=True)]
    owner: Annotated[Owner | None, "Whose it is."] = None
    owner_age: Annotated[int | None, "How old.", Wire("age", within="owner")] = None
    ports: Annotated[
        Mapping[Annotated[str, "Its name.", Wire("name")], Port], "Open.", Wire(max_items=9)
    ] = field(default_factory=dict)
    healthy: Annotated[bool, "Whether it is well.", Wire(quoted=True)] = True
    kind: Annotated[Literal["small", "large"], "Its size."] = "small"
    span: Annotated[tuple[int, int] | None, "From and to."] = None
    tags: Annotated[tuple[str, ...], "Words.", Wire(required=True)] = ()

    @property
    def port_count(self) -> Annotated[int, "How many ports."]:
        return len(self.ports)

    @property
    def is_owned(self) -> bool:
        return self.owner is not None


MACHINE = codec(Machine)
NOON = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))
FULL = Machine(
    Busy(NOON, 0.1), Owner("ann"), 40, {"b": Port(2), "a": Port(1)}, False, "large", (1, 2)
)
WRITTEN = {
    "portCount": 2,
    "state": "Busy",
    "since": "2026-01-02T10:00:00.000000Z",
    "share": "0.1",
    "owner": {"name": "ann", "age": 40},
    "ports": [{"name": "a", "number": 1}, {"name": "b", "number": 2}],
    "healthy": "False",
    "kind": "large",
    "span": [1, 2],
    "tags": [],
}


def test_it_is_written_as_its_type_says():
    assert MACHINE.write(FULL) == WRITTEN
    assert MACHINE.read(WRITTEN, "machine") == FULL


def test_what_is_absent_is_left_out():
    written = {
        "portCount": 0,
        "state": "Idle",
        "ports": [],
        "healthy": "True",
        "kind": "small",
        "tags": [],
    }
    assert MACHINE.write(Machine(Idle(), None, 40)) == written
    assert MACHINE.read({"state": "Idle", "tags": []}, "machine") == Machine(Idle())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"surprise": 1}, "machine.surprise is unknown"),
        ({"owner": 5}, "machine.owner is 5; expected an object"),
        ({"state": "Away"}, "machine.state is 'Away'; expected Idle or Busy"),
        ({"since": None}, "machine.since is missing"),
        ({"since": "noon"}, "machine.since is 'noon'; expected a time"),
        ({"since": "2026-01-02T10:00:00"}, "machine.since is .*; expected a time"),
        ({"share": "high"}, "machine.share is 'high'; expected a decimal"),
        ({"owner": {"age": 1}}, "machine.owner.name is missing"),
        (
            {"owner": {"name": "ann", "age": "1"}},
            "machine.owner.age is '1'; expected a whole number",
        ),
        ({"owner": {"name": "ann", "size": 1}}, "machine.owner.size is unknown"),
        ({"ports": [{"name": "a", "number": True}]}, r"machine.ports\[0\].number is True"),
        ({"ports": [{"number": 1}]}, "machine.ports.name is None"),
        ({"ports": {}}, "machine.ports is {}; expected a list"),
        ({"healthy": True}, "machine.healthy is True; expected True or False"),
        ({"span": [1]}, r"machine.span is \[1\]; expected a list of 2"),
        ({"tags": None}, "machine.tags is missing"),
    ],
)
def test_anything_else_is_refused_by_its_path(change, problem):
    with pytest.raises(ValueError, match=problem):
        MACHINE.read({**WRITTEN, **change}, "machine")


def test_a_lenient_codec_ignores_unknown_keys():
    lenient = codec(Machine, strict=False)
    changed = {**WRITTEN, "new": 1, "owner": {**WRITTEN["owner"], "new": 1}}
    assert lenient.read(changed, "machine") == FULL


def test_the_schema_describes_it():
    schema = MACHINE.schema
    assert schema["description"] == "A machine."
    assert schema["properties"].keys() == WRITTEN.keys()
    assert schema["properties"]["state"]["enum"] == ["Idle", "Busy"]
    assert schema["properties"]["share"]["nullable"]
    assert schema["properties"]["owner"]["properties"]["age"]["description"] == "How old."
    assert schema["properties"]["ports"]["items"]["properties"].keys() == {"name", "number"}
    assert schema["properties"]["kind"]["default"] == "small"
    assert schema["properties"]["span"]["maxItems"] == 2
    assert "default" not in schema["properties"]["tags"]


@given(st.floats(allow_nan=False), st.datetimes(timezones=st.just(UTC)))
def test_floats_and_times_read_back_exactly(load, since):
    machine = Machine(Busy(since, load))
    assert MACHINE.read(json.loads(json.dumps(MACHINE.write(machine))), "machine") == machine
