"""The hot operations: a plain reference each, and faster forms picked by measurement."""
