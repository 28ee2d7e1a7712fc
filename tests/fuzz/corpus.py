"""What has confused some server or proxy before, and what is near to it.

``zq@@@@@@@@qz`` stands for the mark of the connection, which is as long: no other connection may ever see
it.
"""

from __future__ import annotations

MARK = b"zq@@@@@@@@qz"

_LINE = b"POST /v1/files?zq@@@@@@@@qz HTTP/1.1\r\n"
_HOST = b"Host: localhost\r\n"
_SECRET = b"x-secret: zq@@@@@@@@qz\r\n"
_NEXT = b"GET /v1/models?next&zq@@@@@@@@qz HTTP/1.1\r\nHost: localhost\r\nx-secret: zq@@@@@@@@qz\r\n\r\n"
_INNER = b"GET /admin?inner&zq@@@@@@@@qz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_END = b"0\r\n\r\n"


def _post(*fields: bytes, body: bytes = b"", line: bytes = _LINE) -> bytes:
    """A POST with exactly these field lines after Host and the secret, and a good request behind it."""
    return line + _HOST + _SECRET + b"".join(one + b"\r\n" for one in fields) + b"\r\n" + body + _NEXT


def _get(*fields: bytes, line: bytes = b"GET /v1/models?zq@@@@@@@@qz HTTP/1.1", host: bytes = _HOST) -> bytes:
    return line + b"\r\n" + host + _SECRET + b"".join(one + b"\r\n" for one in fields) + b"\r\n" + _NEXT


def _te(*fields: bytes) -> bytes:
    """Chunks, if these fields say so; else what is in them is the next request."""
    return _post(*fields, body=b"%x\r\n%b\r\n%b" % (len(_INNER), _INNER, _END))


def _both(coding: bytes) -> bytes:
    """A length that ends in the middle of what the chunks say, in the words of *coding*."""
    return _post(b"Content-Length: 4", coding, body=b"%x\r\n" % len(_INNER) + _INNER + b"\r\n" + _END)


def _chunks(body: bytes) -> bytes:
    return _post(_CHUNKED[:-2], body=body)


