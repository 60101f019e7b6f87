"""From a finished request to the buffer, off the serving path."""
