"""Who has a part in an exchange, and what each must know to do: the client's side, and those who read
along, break, amend or keep what passes.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IPushProducer

from llmproxyd.model import End, Response


class Responder(Protocol):
    """The client's side of an exchange: where the answer goes."""

    def start(self, response: Response) -> None:
        """Send the head.  This is the commit point: nothing is retried after it.

        It may wait for the first piece of the body, or for :meth:`flush`.
        """

    def inform(self, response: Response) -> None:
        """Send an interim response (``103``), if the client knows such."""

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the body; *last* says that :meth:`finish` follows at once."""

    def flush(self) -> None:
        """Send what waits for more: a head without a body as yet."""

    def finish(self) -> None:
        """End the answer cleanly."""

    def cut(self) -> None:
        """End the connection so that the answer is visibly incomplete."""

    def reset(self) -> None:
        """End the connection by a reset."""

    def hang_up(self) -> None:
        """End the connection without an answer; only before :meth:`start`."""

    @property
    def chunked(self) -> bool:
        """Whether the body that was started is sent in chunks."""
        ...

    def feed_from(self, producer: IPushProducer) -> None:
        """Let the client's pace pause and resume *producer*."""

    def fed(self) -> None:
        """There is no more producer."""


class OnStage(Protocol):
    """Stands between the answer and the client, where a rehearsed fault breaks it.

    It is the exchange's responder as well, and passes on what the client is to get.

    :ivar waited: it has held the answer up.
    """

    waited: bool

    def ended(self) -> None:
        """The answer is whole; whether and when the client's is, is told by :meth:`Exchange.over`."""

    def stand_aside(self) -> None:
        """What comes is no answer that can be broken."""

    def closed(self) -> None:
        """The exchange is over."""


class Charged(Protocol):
    """Knows how the limits stand that a request came under."""

    def amended(self, head: Response) -> Response:
        """The head of its answer, with what is to be told of them."""
        ...


class Record(Protocol):
    """Keeps copies of what the client is sent."""

    def head(self, response: Response) -> None:
        """The head of the answer."""

    def piece(self, data: bytes) -> None:
        """A piece of its body."""


class Tap(Protocol):
    """Reads the body of an answer along.  It can neither delay nor change a byte."""

    def piece(self, data: bytes) -> None:
        """A piece of the body."""

    def ended(self, end: End) -> None:
        """There is no more of it."""


class Instead(Protocol):
    """Knows another answer than the upstream's, or than its failure."""

    def answered(self, head: Response) -> bool:
        """Whether the client was answered otherwise; then the upstream's answer is thrown away."""
        ...

    def failed(self) -> bool:
        """Whether the client was answered although no upstream did."""
        ...

    def relaying(self, head: Response) -> None:
        """The upstream's answer goes to the client."""


class _Nobody:
    """Takes the answer that others wait for, when the client that asked for it has left."""

    chunked = False

    def start(self, response: Response) -> None: ...

    def inform(self, response: Response) -> None: ...

    def write(self, data: bytes, *, last: bool = False) -> None: ...

    def flush(self) -> None: ...

    def finish(self) -> None: ...

    def cut(self) -> None: ...

    def reset(self) -> None: ...

    def hang_up(self) -> None: ...

    def feed_from(self, producer: IPushProducer) -> None: ...

    def fed(self) -> None: ...


NOBODY = _Nobody()
