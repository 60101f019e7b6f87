"""The native engine: continuous batching with ragged speculative decoding."""
