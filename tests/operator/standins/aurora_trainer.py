"""Stands in for the trainer: streams the checkpoints that the test puts into its folder."""

import asyncio
import re
import sys
from pathlib import Path

from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_common import leash
from aurora_common.checkpoint import read_manifest
from aurora_common.grpc_server import GrpcServer, stop_signal
from aurora_common.store.published import PublishedDrafts
from aurora_common.store.stable import StableFile, StableRecord

FOLDER = re.compile(r"ckpt-(\d+)-[0-9a-f]{12}")


def checkpoint(sequence, folder):
    manifest = read_manifest(folder)
    return trainer_pb2.Checkpoint(
        sequence=sequence,
        name=manifest.name,
        digest=manifest.digest,
        uri=folder.as_uri(),
        trained_through=manifest.trained_through,
    )


class Trainer(trainer_pb2_grpc.TrainerServicer):
    def __init__(self, models):
        self.models = models
        self.stable = StableFile(models, lambda digest: digest == "sha256:t")

    async def WatchCheckpoints(self, request, context):  # noqa: N802
        after = request.after_sequence
        while True:
            entries = list(self.models.iterdir()) if self.models.exists() else []
            matches = [(FOLDER.fullmatch(entry.name), entry) for entry in entries]
            for sequence, folder in sorted((int(m[1]), e) for m, e in matches if m):
                if sequence > after:
                    after = sequence
                    yield checkpoint(sequence, folder)
            await asyncio.sleep(0.05)

    async def WatchStatus(self, request, context):  # noqa: N802
        found = self.stable.restorable()
        restorable = found and trainer_pb2.Restorable(
            draft=checkpoint(found.draft.sequence, found.draft.folder),
            seen_sequence=found.record.seen_sequence,
            attempts=found.record.attempts,
        )
        yield trainer_pb2.GetStatusResponse(
            phase="WaitingForTrajectories",
            min_new_trajectories=48,
            steps_per_round=60,
            restorable=restorable,
        )
        await asyncio.Event().wait()

    async def PruneCheckpoints(self, request, context):  # noqa: N802
        if request.record_stable:
            self.stable.write(
                StableRecord(request.stable_digest, request.seen_sequence, request.attempts)
            )
        removed = PublishedDrafts(self.models).prune(
            keep=request.keep,
            needed=frozenset(request.needed_digests),
            seen_sequence=request.seen_sequence,
        )
        return trainer_pb2.PruneCheckpointsResponse(removed=removed)

    async def KeepRolloutRecord(self, request, context):  # noqa: N802
        folder = self.models / "rollouts"
        folder.mkdir(exist_ok=True)
        (folder / f"{request.name}.json").write_bytes(request.content)
        return trainer_pb2.KeepRolloutRecordResponse()


async def main(flags):
    stop = stop_signal()
    server = GrpcServer(flags["--listen"], drain_seconds=0.1)
    # A rank has none.
    if "--models" in flags:
        trainer = Trainer(Path(flags["--models"]))
        server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, trainer)
    await server.start(["aurora.trainer.v1.Trainer"])
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    leash.follow()
    _, command, *flags = sys.argv
    assert command in ("train", "rank")
    asyncio.run(main(dict(zip(flags[::2], flags[1::2], strict=True))))
