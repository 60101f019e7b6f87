"""Stands in for inference as a process: the cluster tests' stand-in, with flags.

A draft's acceptance is the `acceptance` in its aurora.json; one without is refused. With its
`slowdown` a token takes so many times longer. Each promotion is written to stderr. A file `exit` in
the target's folder (exit code, space, message) ends it before it serves; with `once ` in front,
only the first time.
"""

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

from support.standin import InferenceStandin, World

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common import leash
from aurora_common.checkpoint import read_manifest
from aurora_common.errors import CheckpointError
from aurora_common.grpc_server import GrpcServer, stop_signal


class Inference(InferenceStandin):
    async def StageDraft(self, request, context):  # noqa: N802
        draft = request.draft
        manifest = read_manifest(Path(urlsplit(draft.uri).path))
        if "acceptance" not in (manifest.metrics or {}):
            raise CheckpointError(f"{draft.name}: lm_head.weight holds NaN")
        self.world.acceptance[draft.digest] = manifest.metrics["acceptance"]
        self.world.slowdown[draft.digest] = manifest.metrics.get("slowdown", 1.0)
        return await super().StageDraft(request, context)

    async def PromoteDraft(self, request, context):  # noqa: N802
        promotions = len(self.world.promotions)
        response = await super().PromoteDraft(request, context)
        if len(self.world.promotions) > promotions:
            sys.stderr.write(f"promoted {self.stable.name}\n")
        return response


async def main(flags):
    stop = stop_signal()
    inference = Inference(World(), "inference")
    if "--draft" in flags:
        folder = Path(flags["--draft"])
        manifest = read_manifest(folder)
        draft = inference_pb2.Draft(name=manifest.name, digest=manifest.digest, uri=folder.as_uri())
        request = inference_pb2.StageDraftRequest(slot=inference_pb2.SLOT_STABLE, draft=draft)
        await inference.StageDraft(request, None)
        # The real one does not know the URI of its initial draft.
        request.draft.uri = ""
    servers = [
        GrpcServer(flags[name], drain_seconds=0.1) for name in ("--grpc-listen", "--control-listen")
    ]
    for server in servers:
        server.add(inference_pb2_grpc.add_InferenceServicer_to_server, inference)
        await server.start(["aurora.inference.v1.Inference"])
    await stop.wait()
    await asyncio.gather(*(server.stop() for server in servers))


def fail(target):
    """Ends the process as the target's `exit` file says, if there is one."""
    order = Path(urlsplit(target).path) / "exit"
    if order.exists():
        code, _, message = order.read_text().removeprefix("once ").partition(" ")
        if order.read_text().startswith("once "):
            order.unlink()
        sys.stderr.write(f"{message}\n")
        sys.exit(int(code))


if __name__ == "__main__":
    leash.follow()
    flags = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    fail(flags["--target"])
    asyncio.run(main(flags))
