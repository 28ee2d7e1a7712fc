"""Projects and tokens at rest: the interface, its SQL backends, and the validator that remembers."""
