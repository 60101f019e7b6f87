"""What both fronts share: from text to the engine and back, and what is served at the moment."""
