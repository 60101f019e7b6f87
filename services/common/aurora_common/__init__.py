"""What every component shares; nothing here imports torch."""