_VECTORS: tuple[tuple[str, bytes], ...] = (
    # -- good ones, so that what grows from them is nearly good
    ("a length", _post(b"Content-Length: 5", body=b"hello")),
    ("chunks", _chunks(b"5\r\nhello\r\n" + _END)),
    ("chunks with extensions and a trailer", _chunks(b'5;a=b;c="d"\r\nhello\r\n0;x\r\nx-t: 1\r\n\r\n')),
    ("no body", _get()),
    ("HEAD", _get(line=b"HEAD /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("OPTIONS", _get(line=b"OPTIONS /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("several, one behind the other", _get() * 3),
    ("the same head, again and again", _NEXT * 4 + _get()),
    (
        "the same head but for the length",
        b"".join(
            _post(b"Content-Length: %d" % size, body=b"x" * size)[: -len(_NEXT)] for size in (5, 50, 7, 5)
        )
        + _NEXT,
    ),
    ("HTTP/1.0 that is kept", _get(b"Connection: keep-alive", line=b"GET /v1/models?zq@@@@@@@@qz HTTP/1.0")),
    ("HTTP/1.0 with a length", _post(b"Content-Length: 2", body=b"{}", line=_LINE.replace(b"1.1", b"1.0"))),
    ("a body that looks like a request", _post(b"Content-Length: %d" % len(_INNER), body=_INNER)),
    ("chunks that look like a request", _te(_CHUNKED[:-2])),
    ("an empty line before the request", b"\r\n\r\n" + _get()),
    # -- both a length and chunks
    ("CL.TE", _post(b"Content-Length: 6", _CHUNKED[:-2], body=b"0\r\n\r\nG")),
    (
        "CL.TE, a whole request behind the end",
        _post(b"Content-Length: 60", _CHUNKED[:-2], body=_END + _INNER),
    ),
    (
        "TE.CL",
        _post(_CHUNKED[:-2], b"Content-Length: 4", body=b"%x\r\n" % len(_INNER) + _INNER + b"\r\n" + _END),
    ),
    ("CL 0 and TE", _post(b"Content-Length: 0", _CHUNKED[:-2], body=_END + _INNER)),
    ("TE before CL in another case", _post(b"transfer-encoding: CHUNKED", b"CONTENT-LENGTH: 3", body=_END)),
    # -- Transfer-Encoding that some read and some do not
    ("TE: space before the colon", _both(b"Transfer-Encoding : chunked")),
    ("TE: tab before the colon", _both(b"Transfer-Encoding\t: chunked")),
    ("TE: vertical tab before the value", _both(b"Transfer-Encoding:\x0bchunked")),
    ("TE: form feed before the value", _both(b"Transfer-Encoding:\x0cchunked")),
    ("TE: tab before the value", _both(b"Transfer-Encoding:\tchunked")),
    ("TE: no space", _both(b"Transfer-Encoding:chunked")),
    ("TE: xchunked", _both(b"Transfer-Encoding: xchunked")),
    ("TE: chunkedx", _both(b"Transfer-Encoding: chunkedx")),
    ("TE: quoted", _both(b'Transfer-Encoding: "chunked"')),
    ("TE: underscore", _both(b"Transfer_Encoding: chunked")),
    ("TE: space before the name", _both(b" Transfer-Encoding: chunked")),
    ("TE: prefixed by a letter", _both(b"xTransfer-Encoding: chunked")),
    ("TE: NUL in the name", _both(b"Transfer-Encoding\0: chunked")),
    ("TE: NUL in the value", _both(b"Transfer-Encoding: chunked\0")),
    ("TE: 0x80 behind the value", _both(b"Transfer-Encoding: chunked\x80")),
    ("TE: no-break space", _both(b"Transfer-Encoding:\xa0chunked")),
    ("TE: folded", _both(b"Transfer-Encoding:\r\n chunked")),
    ("TE: folded with a tab", _both(b"Transfer-Encoding:\r\n\tchunked")),
    ("TE: behind a bare LF", _both(b"X: y\nTransfer-Encoding: chunked")),
    ("TE: behind a bare CR", _both(b"X: y\rTransfer-Encoding: chunked")),
    ("TE: CR at the end", _both(b"Transfer-Encoding: chunked\r")),
    ("TE: in another field's fold", _both(b"X: y\r\n Transfer-Encoding: chunked")),
    ("TE: a comma behind", _te(b"Transfer-Encoding: chunked,")),
    ("TE: a comma before", _te(b"Transfer-Encoding: ,chunked")),
    ("TE: a parameter", _te(b"Transfer-Encoding: chunked;q=1")),
    ("TE: identity", _te(b"Transfer-Encoding: identity")),
    ("TE: identity, then chunked", _te(b"Transfer-Encoding: identity, chunked")),
    (
        "TE: chunked, then identity, two fields",
        _te(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    ),
    ("TE: twice", _te(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    ("TE: twice in one", _te(b"Transfer-Encoding: chunked, chunked")),
    ("TE: gzip first", _te(b"Transfer-Encoding: gzip, chunked")),
    ("TE: gzip last", _te(b"Transfer-Encoding: chunked, gzip")),
    ("TE: an unknown one", _te(b"Transfer-Encoding: cow", b"Transfer-Encoding: chunked")),
    ("TE: empty", _te(b"Transfer-Encoding:")),
    ("TE: spaces behind", _te(b"Transfer-Encoding: chunked \t ")),
    ("TE: another case", _te(b"tRANSFER-eNCODING: cHUNKED")),
    ("TE: in HTTP/1.0", _te(_CHUNKED[:-2]).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    ("TE: on a GET", b"GET" + _te(_CHUNKED[:-2])[4:]),
    ("TE: named by Connection", _te(b"Connection: transfer-encoding", _CHUNKED[:-2])),
    # -- Content-Length
    ("CL: twice, differing", _post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello")),
    ("CL: twice, equal", _post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    ("CL: a list", _post(b"Content-Length: 5, 5", body=b"hello")),
    ("CL: a list, differing", _post(b"Content-Length: 5, 6", body=b"hello")),
    ("CL: plus", _post(b"Content-Length: +5", body=b"hello")),
    ("CL: minus", _post(b"Content-Length: -5", body=b"hello")),
    ("CL: zeros before", _post(b"Content-Length: 0005", body=b"hello")),
    ("CL: hexadecimal", _post(b"Content-Length: 0x5", body=b"hello")),
    ("CL: exponent", _post(b"Content-Length: 5e0", body=b"hello")),
    ("CL: fraction", _post(b"Content-Length: 5.0", body=b"hello")),
    ("CL: underscore in the number", _post(b"Content-Length: 1_0", body=b"hellohello")),
    ("CL: underscore in the name", _post(b"Content_Length: 99", b"Content-Length: 5", body=b"hello")),
    ("CL: digits that are not ASCII", _post("Content-Length: ٥".encode(), body=b"hello")),
    ("CL: a space within", _post(b"Content-Length: 5 0", body=b"hello")),
    ("CL: spaces behind", _post(b"Content-Length: 5 \t", body=b"hello")),
    ("CL: empty", _post(b"Content-Length:", body=b"hello")),
    ("CL: space before the colon", _post(b"Content-Length : 5", body=b"hello")),
    ("CL: folded", _post(b"Content-Length:\r\n 5", body=b"hello")),
    ("CL: folded within", _post(b"Content-Length: 5\r\n 5", body=b"hello")),
    ("CL: 2**63", _post(b"Content-Length: 9223372036854775808", body=b"hello")),
    ("CL: 2**64 + 5", _post(b"Content-Length: 18446744073709551621", body=b"hello")),
    ("CL: a hundred digits", _post(b"Content-Length: " + b"0" * 99 + b"5", body=b"hello")),
    ("CL: NUL", _post(b"Content-Length: 5\0", body=b"hello")),
    ("CL: bare CR behind", _post(b"Content-Length: 5\r", body=b"hello")),
    ("CL: named by Connection", _post(b"Connection: content-length", b"Content-Length: 5", body=b"hello")),
    ("CL: on a GET", _get(b"Content-Length: 5")[: -len(_NEXT)] + b"hello" + _NEXT),
    ("CL: too short", _post(b"Content-Length: 2", body=b"hello")),
    ("CL: too long", _post(b"Content-Length: 500", body=b"hello")),
    ("CL 0, GET in the body", _post(b"Content-Length: 0", body=_INNER)),
    # -- chunks
    ("chunk: size of 17 digits", _chunks(b"00000000000000005\r\nhello\r\n" + _END)),
    ("chunk: 2**64 + 5", _chunks(b"10000000000000005\r\nhello\r\n" + _END)),
    ("chunk: 2**63", _chunks(b"8000000000000000\r\nhello\r\n" + _END)),
    ("chunk: zeros before", _chunks(b"0005\r\nhello\r\n000\r\n\r\n")),
    ("chunk: 0x", _chunks(b"0x5\r\nhello\r\n" + _END)),
    ("chunk: plus", _chunks(b"+5\r\nhello\r\n" + _END)),
    ("chunk: minus", _chunks(b"-5\r\nhello\r\n" + _END)),
    ("chunk: space before the size", _chunks(b" 5\r\nhello\r\n" + _END)),
    ("chunk: space behind the size", _chunks(b"5 \r\nhello\r\n" + _END)),
    ("chunk: bare LF behind the size", _chunks(b"5\nhello\r\n" + _END)),
    ("chunk: bare CR behind the size", _chunks(b"5\rhello\r\n" + _END)),
    ("chunk: bare LF behind the data", _chunks(b"5\r\nhello\n" + _END)),
    ("chunk: nothing behind the data", _chunks(b"5\r\nhello" + _END)),
    ("chunk: two bytes too many", _chunks(b"5\r\nhelloxx" + _END)),
    ("chunk: one byte too few", _chunks(b"6\r\nhello\r\n" + _END)),
    ("chunk: no size", _chunks(b"\r\nhello\r\n" + _END)),
    ("chunk: LF in an extension", _chunks(b"5;x\ny\r\nhello\r\n" + _END)),
    ("chunk: CR in an extension", _chunks(b"5;x\ry\r\nhello\r\n" + _END)),
    ("chunk: CR LF in a quoted extension", _chunks(b'5;x="\r\n"\r\nhello\r\n' + _END)),
    ("chunk: NUL in an extension", _chunks(b"5;\0\r\nhello\r\n" + _END)),
    ("chunk: a long extension", _chunks(b"5;" + b"x" * 3000 + b"\r\nhello\r\n" + _END)),
    ("chunk: an extension at the end", _chunks(b"5\r\nhello\r\n0;" + _INNER[:20].strip() + b"\r\n\r\n")),
    ("chunk: one CR LF too few at the end", _chunks(b"5\r\nhello\r\n0\r\n")),
    ("chunk: bare LF at the end", _chunks(b"5\r\nhello\r\n0\n\n")),
    ("chunk: bare LF behind the trailers", _chunks(b"0\r\nx: y\n\r\n")),
    ("trailer: framing", _chunks(b"0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n")),
    (
        "trailer: Host and ours",
        _chunks(b"0\r\nHost: evil\r\nx-llmproxyd-fault: r\r\nx-secret: zq@@@@@@@@qz\r\n\r\n"),
    ),
    ("trailer: folded", _chunks(b"0\r\nx: y\r\n z\r\n\r\n")),
    ("trailer: a request", _chunks(b"0\r\n" + _INNER)),
    # -- lines
    ("bare LF everywhere", _post(b"Content-Length: 5", body=b"hello").replace(b"\r\n", b"\n")),
    ("bare LF at the end of the head", _get()[:-2] + b"\n" + _NEXT),
    ("bare LF in a value", _get(b"x: y\nz: w")),
    ("bare CR in a value", _get(b"x: y\rz: w")),
    ("bare CR as the end of every line", _get().replace(b"\r\n", b"\r")),
    ("CR CR LF", _get(b"x: y\r")),
    ("folded", _get(b"x: y\r\n folded")),
    ("folded, first line", _get(host=b" x: y\r\n" + _HOST)),
    ("NUL in a value", _get(b"x: a\0b")),
    ("DEL and control characters in a value", _get(b"x: a\x7f\x01b")),
    ("bytes above 0x7f in a value", _get("x: grüße".encode())),
    ("space in a name", _get(b"x y: z")),
    ("space before the colon", _get(b"x : z")),
    ("no colon", _get(b"xyz")),
    ("no name", _get(b": z")),
    ("a quote in a name", _get(b'"x": z')),
    ("control character in a name", _get(b"x\x01: z")),
    ("0x80 in a name", _get(b"x\x80: z")),
    ("empty value", _get(b"x:")),
    ("a line of spaces", _get(b"   ")),
    ("a request line in a field", _get(b"GET /v1/inner?zq@@@@@@@@qz HTTP/1.1")),
    # -- Host
    ("no Host", _get(host=b"")),
    ("two Hosts", _get(b"Host: evil")),
    ("two Hosts, equal", _get(b"Host: localhost")),
    ("Host: empty", _get(host=b"Host:\r\n")),
    ("Host: space before the colon", _get(host=b"Host : localhost\r\n")),
    ("Host: folded", _get(host=b"Host: localhost\r\n\tevil\r\n")),
    ("Host: a path", _get(host=b"Host: localhost/evil\r\n")),
    ("Host: user information", _get(host=b"Host: evil@localhost\r\n")),
    ("Host: a list", _get(host=b"Host: localhost, evil\r\n")),
    ("Host: no port behind the colon", _get(host=b"Host: localhost:\r\n")),
    ("Host: named by Connection", _get(b"Connection: host")),
    ("absolute form", _get(line=b"GET http://localhost/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("absolute form, another host", _get(line=b"GET http://evil/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    (
        "absolute form, user information",
        _get(line=b"GET http://evil@localhost/v1/models?zq@@@@@@@@qz HTTP/1.1"),
    ),
    ("absolute form, no path", _get(line=b"GET http://localhost?zq@@@@@@@@qz HTTP/1.1")),
    ("absolute form, another scheme", _get(line=b"GET file:///etc/passwd?zq@@@@@@@@qz HTTP/1.1")),
    ("authority form", _get(line=b"CONNECT localhost:443 HTTP/1.1")),
    ("asterisk form", _get(line=b"OPTIONS * HTTP/1.1")),
    ("no slash", _get(line=b"GET v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("no slash, user information", _get(line=b"GET @evil/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("two slashes", _get(line=b"GET //evil/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("back slash", _get(line=b"GET /\\evil/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("fragment", _get(line=b"GET /v1/models?zq@@@@@@@@qz#fragment HTTP/1.1")),
    ("dots", _get(line=b"GET /v1/../../admin?zq@@@@@@@@qz HTTP/1.1")),
    ("an encoded line end in the target", _get(line=b"GET /v1/%0d%0aHost:%20evil?zq@@@@@@@@qz HTTP/1.1")),
    # -- request lines
    ("HTTP/0.9", b"GET /v1/models?zq@@@@@@@@qz\r\n" + _NEXT),
    ("HTTP/0.9, a version's beginning", b"GET /v1/models?zq@@@@@@@@qz HTTP\r\n\r\n" + _NEXT),
    ("HTTP/2.0", _get(line=b"GET /v1/models?zq@@@@@@@@qz HTTP/2.0")),
    ("HTTP/1.2", _get(line=b"GET /v1/models?zq@@@@@@@@qz HTTP/1.2")),
    ("HTTP/1.10", _get(line=b"GET /v1/models?zq@@@@@@@@qz HTTP/1.10")),
    ("http/1.1", _get(line=b"GET /v1/models?zq@@@@@@@@qz http/1.1")),
    ("HTTP/1.1 behind two spaces", _get(line=b"GET /v1/models?zq@@@@@@@@qz  HTTP/1.1")),
    ("space behind the version", _get(line=b"GET /v1/models?zq@@@@@@@@qz HTTP/1.1 ")),
    ("tabs", _get(line=b"GET\t/v1/models?zq@@@@@@@@qz\tHTTP/1.1")),
    ("space before the method", _get(line=b" GET /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("space in the target", _get(line=b"GET /v1/models?zq@@@@@@@@qz x HTTP/1.1")),
    (
        "two request lines",
        _get(line=b"GET /v1/models?zq@@@@@@@@qz HTTP/1.1\r\nGET /v1/inner?zq@@@@@@@@qz HTTP/1.1"),
    ),
    ("two versions", _get(line=b"GET /v1/models?zq@@@@@@@@qz HTTP/1.1 HTTP/1.1")),
    ("NUL in the target", _get(line=b"GET /v1/models?zq@@@@@@@@qz\0 HTTP/1.1")),
    ("0x80 in the target", _get(line=b"GET /v1/models?zq@@@@@@@@qz\x80 HTTP/1.1")),
    ("lower case method", _get(line=b"get /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("method with a NUL", _get(line=b"G\0T /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("unknown method", _get(line=b"FROB /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("TRACE", _get(line=b"TRACE /v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _NEXT),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + _NEXT),
    ("PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + _get()),
    # -- connections
    ("Connection: close before another", _get(b"Connection: close")),
    ("Connection: close in another case, in a list", _get(b"Connection: x, Close")),
    ("Connection: twice", _get(b"Connection: keep-alive", b"Connection: close")),
    (
        "Connection: names fields",
        _get(b"Connection: x-hop, x-secret", b"x-hop: zq@@@@@@@@qz", b"X-Hop: twice"),
    ),
    (
        "Connection: names fields, folded case",
        _get(b"connection:X-HOP ,\t,x-hop2", b"x-hop: a", b"x-hop2: b"),
    ),
    (
        "Connection: names what must stay",
        _get(b"Connection: authorization", b"Authorization: Bearer zq@@@@@@@@qz"),
    ),
    ("hop-by-hop fields", _get(b"Keep-Alive: 5", b"TE: trailers", b"Trailer: x", b"Proxy-Connection: a")),
    (
        "hop-by-hop secrets",
        _get(b"Proxy-Authorization: Basic zq@@@@@@@@qz", b"Proxy-Authenticate: zq@@@@@@@@qz"),
    ),
    ("ours", _get(b"x-llmproxyd-fault: n", b"X-LLMProxyD-Anything: zq@@@@@@@@qz")),
    ("Upgrade: h2c", _get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM")),
    (
        "Upgrade: h2c with a body",
        _post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"),
    ),
    (
        "Upgrade: h2c with chunks",
        _post(b"Connection: Upgrade", b"Upgrade: h2c", _CHUNKED[:-2], body=b"1\r\nx\r\n" + _END),
    ),
    ("Upgrade: websocket", _get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")),
    ("Expect", _post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello")),
    ("Expect in another case", _post(b"expect: 100-Continue", _CHUNKED[:-2], body=b"1\r\nx\r\n" + _END)),
    ("Expect with a body of none", _post(b"Expect: 100-continue", b"Content-Length: 0")),
    ("Expect: another", _post(b"Expect: 200-ok", b"Content-Length: 5", body=b"hello")),
    ("Expect: obfuscated", _post(b"Expect: y 100-continue", b"Content-Length: 5", body=b"hello")),
    ("Expect on a GET", _get(b"Expect: 100-continue")),
    # -- long and many
    ("a long target", _get(line=b"GET /" + b"a" * 17_000 + b"?zq@@@@@@@@qz HTTP/1.1")),
    ("a long value", _get(b"x: " + b"y" * 9_000)),
    ("long fields", _get(*[b"x-%d: " % number + b"y" * 900 for number in range(80)])),
    ("a long name", _get(b"x" * 5_000 + b": y")),
    ("many fields", _get(*[b"x-%d: y" % number for number in range(120)])),
    ("a hundred fields", _get(*[b"x-%d: y" % number for number in range(98)])),
    ("many small chunks", _chunks(b"1\r\nx\r\n" * 300 + _END)),
    ("a large body", _post(b"Content-Length: 90000", body=b"z" * 90_000)),
    ("a large chunk", _chunks(b"15f90\r\n" + b"z" * 90_000 + b"\r\n" + _END)),
    ("a long trailer", _chunks(b"0\r\nx: " + b"y" * 9_000 + b"\r\n\r\n")),
    ("many empty lines", b"\r\n" * 50 + _get()),
    # -- the proxy's own ways
    ("upstream by name", _get(line=b"GET /to/openai/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("upstream by name, unknown", _get(line=b"GET /to/nobody/v1/models?zq@@@@@@@@qz HTTP/1.1")),
    ("upstream by name, nothing behind", _get(line=b"GET /to/openai HTTP/1.1")),
    ("upstream by name, user information", _get(line=b"GET /to/openai/@evil/x?zq@@@@@@@@qz HTTP/1.1")),
    ("a resource of our own", _get(line=b"GET /health HTTP/1.1")),
    (
        "a resource of our own, with a body",
        _get(b"Content-Length: 5", line=b"GET /health HTTP/1.1")[: -len(_NEXT)] + b"hello" + _NEXT,
    ),
    (
        "a resource of our own, with chunks",
        _get(_CHUNKED[:-2], line=b"GET /health HTTP/1.1")[: -len(_NEXT)] + b"1\r\nx\r\n" + _END + _NEXT,
    ),
    ("a resource of our own, HEAD", _get(line=b"HEAD /health HTTP/1.1")),
    (
        "an injected fault",
        _post(
            b"x-llmproxyd-fault: r",
            b"Content-Length: 5",
            body=b"hello",
            line=b"POST /v1/chat/completions?zq@@@@@@@@qz HTTP/1.1\r\n",
        ),
    ),
    (
        "an injected fault, chunks",
        _post(
            b"x-llmproxyd-fault: r",
            _CHUNKED[:-2],
            body=b"1\r\nx\r\n" + _END,
            line=b"POST /v1/chat/completions?zq@@@@@@@@qz HTTP/1.1\r\n",
        ),
    ),
    ("too large", _post(b"Content-Length: 200000", body=b"hello")),
    ("too large, chunks", _chunks(b"1d4c0\r\n" + b"z" * 120_000 + b"\r\n" + _END)),
)

VECTORS: dict[str, bytes] = dict(_VECTORS)
"""By what they are."""
