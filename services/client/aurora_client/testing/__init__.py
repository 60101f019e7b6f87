"""A fake server for testing programs that use aurora_client: real gRPC, scripted answers.

with FakeServer(Answer("Hello", " world")) as server, AuroraClient(server.address) as client:
    assert client.generate("Hi", max_tokens=2).text == "Hello world"
    assert server.requests[0].prompt == "Hi"
"""

from aurora_client.testing._answer import Answer
from aurora_client.testing._server import FakeServer

__all__ = ["Answer", "FakeServer"]
