"""Shared by every component; nothing here imports torch."""
