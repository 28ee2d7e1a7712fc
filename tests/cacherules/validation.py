"""Variants, validators and conditions: RFC 9111 §4.1, §4.3, §3.2, RFC 9110 §13, §14."""

from __future__ import annotations

from typing import Any

from cacherules.harness import Case, When, ask, case

TAG = {"ETag": '"a"'}
WEAK = {"ETag": 'W/"a"'}
MODIFIED = {"Last-Modified": When(-1000)}


def vary(
    expect: str,
    name: str,
    names: Any,
    first: dict[str, str] | list[tuple[str, str]],
    second: Any,
    section: str = "4.1",
) -> Case:
    """Stored for the *first* request; then the *second*."""
    return case(
        section,
        name,
        ask(
            "upstream",
            cc="max-age=60",
            res=[("Vary", one) for one in ([names] if isinstance(names, str) else names)],
            req=first,
        ),
        ask(expect, req=second),
    )


VARY = [
    vary("hit", "the same value", "X-A", {"X-A": "1"}, {"X-A": "1"}),
    vary("miss", "another value", "X-A", {"X-A": "1"}, {"X-A": "2"}),
    vary("miss", "a value where there was none", "X-A", {}, {"X-A": "1"}),
    vary("miss", "no value where there was one", "X-A", {"X-A": "1"}, {}),
    vary("miss", "an empty value is not none", "X-A", {"X-A": ""}, {}),
    vary("hit", "no value either time", "X-A", {}, {}),
    vary("hit", "another value of another field", "X-A", {"X-A": "1", "X-B": "1"}, {"X-A": "1", "X-B": "2"}),
    vary("hit", "names in any case", "x-a", {"X-A": "1"}, {"x-A": "1"}),
    vary("miss", "the second of two names", "X-A, X-B", {"X-A": "1", "X-B": "1"}, {"X-A": "1", "X-B": "2"}),
    vary("miss", "names in two fields", ["X-A", "X-B"], {"X-A": "1", "X-B": "1"}, {"X-A": "1", "X-B": "2"}),
    vary("hit", "empty members", ", X-A ,,", {"X-A": "1"}, {"X-A": "1"}),
    vary("upstream", "* never matches", "*", {"X-A": "1"}, {"X-A": "1"}),
    vary("upstream", "* among names never matches", "X-A, *", {"X-A": "1"}, {"X-A": "1"}),
    vary("upstream", "* in another field never matches", ["X-A", "*"], {"X-A": "1"}, {"X-A": "1"}),
    vary("upstream", "what is no name never matches", "X A", {}, {}),
    vary("upstream", "a quoted name never matches", '"X-A"', {}, {}),
    vary("upstream", "too many names never match", ",".join(f"x{n}" for n in range(40)), {}, {}),
    vary("hit", "one field or two", "X-A", {"X-A": "1, 2"}, [("X-A", "1"), ("x-a", "2")]),
    vary("miss", "another order of values", "X-A", {"X-A": "1, 2"}, {"X-A": "2, 1"}),
    vary("hit", "spaces about a value", "X-A", {"X-A": "1"}, {"X-A": " 1\t"}),
    vary("hit", "spaces about the commas of a list", "Accept", {"Accept": "a/b,c/d"}, {"Accept": "a/b , c/d"}),
    vary("hit", "case of Accept-Encoding", "Accept-Encoding", {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "GZIP"}),
    vary("miss", "case of any other value", "X-A", {"X-A": "a"}, {"X-A": "A"}),
    vary("miss", "spaces within a value of a field that is no list", "X-A", {"X-A": "a,b"}, {"X-A": "a, b"}),
    vary("miss", "a credential", "Authorization", {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}),
    vary("hit", "the same credential", "Authorization", {"Authorization": "Bearer a"}, {"Authorization": "Bearer a"}),
    vary("miss", "a long value", "User-Agent", {"User-Agent": "x" * 500 + "1"}, {"User-Agent": "x" * 500 + "2"}),
    vary("hit", "a long value, the same", "User-Agent", {"User-Agent": "x" * 500}, {"User-Agent": "x" * 500}),
    case("4.1", "several variants", *(ask(cc="max-age=60", res={"Vary": "X-A"}, req={"X-A": one}, text=one) for one in "123"), *(ask("hit", req={"X-A": one}, gets=one) for one in "213")),
    case("4.1", "a variant takes the place of its own kind alone",
         *(ask(cc="max-age=10", res={"Vary": "X-A"}, req={"X-A": one}) for one in "12"),
         ask(at=11.0, cc="max-age=60", res={"Vary": "X-A"}, req={"X-A": "1"}, text="new"),
         ask("hit", at=12.0, req={"X-A": "1"}, gets="new"), ask("upstream", at=12.0, req={"X-A": "2"})),
    case("4", "of several that match the most recent is used",
         ask(cc="max-age=60", text="old"), ask("upstream", at=1.0, req={"Cache-Control": "no-cache", "X-A": "1"}, cc="max-age=60", res={"Vary": "X-A"}, text="new"),
         ask("hit", at=2.0, req={"X-A": "1"}, gets="new")),
    case("4", "the most recent is the one that was made last",
         ask(at=10.0, cc="max-age=600", req={"X-A": "1"}, res={"Vary": "X-A", "Date": When(10)}, text="new"),
         ask(at=11.0, cc="max-age=600", req={"X-A": "1", "X-B": "1", "Cache-Control": "no-cache"}, res={"Vary": "X-A, X-B", "Date": When(5)}, text="old"),
         ask("hit", at=12.0, req={"X-A": "1", "X-B": "1"}, gets="new")),
    case("4.1", "what was stored before the upstream varied is not taken for a variant",
         ask(cc="max-age=60", text="old"), ask("upstream", at=1.0, req={"Cache-Control": "no-cache", "X-A": "1"}, cc="max-age=60", res={"Vary": "X-A"}),
         ask("miss", at=2.0, req={"X-A": "2"})),
    case("4.1", "what is coded varies by what the client accepts, said or not",
         ask(cc="max-age=60", res={"Content-Encoding": "gzip"}, req={"Accept-Encoding": "gzip"}), ask("miss"), ask("hit", req={"Accept-Encoding": "gzip"})),
    case("4.1", "what is not coded does not", ask(cc="max-age=60", req={"Accept-Encoding": "gzip"}), ask("hit")),
]  # fmt: skip


