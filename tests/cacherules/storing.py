"""What may be stored: RFC 9111 §3, §5.2.2, and the extension to POST."""

from __future__ import annotations

from cacherules.harness import Case, When, ask, case

TAG = '"a"'
CHAT = "/v1/chat/completions"
OPT = {"Cache-Control": "public, max-age=60"}


def twice(expect: str, section: str, name: str, **said: object) -> Case:
    """The same request again after a second; the first is a miss."""
    return case(section, name, ask("upstream", **said), ask(expect, at=1.0, **said))


def kept(section: str, name: str, **said: object) -> Case:
    return twice("hit", section, name, **said)


def not_kept(section: str, name: str, **said: object) -> Case:
    return twice("upstream", section, name, **said)


METHODS = [
    kept("3", "GET with explicit freshness is stored", cc="max-age=60"),
    kept("3", "HEAD is answered from an answer to HEAD", method="HEAD", cc="max-age=60"),
    not_kept("3", "POST is not stored", method="POST", cc="max-age=60"),
    not_kept("3", "PUT is not stored", method="PUT", cc="max-age=60"),
    not_kept("3", "DELETE is not stored", method="DELETE", cc="max-age=60"),
    not_kept("3", "OPTIONS is not stored", method="OPTIONS", cc="max-age=60"),
    not_kept("3", "an unknown method is not stored", method="BREW", cc="max-age=60"),
    not_kept("3", "the case of a method counts", method="get", cc="max-age=60"),
    not_kept("3", "GET with a body is not stored", req={"Content-Length": "2"}, body="{}", cc="max-age=60"),
    not_kept(
        "3", "GET with a chunked body is not stored", req={"Transfer-Encoding": "chunked"}, cc="max-age=60"
    ),
    kept("3", "GET that says it has no body is stored", req={"Content-Length": "0"}, cc="max-age=60"),
    not_kept(
        "3", "a field that asks for another method", req={"X-HTTP-Method-Override": "DELETE"}, cc="max-age=60"
    ),
    not_kept("3", "a field that asks for another path", req={"X-Original-URL": "/admin"}, cc="max-age=60"),
]

STATUSES = [
    *(kept("3", f"{status} with explicit freshness is stored", status=status, cc="max-age=60")
      for status in (200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 429, 500, 501, 503)),
    kept("3", "an unknown final status with explicit freshness is stored", status=599, cc="max-age=60"),
    *(not_kept("3", f"{status} is never stored", status=status, cc="max-age=60, public") for status in (101, 103, 206, 600, 999)),
    not_kept("3.3", "part of a response is never stored", cc="max-age=60", res={"Content-Range": "bytes 0-2/3"}),
    *(not_kept("4.2.2", f"{status} without freshness is not stored: no heuristics", status=status,
               res={"Last-Modified": When(-86400 * 365)} if status != 200 else {}) for status in (200, 203, 301, 404, 410)),
    *(kept("4.2.2", f"{status} is fresh for the configured time", status=status, ttl=60.0) for status in (200, 203, 204, 300, 301, 308)),
    *(not_kept("4.2.2", f"{status} is not stored by a configured time alone", status=status, ttl=60.0) for status in (201, 302, 400, 401, 404, 429, 500, 503)),
]  # fmt: skip

