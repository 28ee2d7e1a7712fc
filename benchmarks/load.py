"""The load: one process, one thread, one measurement; prints its result as JSON.

It shares a CPU with the upstream, so it must be lean: bare sockets and a selector.  Every loop is
bounded in time.  The proxy's costs are read here, at the very start and end of the window.
"""

from __future__ import annotations

import gc
import json
import re
import resource
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import meter
from shapes import chat_request, download_request, upload_head

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
STAMP = re.compile(rb'"id":"chatcmpl-(\d{19})"')
PATIENCE = 60.0
"""Seconds after which a connection that does not move is a failure."""

Result = dict[str, Any]


class Broken(Exception):
    """The peer did not answer as it must."""


def connect(port: int) -> socket.socket:
    """A connection to the peer."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which *share* of *values* lies; they must be sorted."""
    return values[min(int(len(values) * share), len(values) - 1)]


class Loop:
    """A selector and the window of time in which things count.

    :ivar open: whether they count now.
    """

    def __init__(self, pid: int | None) -> None:
        self.selector = selectors.DefaultSelector()
        self.pids = meter.family(pid) if pid is not None else []
        self.cpu: int | None = None
        self.seconds = 0.0
        self.open = False
        self.tick: Callable[[], float] | None = None
        """Does what is due; tells the seconds until something is again."""

    def add(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        """Call *readable* whenever *sock* is."""
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, readable)

    def turn(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Run for a time, or until something holds.

        :raises Broken: it does not hold in time.
        """
        select, clock = self.selector.select, time.monotonic
        end = clock() + seconds
        while (now := clock()) < end:
            wait = min(end - now, 0.1)
            for key, _ in select(wait if self.tick is None else min(wait, self.tick())):
                key.data()
            if until is not None and until():
                return
        if until is not None:
            raise Broken(f"not done in {seconds:g} s")

    def measure(self, warm: float, seconds: float) -> None:
        """Run with nothing counted, then with everything counted."""
        self.turn(warm)
        self.open = True
        cpu, then = meter.cpu(self.pids), time.monotonic()
        self.turn(seconds)
        self.open = False
        after = meter.cpu(self.pids)
        self.cpu = None if cpu is None or after is None else after - cpu
        self.seconds = time.monotonic() - then


class Client:
    """A connection on which one request follows the other.

    :param taken: receives the microseconds of each; tells whether to send another.
    :param rest: where it waits if not.
    """

    def __init__(
        self,
        loop: Loop,
        port: int,
        request: bytes,
        taken: Callable[[float], bool],
        rest: deque[Client] | None = None,
    ) -> None:
        self._rest = rest
        self._request = request
        self._taken = taken
        self._buffer = b""
        self._missing = 0
        self._sock = connect(port)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
        loop.add(self._sock, self._readable)

    def send(self) -> None:
        """Send the request."""
        self._then = time.perf_counter()
        sent = self._sock.send(self._request)
        if sent < len(self._request):
            self._sock.settimeout(PATIENCE)
            self._sock.sendall(self._request[sent:])
            self._sock.setblocking(False)

    def _readable(self) -> None:
        data = self._sock.recv(1 << 18)
        if not data:
            raise Broken("connection closed in the middle of the measurement")
        if self._missing:
            self._missing -= len(data)
        else:
            buffer = self._buffer + data if self._buffer else data
            end = buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                self._buffer = buffer
                return
            self._buffer = b""
            length = LENGTH.search(buffer, 0, end)
            if length is None or buffer[9:12] != b"200":
                raise Broken(f"unexpected answer: {buffer[:200]!r}")
            self._missing = end + int(length[1]) - len(buffer)
        if self._missing == 0:
            if self._taken((time.perf_counter() - self._then) * 1e6):
                self.send()
            elif self._rest is not None:
                self._rest.append(self)


class Pacer:
    """Gives the connections that wait their turns, at a pace that does not depend on the answers.

    :param pace: requests a second.
    """

    def __init__(self, pace: float, waiting: deque[Client]) -> None:
        self._pace = pace
        self._waiting = waiting
        self._owed = 0.0
        self._then = time.monotonic()

    def __call__(self) -> float:
        """Send what is due; the seconds until the next one is."""
        now = time.monotonic()
        # What could not be sent because none waited is not made up for.
        self._owed = min(self._owed + (now - self._then) * self._pace, 16.0)
        self._then = now
        while self._owed >= 1 and self._waiting:
            self._owed -= 1
            self._waiting.popleft().send()
        return max(1 - self._owed, 0.1) / self._pace


class Stream:
    """A connection that receives events.

    :ivar events: how many came.
    :param taken: receives each one's microseconds on the way.
    """

    def __init__(self, loop: Loop, port: int, request: bytes, taken: Callable[[float], object]) -> None:
        self.events = 0
        self._taken = taken
        self._rest = b""
        self._head = True
        self._chunked = False
        self._left = 0
        self._text = b""
        self._sock = connect(port)
        self._selector = loop.selector
        self._sock.sendall(request)
        loop.add(self._sock, self._readable)

    def close(self) -> None:
        """Go away, as an impatient client does."""
        self._selector.unregister(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        data = self._sock.recv(1 << 18)
        now = time.monotonic_ns()
        if not data:
            raise Broken("stream ended")
        if self._head:
            data = self._rest + data
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if head[9:12] != b"200":
                raise Broken(f"unexpected answer: {head[:200]!r}")
            self._head, self._rest = False, b""
            self._chunked = CHUNKED.search(head) is not None
        text = self._text + (self._unchunked(data) if self._chunked else data)
        end = text.rfind(b"\n\n") + 2
        if end < 2:
            self._text = text
            return
        self._text = text[end:]
        for stamp in STAMP.findall(text, 0, end):
            self.events += 1
            self._taken((now - int(stamp)) / 1000)

    def _unchunked(self, data: bytes) -> bytes:
        data = self._rest + data
        position, pieces, left = 0, [], self._left
        while position < len(data):
            if left == 0:
                end = data.find(b"\r\n", position)
                if end < 0:
                    break
                left = int(data[position:end], 16) + 2
                position = end + 2
            piece = data[position : position + left]
            position += len(piece)
            left -= len(piece)
            # The last two bytes of a chunk are a line end.
            pieces.append(piece[:-2] if left == 0 else piece[:-1] if left == 1 else piece)
        self._left, self._rest = left, data[position:]
        return b"".join(pieces)


def json_load(job: Result) -> Result:
    """Every connection sends its next request when it has its answer, or when its turn comes."""
    loop = Loop(job["pid"])
    taken: list[float] = []

    def count(microseconds: float) -> bool:
        if loop.open:
            taken.append(microseconds)
        return not pace

    pace = job.get("pace")
    waiting: deque[Client] = deque()
    request = _chat(job, job["send"], b"json=%d" % job["receive"])
    clients = [Client(loop, job["port"], request, count, waiting) for _ in range(job["connections"])]
    if pace:
        waiting.extend(clients)
        loop.tick = Pacer(pace, waiting)
    else:
        for client in clients:
            client.send()
    loop.turn(job["warm"])
    before = stats(job["upstream"])
    loop.measure(0.05, job["seconds"])
    after = stats(job["upstream"])
    if not taken:
        raise Broken("no answer within the window")
    taken.sort()
    number = len(taken)
    return {
        "rate": number / loop.seconds,
        "cpu": None if loop.cpu is None else loop.cpu / 1000 / number,
        "p50": quantile(taken, 0.5),
        "p99": quantile(taken, 0.99),
        "busy": None if loop.cpu is None else loop.cpu / 1e9 / loop.seconds,
        "connects": (after["connections"] - before["connections"] - 1) / number * 1000,
    }


def sse_load(job: Result) -> Result:
    """Streams that run side by side, at a pace that the upstream keeps."""
    loop = Loop(job["pid"])
    taken: list[float] = []

    def count(microseconds: float) -> None:
        if loop.open:
            taken.append(microseconds)

    request = chat_request(_host(job), 2048, b"sse=%d" % job["pace"], stream=True)
    for _ in range(job["connections"]):
        Stream(loop, job["port"], request, count)
    loop.measure(job["warm"], job["seconds"])
    if not taken:
        raise Broken("no event within the window")
    taken.sort()
    return {
        "rate": len(taken) / loop.seconds,
        "cpu": None if loop.cpu is None else loop.cpu / 1000 / len(taken),
        "p50": quantile(taken, 0.5),
        "p99": quantile(taken, 0.99),
        "busy": None if loop.cpu is None else loop.cpu / 1e9 / loop.seconds,
    }


def streams_load(job: Result) -> Result:
    """Memory of many slow streams that are open at a time."""
    loop = Loop(job["pid"])
    request = chat_request(_host(job), 2048, b"sse=1", stream=True)

    def opened(number: int) -> list[Stream]:
        streams: list[Stream] = []
        while len(streams) < number:
            streams.extend(Stream(loop, job["port"], request, lambda _: None) for _ in range(20))
            loop.turn(PATIENCE, lambda: all(stream.events for stream in streams))
        return streams

    for stream in opened(20):
        stream.close()
    loop.turn(job["settle"])
    before = meter.memory(loop.pids)
    number = len(opened(job["connections"]))
    loop.turn(job["settle"])
    after = meter.memory(loop.pids)
    grown = None if before is None or after is None else (after - before) / number / 1000
    return {"kilobytes": grown, "connections": number}


def download(job: Result) -> Result:
    """One big body towards the client."""
    loop = Loop(job["pid"])
    _warm_up(job)
    sock = connect(job["port"])
    before, cpu, then = meter.resident(loop.pids), meter.cpu(loop.pids), time.monotonic()
    sock.sendall(download_request(_host(job), job["size"]))
    received, head, block = 0, b"", bytearray(1 << 20)
    while b"\r\n\r\n" not in head:
        head += _some(sock)
    head, _, body = head.partition(b"\r\n\r\n")
    if head[9:12] != b"200" or LENGTH.search(head) is None:
        raise Broken(f"unexpected answer: {head[:200]!r}")
    received = len(body)
    while received < job["size"]:
        count = sock.recv_into(block)
        if not count:
            raise Broken(f"cut after {received} bytes")
        received += count
    return _big(job, loop, before, cpu, then)


def upload(job: Result) -> Result:
    """One big body from the client."""
    loop = Loop(job["pid"])
    _warm_up(job)
    sock = connect(job["port"])
    before, cpu, then = meter.resident(loop.pids), meter.cpu(loop.pids), time.monotonic()
    sock.sendall(upload_head(_host(job), job["size"]))
    block = memoryview(bytes(1 << 18))
    for start in range(0, job["size"], len(block)):
        sock.sendall(block[: job["size"] - start])
    head = b""
    while b"\r\n\r\n" not in head or (head[9:12] == b"200" and not head.endswith(b"}")):
        head += _some(sock)
    if head[9:12] != b"200" or b'{"bytes": %d}' % job["size"] not in head:
        raise Broken(f"unexpected answer: {head[:200]!r}")
    return _big(job, loop, before, cpu, then)


def _big(job: Result, loop: Loop, before: int | None, cpu: int | None, then: float) -> Result:
    seconds = time.monotonic() - then
    after, peak = meter.cpu(loop.pids), meter.peak(loop.pids)
    return {
        "megabytes": job["size"] / seconds / 1e6,
        "cpu": None if cpu is None or after is None else (after - cpu) / job["size"],
        "grown": None if before is None or peak is None else (peak - before) / 1e6,
    }


def idle_load(job: Result) -> Result:
    """Requests one after another, while many connections that were used before wait."""
    loop = Loop(job["pid"])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = job["connections"] if hard == resource.RLIM_INFINITY else min(job["connections"], hard - 500)
    request = chat_request(_host(job), 2048, b"json=1024")
    taken: list[float] = []

    def count(microseconds: float) -> bool:
        taken.append(microseconds)
        return False

    before = meter.memory(loop.pids)
    clients: list[Client] = []
    while len(clients) < allowed:
        batch = [Client(loop, job["port"], request, count) for _ in range(min(32, allowed - len(clients)))]
        clients.extend(batch)
        for client in batch:
            client.send()
        loop.turn(PATIENCE, lambda: len(taken) == len(clients))
    after = meter.memory(loop.pids)
    loop.turn(0.5)
    taken.clear()
    for number in range(1, 101):
        clients[len(clients) * number // 101].send()
        loop.turn(PATIENCE, lambda: len(taken) == number)  # noqa: B023 - called at once
    taken.sort()
    grown = None if before is None or after is None else (after - before) / len(clients) / 1000
    return {
        "p50": quantile(taken, 0.5),
        "worst": taken[-1],
        "kilobytes": grown,
        "connections": len(clients),
    }


def probe(job: Result) -> Result:
    """One request: whether the peer works."""
    _warm_up(job, 1)
    return {}


def stats(port: int) -> dict[str, int]:
    """How many connections and requests the upstream has seen, this one included."""
    with connect(port) as sock:
        sock.sendall(b"GET /stats HTTP/1.1\r\nHost: upstream\r\n\r\n")
        head = b""
        while b"}" not in head:
            head += _some(sock)
    found: dict[str, int] = json.loads(head.partition(b"\r\n\r\n")[2])
    return found


def _warm_up(job: Result, number: int = 20) -> None:
    loop, left = Loop(None), [number]

    def count(_: float) -> bool:
        left[0] -= 1
        return left[0] > 0

    Client(loop, job["port"], _chat(job, 2048, b"json=1024"), count).send()
    loop.turn(PATIENCE, lambda: not left[0])


def _chat(job: Result, size: int, answer: bytes) -> bytes:
    return chat_request(_host(job), size, answer, fields=job.get("fields", "").encode())


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 16)
    if not data:
        raise Broken("connection closed early")
    return data


def _host(job: Result) -> bytes:
    return b"127.0.0.1:%d" % job["port"]


KINDS: dict[str, Callable[[Result], Result]] = {
    "json": json_load,
    "sse": sse_load,
    "streams": streams_load,
    "download": download,
    "upload": upload,
    "idle": idle_load,
    "probe": probe,
}


def main() -> None:
    """Do the job that the command line brings, as JSON."""
    job = json.loads(sys.argv[1])
    gc.disable()
    try:
        result = KINDS[job["kind"]](job)
    except (OSError, Broken, ValueError) as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
