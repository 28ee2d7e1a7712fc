"""The variables of the programs that presets stand in for: ``PORT``, ``TIMEOUT`` and so on.

A preset says in a table of its own, ``environment``, which it knows, what each is worth when
nobody set it (where that is not our own default), what it sets, and which words of that program
mean which of ours; case does not matter in them::

    environment:
      TIMEOUT: {default: 300, sets: [timeouts.headers, timeouts.idle]}
      LOG_FORMAT: {sets: [logging.format], words: {console: text}}

``listen.host`` and ``listen.port`` make up ``listen`` together.  They hold with that preset alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.config.listening import listen_on
from llmproxyd.config.problems import Problem
from llmproxyd.config.tree import Entry, Layer, Listing, Node, Scalar, Source, Table, insert

KEY = "environment"

_HOST, _PORT = "listen.host", "listen.port"
_MAY_BE_EMPTY = ("server.path_prefix",)
"""Where an empty variable says something; elsewhere it is as good as none."""


def settings_of(preset: Table, environ: Mapping[str, str]) -> tuple[Table, Table, list[Problem]]:
    """The *preset* without its table of variables, what *environ* sets, and what is wrong with that.

    The first holds the variables' defaults.
    """
    entries = dict(preset.entries)
    declared = entries.pop(KEY, None)
    given: dict[str, Entry] = {}
    listening: dict[str, tuple[str, Scalar]] = {}
    for variable, entry in _below(declared.value if declared else None).items():
        known = _below(entry.value)
        value = _scalar(known["default"].value) if "default" in known else None
        words = _below(known["words"].value) if "words" in known else {}
        for item in _items(known["sets"].value):
            place = _scalar(item).text
            if place in (_HOST, _PORT):
                assert value is not None
                listening[place] = (variable, value)
            elif value is not None:
                insert(entries, tuple(place.split(".")), value)
            text = environ.get(variable, "")
            if text.lower() in words:
                text = _scalar(words[text.lower()].value).text
            if text or (variable in environ and place in _MAY_BE_EMPTY):
                source = Source(Layer.ENVIRONMENT, f"environment {variable}")
                set_ = Scalar(text, source, plain=bool(text))
                if place in (_HOST, _PORT):
                    listening[place] = (variable, set_)
                else:
                    insert(given, tuple(place.split(".")), set_)
    problems = _listen(listening, entries, given) if listening else []
    environment = Source(Layer.ENVIRONMENT, "environment")
    return Table(entries, preset.source), Table(given, environment), problems


def _listen(
    listening: Mapping[str, tuple[str, Scalar]], preset: dict[str, Entry], given: dict[str, Entry]
) -> list[Problem]:
    """Put ``listen`` into the layer that the stronger one of host and port comes from."""
    (_, host), (_, port) = listening[_HOST], listening[_PORT]
    stronger = max((port, host), key=lambda node: node.source.layer.value)
    value, problems = listen_on(host, port, ("listen", "listen"), stronger.source)
    if value is not None:
        layer = given if stronger.source.layer is Layer.ENVIRONMENT else preset
        layer["listen"] = Entry(stronger.source, value)
    return problems


def _below(node: Node | None) -> Mapping[str, Entry]:
    return node.entries if isinstance(node, Table) else {}


def _items(node: Node) -> tuple[Node, ...]:
    assert isinstance(node, Listing)
    return node.items


def _scalar(node: Node) -> Scalar:
    assert isinstance(node, Scalar)
    return node