DIRECTIVES = [
    not_kept("5.2.2.5", "no-store", cc="no-store"),
    not_kept("5.2.2.5", "no-store beside max-age", cc="max-age=60, no-store"),
    not_kept("5.2.2.5", "no-store in another field", cc="max-age=60", res={"cache-control": "no-store"}),
    not_kept("5.2.2.5", "no-store in any case", cc="max-age=60, No-STORE"),
    not_kept("5.2.2.5", "no-store with an argument", cc='max-age=60, no-store="x"'),
    not_kept("5.2.2.5", "no-store with a semicolon after it", cc="max-age=60, no-store;"),
    not_kept("5.2.2.5", "no-store with a semicolon before it", cc="max-age=60;no-store"),
    not_kept("5.2.2.5", "no-store without a comma before it", cc="max-age=60 no-store"),
    not_kept("5.2.2.5", "no-store behind a quote that never ends", cc='max-age=60, x="a, no-store'),
    kept("5.2.2.5", "no-store within a quoted string is no directive", cc='max-age=60, x="a, no-store, b"'),
    kept("5.2.2.5", "what only looks like no-store is unknown", cc="max-age=60, x-no-store"),
    not_kept("5.2.2.5", "no-store overrules the configured time", cc="no-store", ttl=60.0),
    not_kept("5.2.2.7", "private", cc="private, max-age=60"),
    not_kept("5.2.2.7", "private with field names", cc='private="set-cookie", max-age=60'),
    not_kept("5.2.2.7", "private beside public", cc="private, public, max-age=60"),
    not_kept("5.2.2.7", "private overrules s-maxage", cc="private, s-maxage=60"),
    not_kept("5.2.2.7", "private overrules the configured time", cc="private", ttl=60.0),
    kept("5.2.2.3", "must-understand with a status that is understood overrules no-store", cc="must-understand, no-store, max-age=60"),
    not_kept("5.2.2.3", "must-understand with a status that is not", status=599, cc="must-understand, max-age=60"),
    not_kept("5.2.2.3", "must-understand that is badly written overrules nothing", cc="must-understand=1, no-store, max-age=60"),
    not_kept("5.2.2.3", "must-understand overrules no private", cc="must-understand, private, max-age=60"),
    kept("5.2.3", "an unknown directive is ignored", cc="max-age=60, community=UCI"),
    kept("5.2.3", "an unknown directive with a quoted argument is ignored", cc='x="a,b\\"c", max-age=60'),
    kept("5.2", "empty members are ignored", cc=",, max-age=60 ,,"),
    not_kept("5.2", "what is too long to be read is not stored", cc="max-age=60, " + "x," * 3000),
    not_kept("5.2.1.5", "no-store of the request", req={"Cache-Control": "no-store"}, cc="max-age=60"),
    case(
        "5.2.1.5", "no-store of the request is not answered from the cache either",
        ask(cc="max-age=60"), ask("passed", req={"Cache-Control": "no-store"}, text="two", gets="two"), ask("hit", gets="one"),
    ),
]  # fmt: skip

AUTHORIZATION = [
    not_kept("3.5", "a request with credentials", authorized=True, cc="max-age=60"),
    not_kept("3.5", "a request with credentials and the configured time", authorized=True, ttl=60.0),
    kept("3.5", "public", authorized=True, cc="public, max-age=60"),
    kept("3.5", "s-maxage", authorized=True, cc="s-maxage=60"),
    kept("3.5", "must-revalidate", authorized=True, cc="must-revalidate, max-age=60"),
    not_kept("3.5", "proxy-revalidate is not enough", authorized=True, cc="proxy-revalidate, max-age=60"),
    not_kept("3.5", "public that is badly written is not enough", authorized=True, cc="public=1, max-age=60"),
    kept("3.5", "a rule opts in for its tenant", authorized=True, rule=60.0, ttl=60.0),
    not_kept(
        "3.5",
        "a rule opts in for no errors",
        authorized=True,
        rule=60.0,
        ttl=60.0,
        status=404,
        cc="max-age=60",
    ),
    not_kept("3.5", "no-store overrules a rule", authorized=True, rule=60.0, ttl=60.0, cc="no-store"),
]

FIELDS = [
    case(
        "3.1", "fields named by Connection are left out",
        ask(cc="max-age=60", res={"Connection": "X-Hop, keep-alive", "X-Hop": "1", "X-End": "2"}),
        ask("hit", sees={"X-Hop": None, "Connection": None, "X-End": "2"}),
    ),
    *(case("3.1", f"{name} is left out", ask(cc="max-age=60", res={name: "x"}), ask("hit", sees={name: None}))
      for name in ("Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
                   "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade")),
    case(
        "3.1", "other fields are kept in order, case and number",
        ask(cc="max-age=60", res=[("X-One", "1"), ("WARNING", "199 - x"), ("x-One", "2")]),
        ask("hit", sees={"Warning": "199 - x"}),
    ),
    case("3.1", "the length is told from what is stored", ask(cc="max-age=60", res={"Content-Length": "3"}), ask("hit", sees={"Content-Length": None}, gets="one")),
    case("7.3", "a cookie is left out", ask(cc="max-age=60", res={"Set-Cookie": "a=b"}), ask("hit", sees={"Set-Cookie": None})),
    case("7.3", "a cookie is left out by a rule", ask(rule=60.0, ttl=60.0, res={"Set-Cookie": "a=b"}), ask("hit", sees={"Set-Cookie": None})),
    case("7.3", "a cookie for everyone is kept: public", ask(cc="public, max-age=60", res={"Set-Cookie": "a=b"}), ask("hit", sees={"Set-Cookie": "a=b"})),
    case("7.3", "a cookie for everyone is kept: s-maxage", ask(cc="s-maxage=60", res={"Set-Cookie": "a=b"}), ask("hit", sees={"Set-Cookie": "a=b"})),
    case("9110-6.6.1", "a date is added where there is none", ask(cc="max-age=60"), ask("hit", at=5.0, sees={"Date": When(0)})),
]  # fmt: skip

