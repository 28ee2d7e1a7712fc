"""What may be reused: RFC 9111 §4, §5.2.1, §5.2.2, §5.4, RFC 5861, and what invalidates it (§4.4)."""

from __future__ import annotations

from typing import Any

from cacherules.harness import Case, Step, ask, case

TAG = {"ETag": '"a"'}


def cc(value: str) -> dict[str, str]:
    return {"Cache-Control": value}


def then(section: str, name: str, said: str, *steps: Step) -> Case:
    """Stored on the terms *said*, with an entity tag; then *steps*."""
    return case(section, name, ask(cc=said, res=TAG), *steps)


REQUEST = [
    then("5.2.1.1", "max-age that is not reached", "max-age=60", ask("hit", at=10.0, req=cc("max-age=20"))),
    then("5.2.1.1", "max-age that is reached", "max-age=60", ask("hit", at=20.0, req=cc("max-age=20"))),
    then("5.2.1.1", "max-age that is exceeded", "max-age=60", ask("asked", at=21.0, req=cc("max-age=20"))),
    then("5.2.1.1", "max-age of 0", "max-age=60", ask("asked", at=1.0, req=cc("max-age=0"))),
    then("5.2.1.1", "max-age that is malformed", "max-age=60", ask("asked", at=1.0, req=cc("max-age=x"))),
    then("5.2.1.1", "of two the shorter", "max-age=60", ask("asked", at=21.0, req=cc("max-age=90, max-age=20"))),
    then("5.2.1.1", "max-age makes nothing fresh", "max-age=10", ask("asked", at=11.0, req=cc("max-age=60"))),
    case("5.2.1.1", "Age that it came with counts", ask(cc="max-age=60", res={**TAG, "Age": "20"}), ask("hit", req=cc("max-age=20")), ask("asked", at=1.0, req=cc("max-age=20"))),
    then("5.2.1.2", "max-stale without a number", "max-age=10", ask("stale", at=9999.0, req=cc("max-stale"), sees={"Age": "9999"})),
    then("5.2.1.2", "max-stale that is not reached", "max-age=10", ask("stale", at=15.0, req=cc("max-stale=5"))),
    then("5.2.1.2", "max-stale that is exceeded", "max-age=10", ask("asked", at=16.0, req=cc("max-stale=5"))),
    then("5.2.1.2", "max-stale that is malformed", "max-age=10", ask("asked", at=11.0, req=cc("max-stale=x"))),
    then("5.2.1.2", "max-stale against must-revalidate", "max-age=10, must-revalidate", ask("asked", at=11.0, req=cc("max-stale"))),
    then("5.2.1.2", "max-stale against proxy-revalidate", "max-age=10, proxy-revalidate", ask("asked", at=11.0, req=cc("max-stale"))),
    then("5.2.1.2", "max-stale against s-maxage", "s-maxage=10", ask("asked", at=11.0, req=cc("max-stale"))),
    then("5.2.1.2", "max-stale against no-cache", "max-age=10, no-cache", ask("asked", at=1.0, req=cc("max-stale"))),
    then("5.2.1.2", "max-stale and max-age", "max-age=10", ask("stale", at=15.0, req=cc("max-stale, max-age=20")), ask("asked", at=21.0, req=cc("max-stale, max-age=20"))),
    then("5.2.1.3", "min-fresh that is met", "max-age=60", ask("hit", at=10.0, req=cc("min-fresh=50"))),
    then("5.2.1.3", "min-fresh that is not met", "max-age=60", ask("asked", at=11.0, req=cc("min-fresh=50"))),
    then("5.2.1.3", "min-fresh that is malformed", "max-age=60", ask("asked", req=cc("min-fresh=x"))),
    then("5.2.1.3", "of two the longer", "max-age=60", ask("asked", at=11.0, req=cc("min-fresh=5, min-fresh=50"))),
    then("5.2.1.4", "no-cache", "max-age=60", ask("asked", req=cc("no-cache"), sends={"If-None-Match": '"a"'})),
    then("5.2.1.4", "no-cache renews what is stored", "max-age=60", ask("asked", at=5.0, req=cc("no-cache"), text="two", cc="max-age=60"), ask("hit", at=5.0, gets="two", sees={"Age": "0"})),
    then("5.2.1.4", "no-cache in any case, with an argument", "max-age=60", ask("asked", req=cc("NO-CACHE=x"))),
    case("5.2.1.7", "only-if-cached, and nothing is", ask("unavailable", req=cc("only-if-cached"))),
    then("5.2.1.7", "only-if-cached, and something is", "max-age=60", ask("hit", req=cc("only-if-cached"))),
    then("5.2.1.7", "only-if-cached, and it is stale", "max-age=10", ask("unavailable", at=11.0, req=cc("only-if-cached"))),
    then("5.2.1.7", "only-if-cached with max-stale", "max-age=10", ask("stale", at=11.0, req=cc("only-if-cached, max-stale"))),
    then("5.2.1.7", "only-if-cached with no-cache", "max-age=60", ask("unavailable", req=cc("only-if-cached, no-cache"))),
    case("5.2.1.7", "only-if-cached, and another variant is", ask(cc="max-age=60", res={"Vary": "X-A"}, req={"X-A": "1"}), ask("unavailable", req={"X-A": "2", **cc("only-if-cached")})),
    then("5.2.1", "directives that mean nothing in a request", "max-age=60", ask("hit", req=cc("public, s-maxage=0, must-revalidate, x=1"))),
    then("5.4", "Pragma: no-cache", "max-age=60", ask("asked", req={"Pragma": "no-cache"})),
    then("5.4", "Pragma: no-cache in any case", "max-age=60", ask("asked", req={"Pragma": "x, No-Cache"})),
    then("5.4", "Pragma beside Cache-Control does not count", "max-age=60", ask("hit", req={"Pragma": "no-cache", **cc("max-age=60")})),
    then("5.4", "Pragma that says something else", "max-age=60", ask("hit", req={"Pragma": "x"})),
    case("5.4", "Pragma of an answer means nothing beside max-age", ask(cc="max-age=60", res={"Pragma": "no-cache"}), ask("hit")),
    case("5.4", "Pragma of an answer is not for a configured time", ask(ttl=60.0, res={"Pragma": "no-cache"}), ask("upstream")),
]  # fmt: skip

