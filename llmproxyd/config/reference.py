r"""The configuration as a document: docs/configuration.rst is what :func:`reference` returns, with a newline.

What a key is for stands once, in the docstring of its dataclass; kinds, defaults and what needs a
restart are those that are gone by.  To write the document anew::

    python -c 'import llmproxyd.config.reference as r, llmproxyd.tap as t; print(r.reference(t.Options))' \
        > docs/configuration.rst
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

from llmproxyd.config import reflect
from llmproxyd.config.changes import FIXED
from llmproxyd.config.dump import plain
from llmproxyd.config.schema import Config
from llmproxyd.redaction import Secret
from llmproxyd.units import DURATION_HELP, SIZE_HELP

WIDTH = 110
"""Columns of a line, where it can be broken."""

_HEAD = """\
=============
Configuration
=============

No file is needed: without one the defaults hold. This page is made from the schema by which files are read;
`etc/llmproxyd.yaml <../etc/llmproxyd.yaml>`_ has every key in its place, to copy from.

``llmproxyd --check-config --config FILE`` reports everything that is wrong with a file, each mistake with
its line: unknown and doubled keys, values of a wrong type, values that cannot be. ``--print-config`` prints
what is in force, secrets redacted.

Layers
======

Later ones win:

1. defaults
2. the preset (``--preset NAME``)
3. the file (``--config FILE``)
4. the environment
5. the command line

Command line
============

"""

_RULES = """\
Environment
===========

``LLMPROXYD_`` and a key's path, joined by ``__``, in upper case, sets any key that holds one value::

    LLMPROXYD_TIMEOUTS__CONNECT=5s
    LLMPROXYD_UPSTREAMS__MY_VLLM__BASE_URL=http://localhost:8000

``-`` and ``.`` in a name are written ``_``. Lists and mappings can be set in a file alone. A name that sets
nothing is warned of. Besides:

==============================  ==============================================================================
``DATABRICKS_REAL_HOST``        the address of the workspace, which has no global one
``STATE_DIRECTORY``             where the database, the audit log and events are kept (systemd), else
                                ``$XDG_STATE_HOME/llmproxyd``, else ``~/.local/state/llmproxyd``
``LOGS_DIRECTORY``              where log files are kept (systemd), where there is no configuration file
``RUNTIME_DIRECTORY``           where the admin socket is made (systemd), else ``$XDG_RUNTIME_DIR/llmproxyd``
``CREDENTIALS_DIRECTORY``       what ``{credential: NAME}`` is read from (systemd)
``LLMPROXYD_ADMIN_SOCKET``      for ``llmproxyctl``: the admin socket
``LLMPROXYD_ADMIN_TOKEN``       for ``llmproxyctl``: the admin token
``NO_COLOR``                    no colours on a terminal
==============================  ==============================================================================

The variables of other programs (``PORT``, ``OPENAI_BASE_URL``, …) mean something with their own preset or
file alone (`README <../README.rst>`_, `the gateway's file <gateway-file.rst>`_).

Values
======

================  ============================================================================================
a duration        ``250ms``, ``30s``, ``1m30s``, ``2h``, ``7d``, or a number of seconds
a size            ``64KiB``, ``2MB``, or a number of bytes
a secret          a text, ``${VARIABLE}``, ``{file: PATH}``, or ``{credential: NAME}`` (systemd); never shown
                  again
a path            a relative one stands against the file's folder; those of the database, the audit log and of
                  events against ``$STATE_DIRECTORY``, where that is set
true or false     just so; ``yes`` and ``on`` are texts
NAME              a name of yours, in the path of a key
``[]``            an item of a list, in the path of a key
================  ============================================================================================