POST = [
    not_kept("POST", "without an opt-in", method="POST", target=CHAT, body="{}", cc="public, max-age=60"),
    kept("POST", "the client opts in by public and max-age", method="POST", target=CHAT, body="{}", req=OPT),
    kept("POST", "the client opts in by public and s-maxage", method="POST", target=CHAT, req={"Cache-Control": "public, s-maxage=60"}),
    kept("POST", "a rule opts in", method="POST", target=CHAT, rule=60.0, ttl=60.0),
    kept("POST", "the opt-in stands for the leave of §3.5", method="POST", target=CHAT, req=OPT, authorized=True),
    not_kept("POST", "public alone is no opt-in", method="POST", target=CHAT, req={"Cache-Control": "public"}),
    not_kept("POST", "max-age alone is no opt-in", method="POST", target=CHAT, req={"Cache-Control": "max-age=60"}),
    not_kept("POST", "a max-age that is none is no opt-in", method="POST", target=CHAT, req={"Cache-Control": "public, max-age=x"}),
    not_kept("POST", "a max-age of 0 is no opt-in", method="POST", target=CHAT, req={"Cache-Control": "public, max-age=0"}),
    not_kept("POST", "public badly written is no opt-in", method="POST", target=CHAT, req={"Cache-Control": "public=1, max-age=60"}),
    not_kept("POST", "no-store of the client wins", method="POST", target=CHAT, req={"Cache-Control": "public, max-age=60, no-store"}),
    not_kept("POST", "no-store of the answer wins", method="POST", target=CHAT, req=OPT, cc="no-store"),
    not_kept("POST", "private of the answer wins", method="POST", target=CHAT, req=OPT, cc="private, max-age=60"),
    not_kept("POST", "an error is not stored", method="POST", target=CHAT, req=OPT, status=429),
    not_kept("POST", "an error is not stored for who has credentials", method="POST", target=CHAT, req=OPT, authorized=True, status=400, cc="max-age=9"),
    not_kept("POST", "a condition of the client is passed on", method="POST", target=CHAT, req={**OPT, "If-None-Match": "*"}),
    case("POST", "another body is another entry", ask(method="POST", target=CHAT, req=OPT, body="a"), ask("miss", method="POST", target=CHAT, req=OPT, body="b"), ask("hit", method="POST", target=CHAT, req=OPT, body="a")),
    case("POST", "another type of body is another entry", ask(method="POST", target=CHAT, req={**OPT, "Content-Type": "a/b"}), ask("miss", method="POST", target=CHAT, req={**OPT, "Content-Type": "a/c"})),
    case("POST", "an entry answers no GET", ask(method="POST", req=OPT), ask("miss", req=OPT)),
    case("POST", "an entry of GET answers no POST", ask(cc="max-age=60"), ask("miss", method="POST", req=OPT)),
    case("POST", "a client that does not opt in is not answered", ask(method="POST", target=CHAT, req=OPT), ask("passed", method="POST", target=CHAT)),
    case("POST", "s-maxage of the answer counts first", ask(method="POST", req=OPT, rule=9.0, ttl=9.0, cc="max-age=3, s-maxage=2"), ask("hit", at=1.0, method="POST", req=OPT), ask("upstream", at=2.0, method="POST", req=OPT)),
    case("POST", "max-age of the answer counts before the configured time", ask(method="POST", req=OPT, ttl=9.0, cc="max-age=2"), ask("hit", at=1.0, method="POST", req=OPT), ask("upstream", at=2.0, method="POST", req=OPT)),
    case("POST", "the configured time counts before the client's", ask(method="POST", req=OPT, ttl=5.0), ask("hit", at=4.0, method="POST", req=OPT), ask("upstream", at=5.0, method="POST", req=OPT)),
    case("POST", "the client's time counts last", ask(method="POST", req=OPT), ask("hit", at=59.0, method="POST", req=OPT), ask("upstream", at=60.0, method="POST", req=OPT)),
    case("POST", "what is stale is asked for without conditions", ask(method="POST", req=OPT, cc="max-age=1", res={"ETag": TAG}), ask("miss", at=2.0, method="POST", req=OPT, sends={"If-None-Match": None})),
    case("POST", "no-cache of the client asks, and stores", ask(method="POST", rule=60.0, ttl=60.0), ask("miss", method="POST", rule=60.0, ttl=60.0, req={"Cache-Control": "no-cache"}, text="two"), ask("hit", method="POST", rule=60.0, gets="two")),
]  # fmt: skip

CASES = [*METHODS, *STATUSES, *DIRECTIVES, *AUTHORIZATION, *FIELDS, *POST]
