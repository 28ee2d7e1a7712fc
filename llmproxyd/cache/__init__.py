"""The shared HTTP cache: what may be stored and reused (pure), under which key, and where it is kept."""
