"""A recorded stream as the one answer that it amounts to.

Which API streamed is told from the events, not from a name: many speak OpenAI's dialect, and
some use two.  The result is close to what the same API answers without streaming.  Whatever is
not understood is handed back as it came, behind the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from llmproxyd.http.framing import Framing
from llmproxyd.http.sse import DONE, EventReader

Json = dict[str, object]
Assembler = Callable[[list[Json]], Json]

LEFT_OVER = "[not understood]"
"""Stands before what could not be read."""

_FRAMINGS = {
    "lines": Framing.NDJSON,
    "progress": Framing.NDJSON,
    "chat_v1": Framing.NDJSON,
    "array": Framing.JSON_ARRAY,
    "events": Framing.EVENT_STREAM,
}
"""By the name of a :class:`~llmproxyd.providers.base.StreamForm`; all others are looked at."""


def assemble(form: str, data: bytes) -> str:
    """*data* as one JSON text, or decoded as it is if nothing in it is understood.

    :param form: name of the stream form; for one that is not known the data tell the framing.
    :param data: of the stream, in the clear; it may break off anywhere.
    """
    events, rest = _events(_FRAMINGS.get(form) or _framing(data), data)
    found = _assembler(events)
    if found is None:
        return data.decode("utf-8", "backslashreplace")
    try:
        text = json.dumps(_plain(found(events)), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "backslashreplace")
    if rest:
        text += f"\n\n{LEFT_OVER}\n" + b"\n".join(rest).decode("utf-8", "backslashreplace")
    return text


def _framing(data: bytes) -> Framing:
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"{":
        return Framing.NDJSON
    return Framing.JSON_ARRAY if start == b"[" else Framing.SSE


def _events(framing: Framing, data: bytes) -> tuple[list[Json], list[bytes]]:
    """The objects in *data*, and what is none."""
    reader = EventReader(framing, len(data) + 1)
    events: list[Json] = []
    rest = []
    for name, content in [*reader.feed(data), *reader.end()]:
        value = _object(content)
        if value is not None:
            if framing is Framing.EVENT_STREAM:
                value = {"type": name, **value}
            elif name == "error" and "error" not in value:
                value = {"error": value}
            events.append(value)
        elif content != DONE:
            rest.append(content)
    return events, rest


def _object(data: bytes) -> Json | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _assembler(events: list[Json]) -> Assembler | None:
    """Who understands *events*: the first of them that is not an error tells."""
    for event in events:
        kind = _text(event.get("type")) or _text(event.get("event_type"))
        if "choices" in event:
            return _openai
        if kind.startswith("response."):
            return _responses
        if kind in ("message_start", "content_block_start", "content_block_delta"):
            return _anthropic
        if kind in ("message-start", "content-start", "content-delta", "tool-call-start"):
            return _cohere
        if kind in ("stream-start", "text-generation", "stream-end"):
            return _cohere_v1
        if kind in ("messageStart", "contentBlockStart", "contentBlockDelta"):
            return _bedrock
        if "candidates" in event or "promptFeedback" in event:
            return _gemini
        if "done" in event or ("content" in event and "stop" in event):
            return _joined
    return (lambda found: found[0]) if len(events) == 1 and "error" in events[0] else None


class _Text(list[str]):
    """A text that comes in pieces; they are joined once, at the end."""


def _plain(value: object) -> object:
    """*value* with its texts joined."""
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _add(target: Json, name: str, piece: object) -> None:
    """Let the text *name* in *target* go on with *piece*."""
    if isinstance(piece, str):
        present = target.get(name)
        if isinstance(present, _Text):
            present.append(piece)
        else:
            target[name] = _Text([*([present] if isinstance(present, str) else []), piece])


_NAMES = frozenset({"id", "type", "role", "name", "object", "index", "format", "signature"})
"""Members that come whole, however often."""


class _Items(list[object]):
    """A list that comes in pieces.

    :ivar known: its objects by their ``index``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, Json] = {}