A reload (SIGHUP, ``config reload``) goes by all keys but those with *restart*.
"""

_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_QUOTED = re.compile(r'"([^"]+)"')
_FIELD = re.compile(r":(?:param|ivar) (\w+): ?")

Option = Sequence[Any]
"""Of ``twisted.python.usage``: name, letter, for parameters the default, then what it does."""


def reference(options: Any) -> str:
    """Every key and every option as reStructuredText.

    :param options: of the command line, a class of ``twisted.python.usage``.
    """
    parts = [
        _HEAD,
        _options(options.optParameters, options.optFlags),
        _RULES,
        _section("Where requests come in, and go"),
    ]
    for key in reflect.keys(Config).values():
        if reflect.is_table(key.kind) or reflect.mapped(key.kind) is not None:
            parts.append(_section(key.name))
        parts += _entries(key, Config, (key.name,))
    return "\n\n".join(part.strip("\n") for part in parts)


def _section(title: str) -> str:
    return f"{title}\n{'=' * len(title)}\n"


def _options(parameters: Sequence[Option], flags: Sequence[Option]) -> str:
    rows = [(f"--{name}=…", letter, text) for name, letter, _, text in parameters]
    rows += [(f"--{name}", letter, text) for name, letter, text in flags]
    found = []
    for name, letter, text in sorted(rows):
        short = f", ``-{letter}``" if letter else ""
        found.append(f"``{name}``{short}\n{_below(_literal(text))}\n")
    return "\n".join(found)


def _entries(key: reflect.Key, table: type, path: tuple[str, ...]) -> Iterator[str]:
    """*key* of *table*, and what stands below it."""
    below = _table_of(key.kind)
    about = _about(table, key, below)
    facts = "; ".join(_facts(key, path, about))
    text = f"{about} ({facts})" if facts else about
    if reflect.is_table(key.kind) and table is Config:
        yield fill(about, WIDTH) + "\n"
    else:
        yield f"``{_written(path)}``\n{_below(text)}\n"
    if below is None:
        return
    kind = reflect.present(key.kind)
    inner = {True: "[]", False: "NAME"}.get(reflect.listed(kind) is not None)
    here = path if reflect.is_table(kind) else (*path, str(inner))
    for one in reflect.keys(below).values():
        yield from _entries(one, below, (*here, one.name))


def _table_of(kind: Any) -> type | None:
    """The dataclass that *kind* is, or holds as a list or mapping; ``None`` for anything else."""
    kind = reflect.present(kind)
    pair, item = reflect.mapped(kind), reflect.listed(kind)
    inner = pair[1] if pair is not None else item if item is not None else kind
    table = reflect.split(inner)[0]
    return table if reflect.is_table(inner) and isinstance(table, type) else None


def _about(table: type, key: reflect.Key, below: type | None) -> str:
    """What *key* is for, from the docstring of *table* or of the table *below* it.

    :raises LookupError: it is not said anywhere.
    """
    text = described(table).get(key.attribute)
    if text is None and below is not None:
        text = _opening(below)
    if not text:
        raise LookupError(f"{table.__name__} does not say what {key.attribute} is for")
    text = _ROLE.sub(r"``\1``", text).replace("``None``", "``null``")
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def described(table: type) -> Mapping[str, str]:
    """What the docstrings of *table* and its bases say of each attribute."""
    found: dict[str, str] = {}
    for one in reversed(table.__mro__):
        paragraphs = inspect.cleandoc(one.__dict__.get("__doc__") or "").split("\n\n")
        for paragraph in paragraphs:
            _, *pairs = _FIELD.split(paragraph)
            for name, text in zip(pairs[::2], pairs[1::2], strict=True):
                found[name] = " ".join(text.split())
    return found


def _opening(table: type) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(table) or "").partition("\n\n")[0].split())


def _facts(key: reflect.Key, path: tuple[str, ...], about: str) -> Iterator[str]:
    """What may be written, what holds without it, and whether a change needs a restart."""
    if reflect.is_table(key.kind):
        return
    yield _accepted(key.kind)
    if key.required:
        yield "required"
    elif reflect.optional(key.kind):
        yield "default ``null``"
    elif "by default" not in about.lower():
        yield f"default {_default(key)}"
    if any(path[: len(fixed)] == fixed for fixed in FIXED):
        yield "*restart*"


def _accepted(kind: Any) -> str:
    """What may be written for *kind*, in few words; those that recur are explained on top."""
    inner = reflect.present(kind)
    pair, item = reflect.mapped(inner), reflect.listed(inner)
    if pair is not None:
        names = f"names: {_accepted(pair[0])}; " if reflect.split(pair[0])[1] else ""
        values = "mappings" if reflect.is_table(pair[1]) else _accepted(pair[1])
        return f"a mapping; {names}values: {values}"
    if item is not None:
        return "a list of mappings" if reflect.is_table(item) else f"a list; items: {_accepted(item)}"
    text = reflect.accepted(kind).removesuffix(", or null")
    text = text.replace(DURATION_HELP, "a duration").replace(SIZE_HELP, "a size")
    base = reflect.split(inner)[0]
    if isinstance(base, type) and issubclass(base, Secret):
        if text.endswith("{credential: NAME}"):
            text = "a secret"
        elif not text.startswith("a secret"):
            text += "; a secret"
    return _literal(text)


def _default(key: reflect.Key) -> str:
    value = plain(key.default, key.kind)
    if isinstance(value, list) and value:
        return ", ".join(f"``{one}``" for one in value)
    if isinstance(value, str) and value:
        return f"``{value}``"
    return f"``{json.dumps(value)}``"


def _literal(text: str) -> str:
    """*text* with what stands in quotes as literals."""
    return _QUOTED.sub(r"``\1``", text)


def _written(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".[]", "[]")


def _below(text: str) -> str:
    return fill(
        text,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
