"""Keeps the trajectories of served requests in Redis Streams until the trainer has them."""