def _merge(target: Json, delta: Json, whole: frozenset[str] = _NAMES) -> None:
    """Let *delta* change *target*: texts go on, lists grow by their ``index``, the rest is replaced."""
    for name, value in delta.items():
        present = target.get(name)
        if isinstance(value, str) and name not in whole:
            _add(target, name, value)
        elif isinstance(value, dict):
            if not isinstance(present, dict):
                target[name] = present = {}
            _merge(present, value, whole)
        elif isinstance(value, list):
            if not isinstance(present, _Items):
                target[name] = present = _Items()
            _merge_items(present, value, whole)
        elif name not in target or value not in (None, ""):
            target[name] = value


def _merge_items(items: _Items, delta: list[object], whole: frozenset[str]) -> None:
    for value in delta:
        if not isinstance(value, dict):
            items.append(value)
            continue
        index = value.get("index")
        item = items.known.get(index) if isinstance(index, int) else None
        if item is None:
            item = {}
            items.append(item)
            if isinstance(index, int):
                items.known[index] = item
        _merge(item, value, whole)


def _last(events: Iterable[Json], without: tuple[str, ...]) -> Json:
    """The members of all *events*, the last one of each that is not null."""
    found: Json = {}
    for event in events:
        for name, value in event.items():
            if name not in without and (value is not None or name not in found):
                found[name] = value
    return found


def _openai(events: list[Json]) -> Json:
    """Chat completions and completions, of OpenAI and all that speak as it does."""
    answer = _last(events, ("choices",))
    if _text(answer.get("object")).endswith(".chunk"):
        answer["object"] = _text(answer["object"]).removesuffix(".chunk")
    choices: dict[int, Json] = {}
    for event in events:
        for choice in _dicts(event.get("choices")):
            index = _index(choice)
            known = choices.setdefault(index, {"index": index})
            for name, value in choice.items():
                if name == "delta":
                    _merge(_dict(known.setdefault("message", {})), _dict(value))
                elif name == "text":
                    _add(known, name, value)
                elif value is not None or name not in known:
                    known[name] = value
    for choice in choices.values():
        # Places in the stream: whole answers have none.
        for call in _dicts(_dict(choice.get("message")).get("tool_calls")):
            call.pop("index", None)
    return {**answer, "choices": [choices[index] for index in sorted(choices)]}


def _index(value: Json) -> int:
    index = value.get("index")
    return index if isinstance(index, int) else 0


def _responses(events: list[Json]) -> Json:
    """OpenAI's responses: the last event holds the whole answer, if it came."""
    answer: Json = {}
    items: dict[int, Json] = {}
    for event in events:
        kind = _text(event.get("type"))
        at = event.get("output_index")
        at = at if isinstance(at, int) else 0
        if isinstance(event.get("response"), dict):
            answer = _dict(event["response"])
        elif kind in ("response.output_item.added", "response.output_item.done"):
            items[at] = dict(_dict(event.get("item")))
        elif kind.endswith(".delta"):
            name = kind.removeprefix("response.").removesuffix(".delta").rpartition(".")[2]
            _add(items.setdefault(at, {}), _RESPONSE_TEXTS.get(name, name), event.get("delta"))
        elif kind == "error" or "error" in event:
            answer = {**answer, "error": event.get("error", event)}
    if answer.get("output") or not items:
        return answer
    return {**answer, "output": [items[at] for at in sorted(items)]}


_RESPONSE_TEXTS = {"output_text": "text", "function_call_arguments": "arguments"}


def _anthropic(events: list[Json]) -> Json:
    """Anthropic's messages."""
    answer: Json = {}
    blocks: dict[int, Json] = {}
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            answer |= _dict(event.get("message"))
        elif kind == "content_block_start":
            blocks[_index(event)] = dict(_dict(event.get("content_block")))
        elif kind == "content_block_delta":
            _block(blocks.setdefault(_index(event), {}), _dict(event.get("delta")))
        elif kind == "message_delta":
            answer |= _dict(event.get("delta"))
            answer["usage"] = {**_dict(answer.get("usage")), **_dict(event.get("usage"))}
        elif kind == "error":
            answer["error"] = event.get("error")
    for block in blocks.values():
        if "partial_json" in block:
            block["input"] = _parsed(block.pop("partial_json"))
    return {**answer, "content": [blocks[index] for index in sorted(blocks)]}


