"""Vectors that depend on nothing but the text and their length; OpenAI's embeddings.  Pure.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct

from llmproxyd.sandbox.reply import DEFAULT_MODEL, count, text_of
from llmproxyd.sandbox.values import Answer, Ask, Json, as_text, bad_request, text_json, whole

DIMENSIONS = 8
MAX_DIMENSIONS = 8192


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The unit vector of *text*."""
    digest = hashlib.shake_256(text.encode("utf-8", "replace")).digest(2 * dimensions)
    # Halved odd numbers: no component, and so no length, is ever zero.
    raw = [number + 0.5 for number in struct.unpack(f"<{dimensions}h", digest)]
    length = math.sqrt(math.fsum(number * number for number in raw))
    return [round(number / length, 7) for number in raw]


def dimensions_in(body: Json, name: str = "dimensions") -> int:
    """The length of vector that *body* asks for.

    :raises Refused: it is no number of 1 … :data:`MAX_DIMENSIONS`.
    """
    wanted = body.get(name)
    if wanted is None:
        return DIMENSIONS
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= MAX_DIMENSIONS:
        raise bad_request(f"'{name}' must be an integer between 1 and {MAX_DIMENSIONS}.")
    return wanted


def inputs(value: object) -> list[str]:
    """The texts to embed: a string, a list of strings, a list of tokens, or a list of such.

    Tokens have no text here: their JSON stands for it.

    :raises Refused: *value* holds nothing to embed.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, int) for item in value):
            return [text_json(value)]
        return [item if isinstance(item, str) else text_of(item) or text_json(item) for item in value]
    raise bad_request("Missing required parameter: 'input' must be a string or a non-empty array.")


def embeddings(ask: Ask) -> Answer:
    """``POST …/embeddings``; vectors as numbers, or as little-endian floats in base64."""
    body = ask.json()
    texts = inputs(body.get("input"))
    dimensions = dimensions_in(body)
    packed = body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        found = vector(text, dimensions)
        data.append({"object": "embedding", "index": index, "embedding": _packed(found) if packed else found})
    tokens = sum(map(count, texts))
    return whole(
        {
            "object": "list",
            "data": data,
            "model": as_text(body.get("model")) or ask.named or DEFAULT_MODEL,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _packed(found: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(found)}f", *found)).decode()
