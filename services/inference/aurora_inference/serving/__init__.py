"""What both fronts share: text in, tokens through the engine, text out."""
