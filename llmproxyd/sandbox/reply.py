"""What the sandbox says: from a neutral prompt to a neutral reply.  Pure and deterministic.

A token is a word, or a part of eight characters of a longer one, with the white space before
it; the tokens of a text joined give exactly that text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llmproxyd.sandbox.values import Json, loads, text_json

MAX_ECHO = 32 * 1024
"""Bytes of a message that are echoed; the rest is dropped."""

DEFAULT_MODEL = "sandbox-echo"

_PIECE = re.compile(r"\s?\S{1,8}|\s{1,8}")
_CALL = re.compile(r"\s*call\s+(\S+)\s+(\{.*\})\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request of any dialect comes down to.

    :param text: of the last user message, or of the tool's result when *result* is set.
    :param tokens: number of tokens of the whole input.
    :param tools: names of the tools on offer.
    :param result: the last message brings the result of a tool.
    """

    model: str
    text: str
    tokens: int
    tools: frozenset[str] = frozenset()
    result: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of the tool *name*: its arguments as a value and as JSON text."""

    name: str
    value: Json
    text: str

    def deltas(self) -> list[str]:
        """The arguments' text in at least two parts of at most 12 characters."""
        size = max(1, min(12, (len(self.text) + 1) // 2))
        return [self.text[at : at + size] for at in range(0, len(self.text), size)]


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, in any dialect: a text or the call of a tool.

    :param id: 24 hexadecimal digits that depend on nothing but the request's body.
    :param pieces: the text's tokens; empty for a tool call.
    """

    id: str
    model: str
    pieces: tuple[str, ...]
    call: ToolCall | None
    input_tokens: int
    output_tokens: int

    @property
    def text(self) -> str:
        """The whole text, empty for a tool call."""
        return "".join(self.pieces)

    @property
    def total_tokens(self) -> int:
        """Tokens of input and output."""
        return self.input_tokens + self.output_tokens


def pieces(text: str) -> list[str]:
    """The tokens of *text*."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """The number of tokens of *text*, counted without storing them."""
    return sum(1 for _ in _PIECE.finditer(text))


def clip(text: str) -> str:
    """The first :data:`MAX_ECHO` bytes of *text*, cut between characters, fit for UTF-8."""
    return text[:MAX_ECHO].encode("utf-8", "replace")[:MAX_ECHO].decode("utf-8", "ignore")


def request_id(seed: bytes) -> str:
    """24 hexadecimal digits of *seed*."""
    return hashlib.sha256(seed).hexdigest()[:24]


def answer(prompt: Prompt, seed: bytes) -> Reply:
    """The reply to *prompt*; *seed* (the request's body) determines its id."""
    call = None if prompt.result else _tool_call(prompt)
    said: tuple[str, ...] = ()
    if call is None:
        opening = "Tool result received: " if prompt.result else "You said: "
        said = tuple(pieces(opening + clip(prompt.text)))
    return Reply(
        id=request_id(seed),
        model=prompt.model or DEFAULT_MODEL,
        pieces=said,
        call=call,
        input_tokens=prompt.tokens,
        output_tokens=count(call.name) + count(call.text) if call else len(said),
    )


def _tool_call(prompt: Prompt) -> ToolCall | None:
    """The call that the message asks for, when it names a tool on offer and a JSON object."""
    match = _CALL.fullmatch(prompt.text) if prompt.tools else None
    if match is None or match.group(1) not in prompt.tools:
        return None
    try:
        value = loads(match.group(2))
    except (ValueError, RecursionError):
        return None
    return ToolCall(match.group(1), value, text_json(value)) if isinstance(value, dict) else None


def text_of(content: object) -> str:
    """The text of a message's content in any dialect.

    Content is a string, or a list of parts, or an object that holds one of these as ``text``,
    ``content`` or ``parts``.  Parts of other kinds (images, calls) have no text; the texts of
    several parts stand on lines of their own.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text for text in map(text_of, content) if text)
    if isinstance(content, dict):
        for key in ("text", "content", "parts", "output"):
            if content.get(key):
                return text_of(content[key])
    return ""


def prompt_from(
    messages: Sequence[Json],
    *,
    model: str,
    result_of: Callable[[Json], str | None],
    tools: Iterable[str] = (),
    system: object = None,
) -> Prompt:
    """The prompt of a conversation.

    :param messages: oldest first, not empty.
    :param result_of: the text of the tool's result that a message brings, ``None`` for any
        other message.
    :param system: instructions that stand beside the messages; counted, never echoed.
    """
    tokens = count(text_of(system))
    for message in messages:
        brought = result_of(message)
        tokens += count(text_of(message) if brought is None else brought)
    result = result_of(messages[-1])
    text = _last_said(messages) if result is None else result
    return Prompt(model, text, tokens, frozenset(tools), result is not None)


def _last_said(messages: Sequence[Json]) -> str:
    """The text of the last message of a user, or of the last one if no user spoke."""
    for message in reversed(messages):
        # Gemini's contents and the responses API's items may leave the role out.
        if message.get("role", "user") == "user":
            return text_of(message)
    return text_of(messages[-1])
