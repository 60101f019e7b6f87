"""OpenAI's HTTP API, with health and metrics beside it."""
