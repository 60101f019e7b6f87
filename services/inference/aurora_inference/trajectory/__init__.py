"""Records finished requests and sends them to the buffer, off the serving path."""