def _block(block: Json, delta: Json) -> None:
    for name, value in delta.items():
        if name == "citation":
            _merge(block, {"citations": [value]})
        elif name != "type":
            _add(block, name, value)


def _parsed(pieces: object) -> object:
    """The arguments of a call, as text where they broke off."""
    text = _text(_plain(pieces))
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return text


def _gemini(events: list[Json]) -> Json:
    """Gemini's generation, whether streamed as events or as one array."""
    candidates: dict[int, Json] = {}
    for event in events:
        for candidate in _dicts(event.get("candidates")):
            known = candidates.setdefault(_index(candidate), {"content": {"parts": []}})
            content = _dict(known["content"])
            parts = content["parts"]
            assert isinstance(parts, list)
            for part in _dicts(_dict(candidate.get("content")).get("parts")):
                _part(parts, part)
            content |= {k: v for k, v in _dict(candidate.get("content")).items() if k != "parts"}
            known |= {name: value for name, value in candidate.items() if name != "content"}
    return {"candidates": [candidates[at] for at in sorted(candidates)], **_last(events, ("candidates",))}


def _part(parts: list[Json], part: Json) -> None:
    """Add *part*; a text goes on with the one before it, if both are of one kind."""
    before = parts[-1] if parts else {}
    plain = part.keys() <= {"text", "thought"} and before.keys() <= {"text", "thought"}
    if plain and "text" in part and "text" in before and part.get("thought") == before.get("thought"):
        _add(before, "text", part["text"])
    else:
        parts.append(dict(part))


def _cohere(events: list[Json]) -> Json:
    """Cohere's chat, version 2."""
    answer: Json = {}
    message: Json = {}
    parts: dict[str, dict[int, Json]] = {"content": {}, "tool_calls": {}}
    for event in events:
        delta = _dict(event.get("delta"))
        told = _dict(delta.get("message"))
        if event.get("type") == "message-start":
            answer["id"] = event.get("id")
            message |= told
        elif event.get("type") == "message-end":
            answer |= delta
        else:
            for name, known in parts.items():
                if isinstance(told.get(name), dict):
                    _merge(known.setdefault(_index(event), {}), _dict(told[name]))
            _add(message, "tool_plan", told.get("tool_plan"))
            if isinstance(told.get("citations"), dict):
                _merge(message, {"citations": [told["citations"]]})
    for name, known in parts.items():
        if known:
            message[name] = [known[at] for at in sorted(known)]
    return {"id": answer.pop("id", None), "message": message, **answer}


def _cohere_v1(events: list[Json]) -> Json:
    """Cohere's chat, version 1: its last event holds the whole answer, if it came."""
    answer: Json = {}
    for event in events:
        if event.get("event_type") == "stream-end":
            return {**_dict(event.get("response")), "finish_reason": event.get("finish_reason")}
        if event.get("event_type") == "text-generation":
            _add(answer, "text", event.get("text"))
    return answer


def _bedrock(events: list[Json]) -> Json:
    """Bedrock's converse."""
    answer: Json = {}
    message: Json = {}
    blocks: dict[int, Json] = {}
    for event in events:
        kind = _text(event.pop("type", None))
        block = event.get("contentBlockIndex", 0)
        if kind == "messageStart":
            message |= event
        elif kind in ("contentBlockStart", "contentBlockDelta"):
            change = _dict(event.get("start" if kind == "contentBlockStart" else "delta"))
            _merge(blocks.setdefault(block if isinstance(block, int) else 0, {}), change, _BEDROCK_NAMES)
        elif kind in ("messageStop", "metadata"):
            answer |= event
        elif kind.startswith("exception"):
            answer["error"] = {"type": kind.partition(":")[2], **event}
    content = [blocks[at] for at in sorted(blocks)]
    return {"output": {"message": {**message, "content": content}}, **answer}


_BEDROCK_NAMES = frozenset({"toolUseId", "name", "signature"})


def _joined(events: list[Json]) -> Json:
    """Ollama's chat and generation, llama.cpp's completion: texts go on, the last event tells the rest."""
    texts = ("message", "response", "thinking", "content")
    answer = _last(events, texts)
    for event in events:
        _merge(answer, {name: event[name] for name in texts if name in event})
    return answer
