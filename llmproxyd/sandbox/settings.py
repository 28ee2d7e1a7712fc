"""What can be set about the sandbox; filled in by the configuration (``sandbox:``)."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxyd.units import Duration


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How the sandbox answers.

    :param enabled: whether there is a sandbox at all.
    :param tokens_per_second: the pace of streams; ``None`` for as fast as the client reads,
        still one event a write.
    :param first_token: seconds before the first token of a stream, and before a whole answer
        of an inference endpoint.
    """

    enabled: bool = False
    tokens_per_second: float | None = None
    first_token: Duration = 0.0
