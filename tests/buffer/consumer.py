"""A consumer to be killed: writes each entry's id; acknowledges each whose number is even."""

import sys

import grpc

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = buffer_pb2_grpc.BufferStub(channel)
    request = buffer_pb2.SubscribeRequest(group="trainer", consumer="one", batch=3)
    for response in stub.Subscribe(request, timeout=60):
        for entry in response.entries:
            if int(entry.trajectory.request_id) % 2 == 0:
                stub.Ack(buffer_pb2.AckRequest(group="trainer", ids=[entry.id]), timeout=10)
            sys.stdout.write(f"{entry.trajectory.request_id}\n")
            sys.stdout.flush()
