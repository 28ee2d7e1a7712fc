"""The whole table."""

from __future__ import annotations

from cacherules import freshness, reuse, storing, validation

CASES = [*storing.CASES, *freshness.CASES, *reuse.CASES, *validation.CASES]