RESPONSE = [
    then("5.2.2.2", "must-revalidate while it is fresh", "max-age=10, must-revalidate", ask("hit", at=9.0)),
    then("5.2.2.2", "must-revalidate once it is stale", "max-age=10, must-revalidate", ask("asked", at=10.0)),
    then("5.2.2.2", "must-revalidate, and the upstream is down", "max-age=10, must-revalidate, stale-if-error=60", ask("failed", at=11.0, down=True)),
    then("5.2.2.4", "no-cache asks each time", "max-age=60, no-cache", ask("asked")),
    then("5.2.2.4", "no-cache with field names asks too", 'max-age=60, no-cache="set-cookie"', ask("asked")),
    then("5.2.2.4", "no-cache badly written asks too", "max-age=60, no-cache;", ask("asked")),
    then("5.2.2.4", "no-cache with the configured time", "no-cache", ask("asked", ttl=60.0)),
    then("5.2.2.9", "public makes nothing stale fresh", "max-age=10, public", ask("asked", at=10.0)),
    case("4", "another path is another entry", ask(cc="max-age=60"), ask("miss", target="/v1/Models")),
    case("4", "another query is another entry", ask(cc="max-age=60", target="/v1/models?a=1"), ask("miss", target="/v1/models?a=2"), ask("miss")),
    case("4", "the order of arguments does not count", ask(cc="max-age=60", target="/m?a=1&b=2"), ask("hit", target="/m?b=2&a=1")),
    case("4", "the order of arguments of one name counts", ask(cc="max-age=60", target="/m?a=1&a=2"), ask("miss", target="/m?a=2&a=1")),
    case("4", "a credential in the query does not count", ask(cc="max-age=60", target="/m?key=one&a=1"), ask("hit", target="/m?a=1&key=two")),
    case("4", "an argument that only looks like a credential counts", ask(cc="max-age=60", target="/m?pageToken=1"), ask("miss", target="/m?pageToken=2")),
    case("4", "HEAD is answered from an entry of GET", ask(cc="max-age=60"), ask("hit", method="HEAD", gets="", code=200)),
    case("4", "GET is not answered from an entry of HEAD", ask(method="HEAD", cc="max-age=60"), ask("miss", cc="max-age=60"), ask("hit", gets="one")),
    case("4", "an entry of HEAD replaces none of GET", ask(cc="max-age=10"), ask("upstream", at=11.0, method="HEAD", cc="max-age=60"), ask("hit", at=12.0, method="HEAD"), ask("upstream", at=12.0)),
    case("4", "HEAD keeps the length that it was told", ask(method="HEAD", cc="max-age=60", res={"Content-Length": "3"}), ask("hit", method="HEAD", sees={"Content-Length": "3"})),
    case("4", "a new answer takes the place of the old one", ask(cc="max-age=10"), ask(at=11.0, cc="max-age=10", text="two"), ask("hit", at=12.0, gets="two")),
    case("4", "another tenant has another cache", ask(cc="max-age=60"), ask("miss", tenant="bob", text="two"), ask("hit", gets="one"), ask("upstream", tenant="bob")),
]  # fmt: skip

