"""The gRPC service aurora.inference.v1, on the clients' port and on the operator's."""
