"""Values that become JSON: plain scalars by the core rules of YAML 1.2, anything else as it is.

Of all settings these alone have no type of their own, so that the way a scalar is written
decides (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import math
import re

from llmproxyd.config.tree import Listing, Node, Scalar
from llmproxyd.transform.rules import JSONValue

MAX_DIGITS = 400
"""Of a whole number.  The longest float has 309."""

_WORDS: dict[str, bool] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def json_value(node: Node) -> JSONValue:
    """The value of *node*.

    :raises ValueError: JSON has no such number.
    """
    if isinstance(node, Scalar):
        return _scalar(node)
    if isinstance(node, Listing):
        return [json_value(item) for item in node.items]
    return {name: json_value(entry.value) for name, entry in node.entries.items()}


def _scalar(node: Scalar) -> JSONValue:
    text = node.text
    if not node.plain:
        return text
    if node.is_null:
        return None
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_JSON.fullmatch(text):
        raise ValueError("JSON has no such number; in quotes it is a text")
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise ValueError(f"a number of more than {MAX_DIGITS} digits")
            return int(text, base)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("the number is too large; in quotes it is a text")
        return number
    return text