STALE = [
    then("5861-3", "stale-while-revalidate", "max-age=10, stale-while-revalidate=20", ask("meanwhile", at=15.0, gets="one", text="two", cc="max-age=10", sees={"Age": "15"}), ask("hit", at=16.0, gets="two")),
    then("5861-3", "stale-while-revalidate at its end", "max-age=10, stale-while-revalidate=20", ask("meanwhile", at=30.0)),
    then("5861-3", "stale-while-revalidate beyond its end", "max-age=10, stale-while-revalidate=20", ask("asked", at=31.0)),
    then("5861-3", "stale-while-revalidate while it is fresh", "max-age=10, stale-while-revalidate=20", ask("hit", at=9.0)),
    *(then("5861-3", f"stale-while-revalidate against {one}", f"max-age=10, stale-while-revalidate=20, {one}", ask("asked", at=15.0))
      for one in ("must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache")),
    then("5861-3", "stale-while-revalidate against no-cache of the request", "max-age=10, stale-while-revalidate=20", ask("asked", at=15.0, req=cc("no-cache"))),
    then("5861-3", "stale-while-revalidate against max-age of the request", "max-age=10, stale-while-revalidate=20", ask("asked", at=15.0, req=cc("max-age=60"))),
    then("5861-3", "stale-while-revalidate with max-stale asks nobody", "max-age=10, stale-while-revalidate=20", ask("stale", at=15.0, req=cc("max-stale=10"))),
    then("5861-3", "stale-while-revalidate that is malformed", "max-age=10, stale-while-revalidate=x", ask("asked", at=11.0)),
    then("5861-3", "stale-while-revalidate with only-if-cached", "max-age=10, stale-while-revalidate=20", ask("meanwhile", at=15.0, req=cc("only-if-cached"))),
    then("5861-4", "stale-if-error, and the upstream is down", "max-age=10, stale-if-error=20", ask("stands-in", at=15.0, down=True, gets="one", sees={"Age": "15"})),
    *(then("5861-4", f"stale-if-error and {status}", "max-age=10, stale-if-error=20", ask("stands-in", at=15.0, status=status, code=200)) for status in (500, 502, 503, 504)),
    *(then("5861-4", f"{status} is no such error", "max-age=10, stale-if-error=20", ask("asked", at=15.0, status=status, code=status)) for status in (400, 404, 429, 501)),
    then("5861-4", "stale-if-error at its end", "max-age=10, stale-if-error=20", ask("stands-in", at=30.0, down=True)),
    then("5861-4", "stale-if-error beyond its end", "max-age=10, stale-if-error=20", ask("failed", at=31.0, down=True)),
    then("5861-4", "stale-if-error of the request", "max-age=10", ask("stands-in", at=15.0, down=True, req=cc("stale-if-error=20"))),
    then("5861-4", "stale-if-error of the request at its end", "max-age=10", ask("failed", at=31.0, down=True, req=cc("stale-if-error=20"))),
    then("5861-4", "without stale-if-error", "max-age=10", ask("failed", at=11.0, down=True)),
    *(then("5861-4", f"stale-if-error against {one}", f"max-age=10, stale-if-error=20, {one}", ask("failed", at=15.0, down=True, req=cc("stale-if-error=99")))
      for one in ("must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache")),
    then("5861-4", "stale-if-error against no-cache of the request", "max-age=10, stale-if-error=20", ask("failed", at=15.0, down=True, req=cc("no-cache"))),
    then("5861-4", "stale-if-error against max-age of the request", "max-age=10, stale-if-error=20", ask("failed", at=15.0, down=True, req=cc("max-age=12"))),
    then("5861-4", "stale-if-error against min-fresh of the request", "max-age=10, stale-if-error=20", ask("failed", at=5.0, down=True, req=cc("min-fresh=9"))),
    then("5861-4", "stale-if-error meets the client's condition", "max-age=10, stale-if-error=20", ask("stands-in", at=15.0, down=True, req={"If-None-Match": '"a"'}, code=304)),
    case("5861-4", "stale-if-error for POST", ask(method="POST", rule=1.0, cc="max-age=10, stale-if-error=20"), ask("stands-in", at=15.0, method="POST", rule=1.0, down=True)),
    case("5861-4", "another variant does not stand in", ask(cc="max-age=10, stale-if-error=20", res={"Vary": "X-A"}, req={"X-A": "1"}), ask("failed", at=15.0, down=True, req={"X-A": "2"})),
]  # fmt: skip