def client(expect: str, section: str, name: str, stored: Any, asked: Any, **said: Any) -> Case:
    """Stored with the fields *stored*; then a client with conditions of its own."""
    return case(
        section, name, ask("upstream", cc="max-age=60", res=stored), ask(expect, at=1.0, req=asked, **said)
    )


def tag(value: str) -> dict[str, str]:
    return {"If-None-Match": value}


CLIENTS = [
    client("unmodified", "4.3.2", "If-None-Match that matches", TAG, tag('"a"'), gets="", code=304),
    client("hit", "4.3.2", "If-None-Match that does not", TAG, tag('"b"'), gets="one"),
    client("unmodified", "4.3.2", "If-None-Match of several", TAG, tag('"x", "a","y"')),
    client("unmodified", "4.3.2", "If-None-Match in two fields", TAG, [("If-None-Match", '"x"'), ("if-none-match", '"a"')]),
    client("unmodified", "4.3.2", "If-None-Match weak against strong", TAG, tag('W/"a"')),
    client("unmodified", "4.3.2", "If-None-Match strong against weak", WEAK, tag('"a"')),
    client("unmodified", "4.3.2", "If-None-Match: *", TAG, tag("*")),
    client("hit", "4.3.2", "If-None-Match and nothing to compare with", {}, tag('"a"')),
    client("hit", "4.3.2", "If-None-Match without quotes", TAG, tag("a")),
    client("hit", "4.3.2", "If-None-Match that is part of another", TAG, tag('"a b"')),
    client("hit", "4.3.2", "If-None-Match in another case", TAG, tag('"A"')),
    client("hit", "4.3.2", "If-None-Match with a comma within", TAG, tag('"x,"a"x"')),
    client("hit", "4.3.2", "If-None-Match hides If-Modified-Since", {**TAG, **MODIFIED}, {**tag('"b"'), "If-Modified-Since": When(0)}),
    client("unmodified", "4.3.2", "If-Modified-Since later", MODIFIED, {"If-Modified-Since": When(0)}),
    client("unmodified", "4.3.2", "If-Modified-Since at the time", MODIFIED, {"If-Modified-Since": When(-1000)}),
    client("hit", "4.3.2", "If-Modified-Since earlier", MODIFIED, {"If-Modified-Since": When(-1001)}),
    client("unmodified", "4.3.2", "If-Modified-Since in another form", MODIFIED, {"If-Modified-Since": When(-1000, "rfc850")}),
    client("hit", "4.3.2", "If-Modified-Since that is no date", MODIFIED, {"If-Modified-Since": "yesterday"}),
    client("hit", "4.3.2", "two of If-Modified-Since", MODIFIED, [("If-Modified-Since", When(0)), ("if-modified-since", When(0))]),
    client("unmodified", "4.3.2", "If-Modified-Since against Date", {"Date": When(-5)}, {"If-Modified-Since": When(-5)}),
    client("hit", "4.3.2", "If-Modified-Since before Date", {"Date": When(-5)}, {"If-Modified-Since": When(-6)}),
    client("unmodified", "4.3.2", "If-Modified-Since against when it came", {}, {"If-Modified-Since": When(0)}),
    client("unmodified", "4.3.2", "HEAD with a condition", TAG, tag('"a"'), method="HEAD"),
    case("4.3.2", "an error is never unmodified", ask(status=404, cc="max-age=60", res=TAG), ask("hit", req=tag('"a"'), code=404)),
    case("4.3.2", "a redirect is never unmodified", ask(status=301, cc="max-age=60", res=TAG), ask("hit", req={"If-Modified-Since": When(99)}, code=301)),
    client("unmodified", "9110-15.4.5", "a 304 tells what it must", {**TAG, "Content-Location": "/x", "Vary": "X-A", "Date": When(0), "Expires": When(9), "Content-Type": "a/b", "Content-Encoding": "gzip"}, tag('"a"'),
           sees={"ETag": '"a"', "Content-Location": "/x", "Vary": "X-A", "Date": When(0), "Expires": When(9), "Cache-Control": "max-age=60", "Age": "1", "Content-Type": None, "Content-Encoding": None}),
    case("4.3", "the client's condition goes on where nothing is stored", ask("miss", req=tag('"a"'), status=304, res=TAG, code=304, sends=tag('"a"')), ask("miss")),
    case("4.3", "a 304 is never stored", ask("miss", req=tag('"a"'), status=304, cc="max-age=60", res=TAG), ask("miss", at=1.0)),
    *(case(section, f"{name} is passed on", ask(cc="max-age=60", res={**TAG, **MODIFIED}), ask("passed", req={name: value}, sends={name: value}), ask("hit"))
      for section, name, value in (
          ("4.3.2", "If-Match", '"a"'), ("4.3.2", "If-Unmodified-Since", When(0)), ("3.3", "Range", "bytes=0-1"), ("3.3", "If-Range", '"a"'),
      )),
    case("3.3", "an answer to a range is not stored", ask("passed", req={"Range": "bytes=0-1"}, status=200, cc="max-age=60"), ask("miss")),
    case("3.3", "a 206 is not stored", ask("passed", req={"Range": "bytes=0-1"}, status=206, cc="max-age=60", res={"Content-Range": "bytes 0-1/3"}), ask("miss")),
    case("5.2.1.7", "only-if-cached for a range", ask(cc="max-age=60"), ask("unavailable", req={"Range": "bytes=0-1", "Cache-Control": "only-if-cached"})),
]  # fmt: skip


