"""What the demo's models learn and what its traffic begins with: one real domain, two generated.

`python` is real text, found wherever this program runs: source code and docstrings of the standard
library. `logs` and `sql` are generated from a seed.
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
# What of each domain the report says.
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
# Never trained on: traffic begins with these.
TRAFFIC_MODULES = ("bisect", "cProfile", "filecmp", "hmac", "reprlib", "tarfile", "wave", "weakref")

_LOG_LINES = 12
_SQL_STATEMENTS = 12


def read_modules(folder: Path, names: Sequence[str]) -> list[str]:
    """The source text of these modules of the standard library in `folder`, in this order.

    A Python newer than the list may lack one, which is skipped. Raises NotFoundError where more
    than half are absent: an installation without sources.
    """
    paths = [path for name in names if (path := folder / f"{name}.py").is_file()]
    if 2 * len(paths) < len(names):
        raise NotFoundError(
            f"{folder} has only {len(paths)} of {len(names)} modules of the standard library as "
            "text; the demo needs a Python that is installed with its sources"
        )
    try:
        return [path.read_text(encoding="utf-8") for path in paths]
    except OSError as error:
        raise StorageError(f"cannot read {error.filename}: {error.strerror}") from error


def generated_documents(domain: Domain, *, seed: int) -> Iterator[str]:
    """Documents of a generated domain without end; the same for the same seed."""
    source = random.Random(f"{domain} {seed}")
    while True:
        if domain == "logs":
            yield log_document(source, lines=_LOG_LINES)
        else:
            assert domain == "sql", domain
            yield sql_document(source, statements=_SQL_STATEMENTS)
