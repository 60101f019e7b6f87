"""Draft slots, traffic split and outcomes, for any engine: drafts are known by digest alone."""
