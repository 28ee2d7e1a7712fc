"""Two thousand malformed requests, and what came of them on both sides of the proxy.

``python -m tests.fuzz`` does the same for as long as one likes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_twisted
from bench import reactor

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.corpus import VECTORS
from fuzz.mutate import mutant
from fuzz.run import Run
from fuzz.strict import Unclear, answer, request

NUMBER = 2000
SEED = 20


@pytest_twisted.ensureDeferred
async def test_nothing_slips_through() -> None:
    tally = await Run(reactor, SEED, 0, NUMBER).go()
    assert not tally.findings, "\n".join(map(str, tally.findings[:5]))
    assert tally.connections == NUMBER
    assert tally.forwarded > NUMBER / 4, "most of them are refused: this says little"
    assert {b"200", b"400", b"408", b"413", b"414", b"417", b"431", b"501", b"505"} <= set(tally.statuses)


def test_the_same_seed_makes_the_same_mutants() -> None:
    first = [mutant(SEED, number, b"x")[0] for number in range(500)]
    assert first == [mutant(SEED, number, b"x")[0] for number in range(500)]
    assert first != [mutant(SEED + 1, number, b"x")[0] for number in range(500)]


def test_each_vector_is_another() -> None:
    assert len(set(VECTORS.values())) == len(VECTORS) > 200


# The reader that judges is judged here.

GOOD = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


def test_a_good_request_is_read() -> None:
    read = request(GOOD + b"rest", plain=True)
    assert read is not None
    message, end = read
    assert (message.start[:2], message.body, end) == ((b"POST", b"/x"), b"hi", len(GOOD))


@pytest.mark.parametrize("end", range(1, len(GOOD)))
def test_a_part_of_a_request_is_not_whole(end: int) -> None:
    assert request(GOOD[:end]) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Host: a\r\n", b""),
        (b"Host: a\r\n", b"Host: a\r\nhost: a\r\n"),
        (b"Host: a\r\n", b"Host: a\n"),
        (b"Host: a\r\n", b"Host: a\r\nx: y\0\r\n"),
        (b"Host: a\r\n", b"Host: a\r\n x\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nContent-Length: 2\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nX-Llmproxyd-Fault: r\r\n"),
        (b"Host: a\r\n", b"Host: a\r\ncontent_length: 2\r\n"),
        (b"-Encoding:", b"-Encoding :"),
        (b": chunked", b": chunked, identity"),
        (b"2\r\n", b"0x2\r\n"),
        (b"2\r\n", b"2;x\r\n"),
        (b"2\r\n", b"2\n"),
        (b"hi\r\n", b"hi..\r\n"),
        (b"0\r\n", b"0\r\nx: y\r\n"),
        (b"/x ", b"http://a/x "),
        (b"1.1", b"1.0"),
    ],
)
def test_what_is_not_clear_is_told(old: bytes, new: bytes) -> None:
    with pytest.raises(Unclear):
        request(GOOD.replace(old, new, 1), plain=True)


def test_answers_are_read_one_by_one() -> None:
    data = (
        b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n" + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    )
    message, at = answer(data, 0)
    assert (message.start, message.body) == ((b"400",), b"")
    message, at = answer(data, at)
    assert (message.body, message.whole, at) == (b"hi", True, len(data))
