"""For how long what is stored is fresh: RFC 9111 §4.2, §5.1, §5.3, RFC 9213."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cacherules.harness import Case, When, ask, case


def fresh(seconds: float, section: str, name: str, **said: Any) -> Case:
    """Stored at once; served until *seconds* have gone by, asked for from then on."""
    return case(section, name, ask(**said), ask("hit", at=seconds - 1), ask("upstream", at=seconds))


def never(section: str, name: str, res: Mapping[str, Any] = MappingProxyType({}), **said: Any) -> Case:
    """Not served, not even in the second in which it came, although it is stored."""
    return case(section, name, ask(res={**res, "ETag": '"a"'}, **said), ask("asked"))


def after(seconds: float, section: str, name: str, **said: Any) -> Case:
    return case(section, name, ask(**said), ask("hit", at=seconds))


LIFETIME = [
    fresh(60, "4.2.1", "max-age", cc="max-age=60"),
    fresh(60, "4.2.1", "s-maxage", cc="s-maxage=60"),
    fresh(60, "4.2.1", "s-maxage before max-age", cc="max-age=5, s-maxage=60"),
    fresh(5, "4.2.1", "s-maxage before a longer max-age", cc="max-age=60, s-maxage=5"),
    fresh(60, "4.2.1", "max-age before Expires", cc="max-age=60", res={"Expires": When(5), "Date": When(0)}),
    fresh(60, "4.2.1", "max-age before Expires in the past", cc="max-age=60", res={"Expires": When(-5)}),
    fresh(60, "4.2.1", "max-age before an Expires that is no date", cc="max-age=60", res={"Expires": "0"}),
    fresh(60, "4.2.1", "Expires less Date", res={"Expires": When(60), "Date": When(0)}),
    fresh(60, "4.2.1", "Expires without Date counts from when it came", res={"Expires": When(60)}),
    fresh(60, "4.2.1", "Expires before the configured time", res={"Expires": When(60)}, ttl=5.0),
    fresh(60, "4.2.1", "max-age before the configured time", cc="max-age=60", ttl=5.0),
    fresh(60, "4.2.1", "the configured time where nothing is said", ttl=60.0),
    fresh(60, "4.2.1", "the configured time beside directives that say nothing of it", cc="public", ttl=60.0),
    never("4.2.1", "max-age of 0", cc="max-age=0"),
    never("4.2.1", "max-age of 0 overrules the configured time", cc="max-age=0", ttl=60.0),
    never("4.2.1", "s-maxage of 0", cc="max-age=60, s-maxage=0"),
    fresh(5, "4.2.1", "of two different ones the shorter counts", cc="max-age=60, max-age=5"),
    fresh(
        5,
        "4.2.1",
        "of two in two fields the shorter counts",
        cc="max-age=5",
        res={"cache-control": "max-age=60"},
    ),
    fresh(60, "4.2.1", "two equal ones count as one", cc="max-age=60, max-age=60"),
    never("4.2.1", "one of two is malformed", cc="max-age=60, max-age=x"),
    never("4.2.1", "max-age without a number", cc="max-age"),
    never("4.2.1", "max-age with an empty number", cc="max-age="),
    never("4.2.1", "negative max-age", cc="max-age=-60"),
    never("4.2.1", "max-age with a fraction", cc="max-age=60.5"),
    never("4.2.1", "max-age with a unit", cc="max-age=60s"),
    never("4.2.1", "max-age in single quotes", cc="max-age='60'"),
    never("4.2.1", "max-age with spaces about its sign", cc="max-age = 60"),
    never("4.2.1", "max-age in other digits", cc="max-age=\xb2"),
    never("4.2.1", "max-age with a plus", cc="max-age=+60"),
    never("4.2.1", "max-age that is malformed overrules the configured time", cc="max-age=x", ttl=60.0),
    never("4.2.1", "max-age with a semicolon after it", cc="max-age=60; x=y"),
    fresh(60, "5.2", "max-age as a quoted string", cc='max-age="60"'),
    fresh(60, "5.2", "max-age in any case", cc="MAX-Age=60"),
    fresh(60, "5.2", "max-age with leading zeros", cc="max-age=0060"),
    after(
        10**9, "1.2.2", "a number beyond all bounds is a very long time", cc="max-age=99999999999999999999"
    ),
    after(10**9, "1.2.2", "2147483648", cc="max-age=2147483648"),
    case("1.2.2", "and no longer", ask(cc="max-age=99999999999999999999"), ask("upstream", at=2.0**31)),
    never("4.2.1", "what only looks like max-age is not one", cc="x-max-age=60"),
    never("4.2.1", "max-age within a quoted string", cc='x="max-age=60"'),
]

EXPIRES = [
    fresh(60, "5.3", "RFC 850 form", res={"Expires": When(60, "rfc850")}),
    fresh(60, "5.3", "asctime form", res={"Expires": When(60, "asctime")}),
    never("5.3", "in the past", res={"Expires": When(-60)}),
    never("5.3", "now", res={"Expires": When(0), "Date": When(0)}),
    *(never("5.3", f"no date: {text}", res={"Expires": text}) for text in (
        "0", "-1", "", "never", "Thu, 01 Jan 2099", "Thu, 1 Jan 2099 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 UTC",
        "Thu, 01 Jan 2099 0:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 +0000", "Thu, 32 Jan 2099 00:00:00 GMT",
        "Thu, 01 Foo 2099 00:00:00 GMT", "Thu, 01 Jan 2099 24:00:00 GMT", "01 Jan 2099 00:00:00 GMT",
        "Thu 01 Jan 2099 00:00:00 GMT", "2099-01-01T00:00:00Z", "4102444800", "Thu, 01 Jan 2099 00:00:00 gmt",
    )),
    case("5.3", "two different ones", ask("miss", res=[("Expires", When(60)), ("expires", When(600)), ("ETag", '"a"')]), ask("upstream")),
    never("5.3", "overrules the configured time", res={"Expires": "0"}, ttl=60.0),
]  # fmt: skip

AGE = [
    case("4.2.3", "Age is told", ask(cc="max-age=60"), ask("hit", sees={"Age": "0"}), ask("hit", at=30.0, sees={"Age": "30"})),
    case("4.2.3", "Age is told in whole seconds", ask(cc="max-age=60"), ask("hit", at=3.9, sees={"Age": "3"})),
    case("4.2.3", "Age of the answer is added to", ask(cc="max-age=60", res={"Age": "20"}), ask("hit", at=30.0, sees={"Age": "50"}), ask("upstream", at=40.0)),
    case("4.2.3", "an answer as old as its lifetime is not fresh", ask(cc="max-age=60", res={"Age": "60", "ETag": '"a"'}), ask("asked")),
    case("4.2.3", "time on the way is added", ask(cc="max-age=60", took=10.0), ask("hit", at=10.0, sees={"Age": "10"}), ask("upstream", at=60.0)),
    case("4.2.3", "Age and time on the way are added up", ask(cc="max-age=60", took=10.0, res={"Age": "20"}), ask("hit", at=10.0, sees={"Age": "30"})),
    case("4.2.3", "an old Date makes it older", ask(cc="max-age=60", res={"Date": When(-40)}), ask("hit", sees={"Age": "40"}), ask("upstream", at=20.0)),
    case("4.2.3", "the older of Age and Date counts: Age", ask(cc="max-age=600", res={"Date": When(-40), "Age": "100"}), ask("hit", sees={"Age": "100"})),
    case("4.2.3", "the older of Age and Date counts: Date", ask(cc="max-age=600", res={"Date": When(-100), "Age": "40"}), ask("hit", sees={"Age": "100"})),
    case("4.2.3", "a clock that is ahead makes it no younger", ask(cc="max-age=60", res={"Date": When(3600)}), ask("hit", at=10.0, sees={"Age": "10"}), ask("upstream", at=60.0)),
    case("4.2.3", "Expires is judged by the upstream's own clock", ask(res={"Date": When(3600), "Expires": When(3660)}), ask("hit", at=59.0), ask("upstream", at=60.0)),
    case("4.2.3", "a clock behind its Expires", ask(res={"Date": When(-10), "Expires": When(20)}), ask("hit", at=19.0), ask("upstream", at=20.0)),
    case("4.2.3", "our clock is put back: nothing gets younger", ask(cc="max-age=60", at=1000.0), ask("hit", at=999.0, sees={"Age": "1"}), ask("upstream", at=0.0)),
    case("4.2.3", "a Date that is none does not count", ask(cc="max-age=60", res={"Date": "yesterday"}), ask("hit", at=59.0)),
    case("5.1", "of several the first counts", ask(cc="max-age=60", res={"Age": "20, 100"}), ask("hit", sees={"Age": "20"})),
    case("5.1", "of several fields the first counts", ask(cc="max-age=60", res=[("Age", "20"), ("age", "50")]), ask("hit", sees={"Age": "20"})),
    *(case("5.1", f"no Age: {value}", ask(cc="max-age=60", res={"Age": value}), ask("hit", sees={"Age": "0"})) for value in ("-1", "x", "1.5", "", "1s")),
    case("5.1", "beyond all bounds it is stale", ask(cc="max-age=60", res={"Age": "99999999999999999999", "ETag": '"a"'}), ask("asked")),
]  # fmt: skip

TARGETED = [
    fresh(60, "9213-2.2", "before max-age", cc="max-age=5", res={"CDN-Cache-Control": "max-age=60"}),
    fresh(5, "9213-2.2", "before s-maxage", cc="s-maxage=60", res={"CDN-Cache-Control": "max-age=5"}),
    fresh(60, "9213-2.2", "before no-store", cc="no-store", res={"CDN-Cache-Control": "max-age=60"}),
    fresh(60, "9213-2.2", "before Expires", res={"CDN-Cache-Control": "max-age=60", "Expires": "0"}),
    case("9213-2.2", "no-store of its own", ask(cc="max-age=60", res={"CDN-Cache-Control": "no-store"}), ask("upstream")),
    case("9213-2.2", "private of its own", ask(cc="max-age=60", res={"CDN-Cache-Control": "private"}), ask("upstream")),
    case("9213-2.2", "valid but silent: Expires does not count either", ask(res={"CDN-Cache-Control": "x", "Expires": When(60)}), ask("upstream")),
    fresh(60, "9213-2.2", "silent: the configured time", res={"CDN-Cache-Control": "x"}, ttl=60.0),
    fresh(60, "9213-2.1", "with parameters", cc="max-age=5", res={"CDN-Cache-Control": "max-age=60;x=y, a=(1 2);b"}),
    fresh(60, "9213-2.1", "over two fields", cc="max-age=5", res=[("CDN-Cache-Control", "x=1"), ("cdn-cache-control", "max-age=60")]),
    fresh(60, "9651-4.2.2", "of two members the last counts", res={"CDN-Cache-Control": "max-age=5, max-age=60"}),
    never("9213-2.1", "a number as a string is none", res={"CDN-Cache-Control": 'max-age="60"'}),
    never("9213-2.1", "a fraction is none", res={"CDN-Cache-Control": "max-age=60.5"}),
    never("9213-2.1", "a negative number is none", res={"CDN-Cache-Control": "max-age=-60"}),
    *(fresh(5, "9213-2.1", f"not valid, ignored: {text}", cc="max-age=5", res={"CDN-Cache-Control": text}) for text in (
        "", " ", "max-age=60,", "max-age=60 no-store", "MAX-AGE=60", 'max-age="60', "max-age=60, &", "max-age=(1",
        "max-age = 60", "no-store;", "max-age=1234567890123456", ",max-age=60",
    )),
    case("9213-2.2", "public of its own is leave for §3.5", ask(authorized=True, res={"CDN-Cache-Control": "public, max-age=60"}), ask("hit", authorized=True)),
    case("9213-2.2", "public beside it is none", ask(authorized=True, cc="public", res={"CDN-Cache-Control": "max-age=60"}), ask("upstream", authorized=True)),
]  # fmt: skip

CASES = [*LIFETIME, *EXPIRES, *AGE, *TARGETED]
