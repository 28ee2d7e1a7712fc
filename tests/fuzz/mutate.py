"""Changes that make something else of a request: the same ones for the same seed."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from .corpus import MARK, VECTORS

_PIECES = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\r",
        b"\0",
        b"\t",
        b" ",
        b"\x80",
        b"\x0b",
        b"\x7f",
        b":",
        b";",
        b",",
        b"0",
        b"5",
    ),
    *(
        b"\r\n\r\n",
        b"\r\n ",
        b"chunked",
        b"close",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ),
    *(
        b"Connection: x-secret\r\n",
        b"0\r\n\r\n",
        b"GET /v1/inner?zq@@@@@@@@qz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
)
_LINES = re.compile(rb"(?<=\n)")
_NEAR = 700
"""Most changes are made within so many bytes: there the head is."""

_all = tuple(VECTORS.values())


def _place(rng: Random, data: bytes) -> int:
    end = len(data)
    return rng.randrange((min(end, _NEAR) if rng.random() < 0.8 else end) + 1)


def _insert(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice(_PIECES) + data[at:]


def _delete(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 1, 1, 2, 5)) :]


def _replace(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice((rng.choice(_PIECES), rng.randbytes(1))) + data[at + 1 :]


def _double(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    size = rng.choice((1, 2, 8, 40))
    return data[:at] + data[at : at + size] * 2 + data[at + size :]


def _case(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at : at + 12].swapcase() + data[at + 12 :]


def _line_ends(rng: Random, data: bytes) -> bytes:
    return data.replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\r\n", b"\r\n ")), rng.choice((1, 2, 3)))


def _lines(change: Callable[[Random, list[bytes]], None]) -> Callable[[Random, bytes], bytes]:
    def changed(rng: Random, data: bytes) -> bytes:
        lines = _LINES.split(data)
        change(rng, lines)
        return b"".join(lines)

    return changed


def _drop_line(rng: Random, lines: list[bytes]) -> None:
    del lines[rng.randrange(len(lines))]


def _double_line(rng: Random, lines: list[bytes]) -> None:
    at = rng.randrange(len(lines))
    lines.insert(at, lines[at])


def _swap_lines(rng: Random, lines: list[bytes]) -> None:
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def _borrow_line(rng: Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(_LINES.split(rng.choice(_all))))


def _splice(rng: Random, data: bytes) -> bytes:
    other = rng.choice(_all)
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _behind(rng: Random, data: bytes) -> bytes:
    return data + rng.choice(_all)


def _again(rng: Random, data: bytes) -> bytes:
    """The first head more than once, as a client does that keeps its connection."""
    head, end, _ = data[:20_000].partition(b"\r\n\r\n")
    return (head + end) * rng.choice((2, 2, 3, 5)) + data


_CHANGES = (
    *(_again, _again, _again),
    *(_insert, _insert, _delete, _replace, _replace, _double, _case, _line_ends, _splice, _behind),
    *map(_lines, (_drop_line, _double_line, _swap_lines, _borrow_line)),
)


def mutant(seed: int, number: int, mark: bytes) -> tuple[bytes, Random]:
    """What the connection *number* sends, and the dice for how it does; *mark* tells whose it is.

    The first ones are the vectors as they are.
    """
    rng = Random(f"{seed}:{number}")
    if number < len(_all):
        data = _all[number]
    else:
        data = rng.choice(_all)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            data = rng.choice(_CHANGES)(rng, data) or b"\r\n"
    return data.replace(MARK, mark), rng
