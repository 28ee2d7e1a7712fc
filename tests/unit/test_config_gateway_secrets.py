"""A URL with a password in it is shown without."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.redaction import REDACTED, Secret, SecretURL

SHOWN = [
    ("sqlite:/var/lib/a@b:c.db", "sqlite:/var/lib/a@b:c.db", ()),
    ("postgresql://db/llm", "postgresql://db/llm", ()),
    ("postgresql://app@db:5432/llm", "postgresql://app@db:5432/llm", ()),
    ("postgresql://app:s3cret@db/llm", f"postgresql://app:{REDACTED}@db/llm", ("s3cret",)),
    ("postgresql://app:a%40b@db/llm", f"postgresql://app:{REDACTED}@db/llm", ("a%40b", "a@b")),
    ("postgresql://app:a@/b:c?d@db/llm", f"postgresql://app:{REDACTED}@db/llm", ("a@/b:c?d",)),
    ("postgresql://db/llm?password=x1&a=b", f"postgresql://db/llm?password={REDACTED}&a=b", ("x1",)),
    ("postgresql://db/l?a=b&sslpassword=x1", f"postgresql://db/l?a=b&sslpassword={REDACTED}", ("x1",)),
    ("redis://:pw@h:1/0", f"redis://:{REDACTED}@h:1/0", ("pw",)),
    ("redis://pw@h", f"redis://{REDACTED}@h", ("pw",)),
    ("redis://user:@h", "redis://user:@h", ()),
    ("unix://:pw@/run/r.sock?db=1", f"unix://:{REDACTED}@/run/r.sock?db=1", ("pw",)),
    ("hunter22", REDACTED, ("hunter22",)),
    ("Hunter22://x", REDACTED, ("Hunter22://x",)),
    ("key:hunter22", REDACTED, ("key:hunter22",)),
]


@pytest.mark.parametrize(("text", "shown", "hidden"), SHOWN, ids=[text for text, _, _ in SHOWN])
def test_a_url_is_shown_without_what_is_secret(text, shown, hidden):
    url = SecretURL(text)
    assert (str(url), repr(url), f"{url}", f"{url!r}", f"{url:}") == (shown,) * 5
    assert url.masked == shown
    assert url.hidden() == hidden
    assert url.reveal() == text


def test_it_is_a_secret():
    url = SecretURL("redis://:pw@h")
    assert url == Secret("redis://:pw@h")
    assert url != SecretURL("redis://:pq@h")
    assert copy.deepcopy(url) is url
    with pytest.raises(TypeError):
        pickle.dumps(url)


@given(
    st.sampled_from(["postgresql", "postgres", "redis", "rediss", "unix"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@:/?#&;"), max_size=5),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6),
)
def test_no_password_is_shown_however_it_is_written(scheme, user, password):
    url = SecretURL(f"{scheme}://{user}:{password}@host/db")
    assert str(url) == f"{scheme}://{user}:{REDACTED}@host/db"
    assert password in url.hidden()
