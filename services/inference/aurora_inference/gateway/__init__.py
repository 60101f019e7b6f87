"""In front of a stock vLLM: passes requests through, records them and switches the draft."""