def asks(
    section: str, name: str, stored: dict[str, Any], *, cc: str = "max-age=10", req: Any = (), **said: Any
) -> Case:
    """Stored; stale; asked about; then said."""
    return case(section, name, ask(cc=cc, res=stored), ask(at=11.0, req=req, **said))


OURS = [
    asks("4.3.1", "by entity tag", TAG, expect="asked", sends={"If-None-Match": '"a"', "If-Modified-Since": None}),
    asks("4.3.1", "by date", MODIFIED, expect="asked", sends={"If-Modified-Since": When(-1000), "If-None-Match": None}),
    asks("4.3.1", "by both", {**TAG, **MODIFIED}, expect="asked", sends={"If-None-Match": '"a"', "If-Modified-Since": When(-1000)}),
    asks("4.3.1", "by a weak tag", WEAK, expect="asked", sends={"If-None-Match": 'W/"a"'}),
    asks("4.3.1", "not without a validator", {}, expect="miss", sends={"If-None-Match": None, "If-Modified-Since": None}),
    asks("4.3.1", "not by a tag without quotes", {"ETag": "a"}, expect="miss", sends={"If-None-Match": None}),
    asks("4.3.1", "not by a date that is none", {"Last-Modified": "yesterday"}, expect="miss", sends={"If-Modified-Since": None}),
    asks("4.3.1", "in place of the client's conditions", TAG, req={"If-None-Match": '"b"', "If-Modified-Since": When(0)}, expect="asked", sends={"If-None-Match": '"a"', "If-Modified-Since": None}),
    case("4.3.1", "not of an error", ask(status=404, cc="max-age=10", res=TAG), ask("miss", at=11.0, sends={"If-None-Match": None})),
    case("4.3.1", "HEAD asks about an entry of GET", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, method="HEAD", status=304, gets=""), ask("upstream", at=22.0)),
    case("4.3.1", "what may be stored only to be asked about", ask(res=TAG), ask("confirmed", at=1.0, status=304, gets="one", sends={"If-None-Match": '"a"'})),
    asks("4.3.3", "a 304 confirms", TAG, expect="confirmed", status=304, res=TAG, gets="one", code=200, sees={"Age": "0"}),
    asks("4.3.3", "a 304 without any validator confirms", TAG, expect="confirmed", status=304, gets="one", code=200),
    asks("4.3.3", "a full answer takes its place", TAG, expect="asked", text="two", gets="two"),
    asks("4.3.3", "an error of the upstream is passed on", TAG, expect="asked", status=500, code=500),
    case("4.3.3", "an error takes no entry's place", ask(cc="max-age=10", res=TAG), ask("asked", at=11.0, status=500), ask("confirmed", at=12.0, status=304, gets="one")),
    asks("4.3.3", "never a bare 304 to a client that sent no validator", TAG, expect="confirmed", status=304, code=200),
    asks("4.3.3", "a 304 to a client whose validator holds", TAG, req={"If-None-Match": '"a"'}, expect="confirmed", status=304, code=304, gets=""),
    asks("4.3.3", "all of it to a client whose validator does not hold", TAG, req={"If-None-Match": '"b"'}, expect="confirmed", status=304, code=200, gets="one"),
    case("4.3.4", "it is fresh again", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304), ask("hit", at=20.0, sees={"Age": "9"}), ask("upstream", at=21.0)),
    case("4.3.4", "for as long as the 304 says", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304, cc="max-age=100"), ask("hit", at=100.0, sees={"Cache-Control": "max-age=100"})),
    case("4.3.4", "Age of the 304 counts", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304, res={"Age": "5"}), ask("hit", at=15.0, sees={"Age": "9"}), ask("upstream", at=16.0)),
    case("4.3.4", "the configured time begins anew", ask(ttl=10.0, res=TAG), ask("confirmed", at=11.0, status=304), ask("hit", at=20.0), ask("upstream", at=21.0)),
    case("4.3.4", "Expires that is not told anew has run out", ask(res={**TAG, "Expires": When(10), "Date": When(0)}), ask("confirmed", at=11.0, status=304, res={"Date": When(11)}), ask("asked", at=12.0)),
    case("4.3.4", "no-cache of the 304 asks from then on", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304, cc="max-age=60, no-cache"), ask("asked", at=12.0)),
    case("4.3.4", "no-store of the 304: forgotten", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304, cc="no-store", gets="one"), ask("miss", at=11.0)),
    case("4.3.4", "private of the 304: forgotten", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304, cc="private"), ask("miss", at=11.0)),
    case("4.3.4", "another Vary in the 304 asks from then on", ask(cc="max-age=10", res=TAG), ask("confirmed", at=11.0, status=304, res={"Vary": "X-A"}), ask("asked", at=12.0)),
    asks("4.3.4", "another strong tag does not confirm", TAG, expect="not-confirmed", status=304, res={"ETag": '"b"'}),
    asks("4.3.4", "a strong tag does not confirm a weak one", WEAK, expect="not-confirmed", status=304, res=TAG),
    asks("4.3.4", "a weak tag confirms", WEAK, expect="confirmed", status=304, res=WEAK),
    asks("4.3.4", "another weak tag does not", WEAK, expect="not-confirmed", status=304, res={"ETag": 'W/"b"'}),
    asks("4.3.4", "another date does not confirm", MODIFIED, expect="not-confirmed", status=304, res={"Last-Modified": When(-5)}),
    asks("4.3.4", "the same date confirms", MODIFIED, expect="confirmed", status=304, res=MODIFIED),
    *(asks("3.2", f"{name} is told anew", {**TAG, name: "1"}, expect="confirmed", status=304, res={name: "2"}, sees={name: "2"})
      for name in ("X-Test", "Content-Type", "Content-Location", "Content-Security-Policy", "Content-Foo")),
    *(asks("3.2", f"{name} stays as it was", {**TAG, name: "1"}, expect="confirmed", status=304, res={name: "2"}, sees={name: "1"})
      for name in ("Content-MD5", "Content-Digest", "Repr-Digest")),
    asks("3.2", "Content-Encoding stays as it was", {**TAG, "Content-Encoding": "gzip"}, expect="confirmed", status=304, res={"Content-Encoding": "br"}, sees={"Content-Encoding": "gzip"}),
    asks("3.2", "Content-Length is not taken over", TAG, expect="confirmed", status=304, res={"Content-Length": "0"}, sees={"Content-Length": None}, gets="one"),
    asks("3.2", "a new field is added", TAG, expect="confirmed", status=304, res={"X-New": "1"}, sees={"X-New": "1"}),
    asks("3.2", "a field that is not told stays", {**TAG, "X-Old": "1"}, expect="confirmed", status=304, sees={"X-Old": "1"}),
    asks("3.2", "fields named by Connection are not taken over", {**TAG, "X-A": "1"}, expect="confirmed", status=304, res={"Connection": "X-A", "X-A": "2"}, sees={"X-A": "1", "Connection": None}),
    asks("3.2", "cookies are not taken over", TAG, expect="confirmed", status=304, res={"Set-Cookie": "a=b"}, sees={"Set-Cookie": None}),
]  # fmt: skip

OURS += [
    asks(
        "3.2",
        "a strong tag stays strong",
        TAG,
        expect="confirmed",
        status=304,
        res=WEAK,
        sees={"ETag": '"a"'},
    ),
    case(
        "4.3.4",
        "a lifetime that the 304 takes back is over",
        ask(cc="max-age=10", res=TAG),
        ask("confirmed", at=11.0, status=304, cc="public"),
        ask("asked", at=12.0),
    ),
]

CASES = [*VARY, *CLIENTS, *OURS]