def changed(section: str, name: str, expect: str, **said: Any) -> Case:
    """Stored; then another request; then the first again."""
    return case(section, name, ask(cc="max-age=60"), ask("passed", **said), ask(expect))


INVALIDATION = [
    *(changed("4.4", f"{method} invalidates", "miss", method=method) for method in ("POST", "PUT", "DELETE", "PATCH", "BREW")),
    *(changed("4.4", f"{method} does not", "hit", method=method) for method in ("OPTIONS", "TRACE", "PROPFIND", "SEARCH")),
    *(changed("4.4", f"{status} invalidates", "miss", method="PUT", status=status) for status in (201, 204, 303)),
    *(changed("4.4", f"{status} does not", "hit", method="PUT", status=status) for status in (400, 404, 500, 503)),
    changed("4.4", "of another URI it does not", "hit", method="PUT", target="/v1/files"),
    changed("4.4", "of another query it does not", "hit", method="PUT", target="/v1/models?a=1"),
    changed("4.4", "of another tenant it does not", "hit", method="PUT", tenant="bob"),
    changed("4.4", "a credential in its query does not matter", "miss", method="PUT", target="/v1/models?key=x"),
    case("4.4", "all variants are invalid", *(ask(cc="max-age=60", res={"Vary": "X-A"}, req={"X-A": one}) for one in "12"), ask("passed", method="PUT"), *(ask("miss", req={"X-A": one}) for one in "12")),
    case("4.4", "entries of HEAD are invalid too", ask(method="HEAD", cc="max-age=60"), ask("passed", method="DELETE"), ask("miss", method="HEAD")),
    case("4.4", "entries of POST stay", ask(method="POST", rule=60.0, ttl=60.0), ask("passed", method="PUT"), ask("hit", method="POST", rule=60.0)),
]  # fmt: skip

CASES = [*REQUEST, *RESPONSE, *STALE, *INVALIDATION]
