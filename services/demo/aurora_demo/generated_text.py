"""Two generated domains of low entropy: JSON logs and SQL sessions.

Their lines come from small pools, so that a prompt determines most of what follows it: easy enough
for a draft to learn from a few hundred requests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log line of a service."""

    level: str
    message: str
    status: int
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service that writes logs."""

    name: str
    host: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the SQL sessions: its columns with types, and its rows by id."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]


SERVICES = (
    Service(
        "checkout",
        "web-1",
        (
            Event("info", "order placed", 201, 48),
            Event("info", "cart updated", 200, 12),
            Event("warn", "payment retried", 202, 310),
        ),
    ),
    Service(
        "auth",
        "web-2",
        (
            Event("info", "token issued", 200, 9),
            Event("warn", "password rejected", 401, 15),
            Event("info", "session closed", 204, 4),
        ),
    ),
    Service(
        "search",
        "node-3",
        (Event("info", "query served", 200, 35), Event("warn", "index is behind", 200, 120)),
    ),
    Service(
        "billing",
        "node-4",
        (Event("info", "invoice sent", 200, 85), Event("error", "card declined", 402, 240)),
    ),
    Service(
        "storage",
        "disk-7",
        (
            Event("info", "object written", 200, 22),
            Event("info", "snapshot finished", 200, 900),
            Event("error", "volume is full", 507, 3),
        ),
    ),
)
TABLES = (
    Table(
        "customers",
        (("id", "INTEGER"), ("name", "TEXT"), ("city", "TEXT")),
        (
            ("1", "'Ada Lovelace'", "'London'"),
            ("2", "'Alan Turing'", "'Manchester'"),
            ("3", "'Grace Hopper'", "'New York'"),
            ("4", "'Emmy Noether'", "'Erlangen'"),
            ("5", "'Katherine Johnson'", "'Hampton'"),
        ),
    ),
    Table(
        "products",
        (("id", "INTEGER"), ("title", "TEXT"), ("price", "NUMERIC")),
        (
            ("1", "'desk lamp'", "24.50"),
            ("2", "'office chair'", "189.00"),
            ("3", "'notebook'", "3.20"),
            ("4", "'fountain pen'", "41.75"),
            ("5", "'coffee mug'", "8.90"),
        ),
    ),
    Table(
        "shipments",
        (("id", "INTEGER"), ("carrier", "TEXT"), ("state", "TEXT")),
        (
            ("1", "'north post'", "'delivered'"),
            ("2", "'river freight'", "'in transit'"),
            ("3", "'sky cargo'", "'waiting'"),
            ("4", "'harbour line'", "'delivered'"),
            ("5", "'rail express'", "'returned'"),
        ),
    ),
)


def log_document(source: random.Random, *, lines: int) -> str:
    """Lines of JSON logs, whose clock advances one second per line."""
    hour, minute, second = source.randrange(24), source.randrange(60), source.randrange(60)
    written = []
    for _ in range(lines):
        service = source.choice(SERVICES)
        event = source.choice(service.events)
        written.append(
            f'{{"time":"{hour:02}:{minute:02}:{second:02}","service":"{service.name}",'
            f'"host":"{service.host}","level":"{event.level}","message":"{event.message}",'
            f'"status":{event.status},"ms":{event.milliseconds}}}\n'
        )
        minute, second = minute + (second + 1) // 60, (second + 1) % 60
        hour, minute = (hour + minute // 60) % 24, minute % 60
    return "".join(written)


def sql_document(source: random.Random, *, statements: int) -> str:
    """Statements at a database prompt: tables are created, filled, queried and dropped.

    The first line, a five-digit number, makes nearly every session's beginning unique.
    """
    number = source.randrange(10_000, 100_000)
    written: list[str] = []
    while len(written) < statements:
        table = source.choice(TABLES)
        written.append(_created(table))
        written.append(_inserted(table))
        written.extend(_selected(table, source) for _ in range(source.randint(1, 3)))
        written.append(f"db=> DROP TABLE {table.name};\nDROP TABLE\n")
    return f"-- session {number}\n" + "".join(written[:statements])


def _created(table: Table) -> str:
    columns = ", ".join(f"{name} {kind}" for name, kind in table.columns)
    return f"db=> CREATE TABLE {table.name} ({columns});\nCREATE TABLE\n"


def _inserted(table: Table) -> str:
    names = ", ".join(name for name, _ in table.columns)
    rows = ",\n".join(f"  ({', '.join(row)})" for row in table.rows)
    return f"db=> INSERT INTO {table.name} ({names}) VALUES\n{rows};\nINSERT 0 {len(table.rows)}\n"


def _selected(table: Table, source: random.Random) -> str:
    names = [name for name, _ in table.columns]
    bound = source.randint(1, len(table.rows))
    rows = [[cell.strip("'") for cell in row] for row in table.rows[:bound]]
    head = f"db=> SELECT {', '.join(names)} FROM {table.name} WHERE id <= {bound} ORDER BY id;\n"
    grid = "".join(f" {' | '.join(row)}\n" for row in (names, *rows))
    return f"{head}{grid}({bound} rows)\n"
