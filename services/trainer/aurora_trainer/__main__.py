"""`python -m aurora_trainer …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aurora_common import leash, log
from aurora_common.errors import AuroraError
from aurora_trainer.settings import parse_settings

# Training shares the machine with serving: idle threads of a parallel loop sleep instead of
# spinning on cores that serving could use. Read when torch is loaded.
_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, or computes gradients for the replica that does, until SIGTERM or SIGINT.

    Returns 1 after an error, which is one line on stderr.
    """
    try:
        settings = parse_settings(arguments)
        leash.follow()
        log.configure()
        for variable, value in _QUIET_THREADS.items():
            os.environ.setdefault(variable, value)
        # Loads torch, which must come after the variables above.
        if settings.replica_index > 0:
            from aurora_trainer.replica_process import run
        else:
            from aurora_trainer.process import run

        return run(settings)
    except AuroraError as error:
        sys.stderr.write(f"aurora_trainer: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
