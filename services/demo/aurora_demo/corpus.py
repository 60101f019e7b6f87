"""The text of the demo's training and traffic: one real domain, two generated ones.

`python` is real text that is available wherever this program runs: source code and docstrings of
the standard library. `logs` and `sql` are generated from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from aurora_common.errors import NotFoundError, StorageError
from aurora_demo.generated_text import log_document, sql_document

Domain = Literal["python", "logs", "sql"]
DOMAINS: tuple[Domain, ...] = ("python", "logs", "sql")
# Descriptions for the report.
ORIGINS: Mapping[Domain, str] = {
    "python": "real text: source code and docstrings of Python's standard library",
    "logs": "generated text: JSON log lines of five services",
    "sql": "generated text: sessions at a database prompt",
}

# Single-file modules that every Python from 3.11 on has.
TRAINING_MODULES = (
    *("argparse", "ast", "base64", "bdb", "calendar", "cmd", "codecs", "compileall"),
    *("configparser", "contextlib", "copy", "csv", "dataclasses", "difflib", "dis", "doctest"),
    *("enum", "fileinput", "fractions", "ftplib", "functools", "gettext", "gzip", "heapq"),
    *("imaplib", "inspect", "ipaddress", "locale", "mailbox", "mimetypes", "modulefinder"),
    *("netrc", "ntpath", "optparse", "os", "pdb", "pickle", "pickletools", "pkgutil", "platform"),
    *("plistlib", "poplib", "posixpath", "pprint", "profile", "pstats", "queue", "random"),
    *("sched", "selectors", "shelve", "shlex", "shutil", "site", "smtplib", "socket"),
    *("socketserver", "ssl", "statistics", "subprocess", "tempfile", "textwrap", "threading"),
    *("timeit", "tokenize", "trace", "traceback", "types", "typing", "uuid", "warnings"),
)
# Held out from training; the traffic's prompts come from these.
TRAFFIC_MODULES = ("bisect", "cProfile", "filecmp", "hmac", "reprlib", "tarfile", "wave", "weakref")

_LOG_LINES = 12
_SQL_STATEMENTS = 12


def read_modules(folder: Path, names: Sequence[str]) -> list[str]:
    """The source text of these modules of the standard library in `folder`, in order.

    Modules that a newer Python lacks are skipped. Raises NotFoundError if more than half are
    missing, as in an installation without sources.
    """
    paths = [path for name in names if (path := folder / f"{name}.py").is_file()]
    if 2 * len(paths) < len(names):
        raise NotFoundError(
            f"{folder} has only {len(paths)} of {len(names)} modules of the standard library as "
            "text; the demo needs a Python installed with its sources"
        )
    try:
        return [path.read_text(encoding="utf-8") for path in paths]
    except OSError as error:
        raise StorageError(f"cannot read {error.filename}: {error.strerror}") from error


def generated_documents(domain: Domain, *, seed: int) -> Iterator[str]:
    """Endless documents of a generated domain; the same for the same seed."""
    source = random.Random(f"{domain} {seed}")
    while True:
        if domain == "logs":
            yield log_document(source, lines=_LOG_LINES)
        else:
            assert domain == "sql", domain
            yield sql_document(source, statements=_SQL_STATEMENTS)
