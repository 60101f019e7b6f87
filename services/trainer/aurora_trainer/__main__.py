"""`python -m aurora_trainer train …` and `python -m aurora_trainer gradient …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aurora_common import leash, log
from aurora_common.errors import AuroraError
from aurora_trainer.settings import GradientSettings, TrainSettings, parse_settings

# Serving comes first on a machine that both share.
_NICENESS = 10
# Idle threads of a parallel loop sleep instead of spinning on cores that serving could use. torch
# reads these when it is imported.
_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, or computes gradients for a trainer, until SIGTERM or SIGINT.

    Returns the exit code; an error is one line on stderr.
    """
    try:
        settings = parse_settings(arguments)
        leash.follow()
        log.configure()
        os.nice(_NICENESS)
        for variable, value in _QUIET_THREADS.items():
            os.environ.setdefault(variable, value)
        return _run(settings)
    except AuroraError as error:
        sys.stderr.write(f"aurora_trainer: {' '.join(str(error).split())}\n")
        return 1


def _run(settings: TrainSettings | GradientSettings) -> int:
    log.report("importing torch")
    # Only after the variables above are set.
    import torch

    from aurora_common.tls import CertificateFolder
    from aurora_trainer import process
    from aurora_trainer.replica import process as replica_process

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # Before any model is loaded, so that a missing file fails fast.
    certificates = None if settings.tls is None else CertificateFolder(settings.tls)
    match settings:
        case TrainSettings():
            return process.train(settings, certificates)
        case GradientSettings():
            replica_process.serve(settings, certificates)
            return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Finalizing the interpreter and torch takes longer than an idle trainer takes to stop.
    os._exit(code)
