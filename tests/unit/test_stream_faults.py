"""What each kind of breakage does to a stream, where, and what is left alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest

from llmproxyd.faults.rules import At, Breakage, Manner, Spot
from llmproxyd.faults.stream import (
    ANYWHERE,
    CHANGES,
    DEFAULT_AT,
    IN_BODY,
    KEEP_LENGTH,
    Break,
    Finish,
    Player,
    Send,
    Step,
    Wait,
    wrong_length,
)
from llmproxyd.providers import anthropic, cohere, google, ollama, openai
from llmproxyd.providers.base import StreamForm, Usage, encode

CHAT = openai.CHAT_STREAM


def chunk(content: str | None = None, finish: str | None = None, **members: object) -> bytes:
    delta = {} if content is None else {"content": content}
    value = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **members}
    return b"data: " + encode(value) + b"\n\n"


ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
ONE, TWO, THREE = chunk("one"), chunk("two"), chunk("three")
STOP = chunk(None, "stop")
COUNTS = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
EVENTS = [ROLE, ONE, TWO, THREE, STOP, COUNTS, DONE]
STREAM = b"".join(EVENTS)
ERROR = b'data: {"error":{"message":"x"}}\n\n'
END = Finish()


def run(player: Player, pieces: Iterable[bytes]) -> list[Step]:
    """All steps for a stream that comes in *pieces*; what is sent without a wait is one step."""
    found: list[Step] = []
    for step in itertools.chain(*map(player.feed, pieces), player.end()):
        if isinstance(step, Send) and found and isinstance(found[-1], Send):
            found[-1] = Send(found[-1].data + step.data)
        else:
            found.append(step)
    return found


def played(
    kind: Breakage,
    at: At | None = None,
    *,
    stream: bytes = STREAM,
    form: StreamForm | None = CHAT,
    length: int | None = None,
    usage: Usage | None = openai.CHAT_USAGE,
    limit: int = 10_000,
    error: bytes | None = ERROR,
    reached: bool = True,
    **manner: float,
) -> list[Step]:
    """The steps for *stream*, which are the same however its bytes come."""
    found = []
    for size in (len(stream) or 1, 1, 7):
        player = Player(
            kind,
            Manner(at=at, **manner),  # type: ignore[arg-type]
            form=form,
            length=length,
            usage=usage,
            error_event=lambda: error,
            limit=limit,
        )
        found.append(run(player, (stream[at : at + size] for at in range(0, len(stream), size))))
        assert player.reached is reached
        assert player.over
        assert player.feed(b"more") == player.end() == []
    assert found[0] == found[1] == found[2]
    ends = [step for step in found[0] if isinstance(step, (Break, Finish))]
    assert ends == found[0][-1:], "it ends once, and that is the last step"
    return found[0]


def sent(*events: bytes) -> list[Step]:
    return [Send(b"".join(events))]


START, TOOL, CLOSE = At(Spot.START), At(Spot.TOOL), At(Spot.END)


def after(number: int) -> At:
    return At(Spot.EVENTS, number)


# -- what ends a stream, and where -------------------------------------------------------

SPOTS = [
    (None, [ROLE, ONE]),
    (START, [ROLE]),
    (after(0), [ROLE]),
    (after(1), [ROLE, ONE]),
    (after(3), [ROLE, ONE, TWO, THREE]),
    (CLOSE, [ROLE, ONE, TWO, THREE]),
    (At(Spot.BYTES, 0), []),
    (At(Spot.BYTES, 10), [ROLE[:10]]),
    (At(Spot.BYTES, len(ROLE)), [ROLE]),
    (At(Spot.BYTES, len(STREAM)), EVENTS),
    (At(Spot.PERCENT, 0), []),
    (At(Spot.PERCENT, 50), [STREAM[: len(STREAM) // 2]]),
    (At(Spot.PERCENT, 100), EVENTS),
]
by_spot = pytest.mark.parametrize(("at", "before"), SPOTS, ids=lambda one: str(one)[:30])


@by_spot
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        (Breakage.CUT, Break(reset=False)),
        (Breakage.RESET, Break(reset=True)),
        (Breakage.TRUNCATE, Finish()),
    ],
)
def test_the_stream_ends_at_the_spot(at: At | None, before: list[bytes], kind: Breakage, end: Step) -> None:
    opening = sent(*before) if before else []
    assert played(kind, at, length=len(STREAM)) == [*opening, end]


@by_spot
@pytest.mark.parametrize("silence", [None, 2.5])
def test_a_stalled_stream_goes_on_after_the_silence(
    at: At | None, before: list[bytes], silence: float | None
) -> None:
    steps = played(Breakage.STALL, at, length=len(STREAM), silence=silence)  # type: ignore[arg-type]
    begun = b"".join(before)
    expected = [Send(begun), Wait(silence), Send(STREAM[len(begun) :]), END]
    assert steps == [step for step in expected if step != Send(b"")]


@pytest.mark.parametrize(
    ("at", "before"),
    [
        (None, [ROLE, ONE]),
        (START, [ROLE]),
        (after(2), [ROLE, ONE, TWO]),
        (CLOSE, [ROLE, ONE, TWO, THREE]),
        (At(Spot.BYTES, 0), []),
        (At(Spot.BYTES, 1), [ROLE]),
        (At(Spot.BYTES, len(ROLE)), [ROLE]),
        (At(Spot.BYTES, len(ROLE) + 1), [ROLE, ONE]),
        (At(Spot.PERCENT, 100), EVENTS),
    ],
)
def test_an_error_event_comes_between_events_and_the_stream_ends_well(
    at: At | None, before: list[bytes]
) -> None:
    assert played(Breakage.STREAM_ERROR, at, length=len(STREAM)) == [*sent(*before, ERROR), END]


def test_a_form_without_an_error_event_is_cut() -> None:
    assert played(Breakage.STREAM_ERROR, error=None) == [*sent(ROLE, ONE), Break(reset=False)]


def test_an_error_event_is_no_part_of_an_event_that_was_left_without_its_end() -> None:
    for end in (b"", b"\n", b"\n\n"):
        stream = ROLE + ONE.rstrip(b"\n") + end
        assert played(Breakage.STREAM_ERROR, stream=stream) == [*sent(ROLE, ONE, ERROR), END]
    line, error = b'{"message":{"content":"x"}}', b'{"error":"x"}\n'
    steps = played(Breakage.STREAM_ERROR, stream=line, form=ollama.STREAM, error=error)
    assert steps == [*sent(line, b"\n", error), END]


def test_the_error_event_is_made_when_it_is_needed() -> None:
    asked: list[bytes] = []

    def error() -> bytes:
        asked.append(ERROR)
        return ERROR

    player = Player(Breakage.STREAM_ERROR, Manner(at=after(2)), form=CHAT, error_event=error)
    player.feed(ROLE + ONE)
    assert asked == []
    assert player.feed(TWO) == [Send(TWO + ERROR), END]
    assert asked == [ERROR]
    assert player.end() == []


def test_what_happens_behind_an_event_does_not_wait_for_the_next_one() -> None:
    player = Player(Breakage.STALL, Manner(at=after(1)), form=CHAT)
    assert player.feed(ROLE + ONE) == [Send(ROLE + ONE), Wait(None)]
    assert player.reached
    assert player.feed(TWO[:5]) == [Send(TWO[:5])], "what follows is not held back"


def test_half_an_event_behind_the_spot_is_not_lost() -> None:
    player = Player(Breakage.STALL, Manner(at=after(1)), form=CHAT)
    assert player.feed(ROLE + ONE + TWO[:5]) == [Send(ROLE + ONE), Wait(None), Send(TWO[:5])]


@pytest.mark.parametrize("kind", sorted(ANYWHERE | CHANGES | {Breakage.STREAM_ERROR}))
@pytest.mark.parametrize(
    ("at", "length"),
    [
        (after(5), None),
        (TOOL, None),
        (At(Spot.BYTES, len(STREAM) + 1), None),
        (At(Spot.PERCENT, 1), None),
        (At(Spot.PERCENT, 60), 2 * len(STREAM)),
    ],
    ids=str,
)
def test_a_stream_that_ends_before_the_spot_passes_unchanged(
    kind: Breakage, at: At, length: int | None
) -> None:
    assert played(kind, at, length=length, reached=False) == [*sent(STREAM), END]


@pytest.mark.parametrize("kind", sorted(IN_BODY))
@pytest.mark.parametrize("form", [CHAT, None], ids=["stream", "one piece"])
def test_an_answer_of_nothing_stays_so(kind: Breakage, form: StreamForm | None) -> None:
    assert played(kind, stream=b"", form=form, reached=False) == [END]


@pytest.mark.parametrize("kind", sorted(set(Breakage) - IN_BODY))
@pytest.mark.parametrize("form", [CHAT, None], ids=["stream", "one piece"])
def test_kinds_that_do_not_concern_the_body_let_it_pass(kind: Breakage, form: StreamForm | None) -> None:
    assert played(kind, form=form, length=len(STREAM), reached=False) == [*sent(STREAM), END]


def test_a_stream_without_content_has_no_beginning_of_it() -> None:
    stream = ROLE + COUNTS + DONE
    assert played(Breakage.CUT, START, stream=stream, reached=False) == [*sent(stream), END]
    assert played(Breakage.CUT, CLOSE, stream=stream) == [*sent(ROLE, COUNTS), Break(reset=False)]


def test_an_error_of_the_upstream_is_no_content() -> None:
    assert played(Breakage.CUT, stream=ROLE + ERROR, reached=False) == [*sent(ROLE, ERROR), END]


# -- the arguments of a call -------------------------------------------------------------


def call(arguments: str, **more: object) -> bytes:
    calls = [{"index": 0, "function": {"arguments": arguments, **more}}]
    return b"data: " + encode({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}) + b"\n\n"


NAME, FIRST, SECOND, LAST = call("", name="f"), call('{"a":'), call('"b'), call('"}')
FINISHED = chunk(None, "tool_calls")
CALLS = [ROLE, ONE, NAME, FIRST, SECOND, LAST, FINISHED, DONE]
CALLING = b"".join(CALLS)
ALONE = call('{"a":"b"}')


def half(event: bytes) -> bytes:
    return event[: len(event) // 2]


@pytest.mark.parametrize("kind", [Breakage.CUT, Breakage.RESET])
@pytest.mark.parametrize(
    ("events", "before"),
    [
        (CALLS, [ROLE, ONE, NAME, FIRST, half(SECOND)]),
        ([ROLE, NAME, FIRST, b": x\n\n", ROLE, SECOND], [ROLE, NAME, FIRST, b": x\n\n", ROLE, half(SECOND)]),
        ([ROLE, ALONE, FINISHED, DONE], [ROLE, half(ALONE)]),
        ([ROLE, FIRST, FINISHED, DONE], [ROLE, FIRST]),
        ([ROLE, FIRST, DONE], [ROLE, FIRST]),
        ([ROLE, FIRST, TWO, SECOND], [ROLE, FIRST]),
    ],
)
def test_a_cut_is_within_the_arguments(kind: Breakage, events: list[bytes], before: list[bytes]) -> None:
    steps = played(kind, TOOL, stream=b"".join(events))
    assert steps == [*sent(*before), Break(reset=kind is Breakage.RESET)]


@pytest.mark.parametrize(
    ("events", "before"),
    [(CALLS, [ROLE, ONE, NAME, FIRST]), ([ROLE, ALONE, FINISHED, DONE], [ROLE, ALONE])],
)
def test_what_needs_whole_events_comes_behind_the_first_arguments(
    events: list[bytes], before: list[bytes]
) -> None:
    stream, begun = b"".join(events), b"".join(before)
    assert played(Breakage.TRUNCATE, TOOL, stream=stream) == [*sent(begun), END]
    assert played(Breakage.STREAM_ERROR, TOOL, stream=stream) == [*sent(begun, ERROR), END]
    rest = stream[len(begun) :]
    assert played(Breakage.STALL, TOOL, stream=stream) == [*sent(begun), Wait(None), *sent(rest), END]


def test_the_event_in_which_arguments_go_on_is_the_one_that_changes() -> None:
    assert played(Breakage.DUPLICATE, TOOL, stream=CALLING) == [*sent(*CALLS[:5], SECOND, *CALLS[5:]), END]
    turned = [*CALLS[:4], LAST, SECOND, *CALLS[6:]]
    assert played(Breakage.REORDER, TOOL, stream=CALLING) == [*sent(*turned), END]
    stream = ROLE + ALONE + FINISHED + DONE
    assert played(Breakage.DUPLICATE, TOOL, stream=stream) == [*sent(ROLE, ALONE, ALONE, FINISHED, DONE), END]


def test_a_call_without_arguments_has_no_such_spot() -> None:
    stream = ROLE + NAME + call("") + FINISHED + DONE
    assert played(Breakage.CUT, TOOL, stream=stream, reached=False) == [*sent(stream), END]


# -- events that change ------------------------------------------------------------------

TARGETS = [
    (START, 1),
    (None, 2),
    (after(1), 2),
    (after(2), 3),
    (CLOSE, 4),
    (At(Spot.BYTES, len(ROLE) + 1), 1),
    (At(Spot.BYTES, len(ROLE + ONE)), 2),
    (At(Spot.PERCENT, 0), 0),
]
by_target = pytest.mark.parametrize(("at", "number"), TARGETS, ids=lambda one: str(one)[:30])


@by_target
def test_one_event_is_no_json_any_more(at: At | None, number: int) -> None:
    (first, end) = played(Breakage.GARBAGE, at, length=len(STREAM))
    assert isinstance(first, Send)
    events = [event + b"\n\n" for event in first.data.split(b"\n\n")][:-1]
    assert [*events[:number], EVENTS[number], *events[number + 1 :]] == EVENTS
    assert end == END
    data = events[number].removeprefix(b"data: ")
    assert EVENTS[number].startswith(events[number].rstrip(b"\n"))
    with pytest.raises(json.JSONDecodeError):
        json.loads(data)


def test_garbage_breaks_off_between_characters() -> None:
    for text in ("é" * 10, "é" * 11, "漢" * 10, "漢" * 12, "x😀"):
        (first, _) = played(Breakage.GARBAGE, START, stream=chunk(text))
        assert isinstance(first, Send)
        first.data.decode()


@by_target
def test_one_event_comes_twice(at: At | None, number: int) -> None:
    twice = [*EVENTS[:number], EVENTS[number], *EVENTS[number:]]
    assert played(Breakage.DUPLICATE, at, length=len(STREAM)) == [*sent(*twice), END]


@by_target
def test_one_event_comes_behind_the_next(at: At | None, number: int) -> None:
    turned = [*EVENTS[:number], EVENTS[number + 1], EVENTS[number], *EVENTS[number + 2 :]]
    assert played(Breakage.REORDER, at, length=len(STREAM)) == [*sent(*turned), END]


def test_events_that_say_nothing_are_passed_over_for_the_next_that_does() -> None:
    stream = ONE + ROLE + b": x\n\n" + TWO + DONE
    assert played(Breakage.DUPLICATE, stream=stream) == [*sent(ONE, ROLE, b": x\n\n", TWO, TWO, DONE), END]
    stream = COUNTS + ROLE + ONE + DONE
    assert played(Breakage.DUPLICATE, At(Spot.BYTES, len(COUNTS)), stream=stream) == [
        *sent(COUNTS, ROLE, ONE, ONE, DONE), END
    ]  # fmt: skip


def test_signs_of_life_are_not_what_an_event_is_swapped_with() -> None:
    stream = ONE + b": x\n\n" + TWO + DONE
    assert played(Breakage.REORDER, START, stream=stream) == [*sent(b": x\n\n", TWO, ONE, DONE), END]


def test_the_last_event_has_none_to_be_swapped_with() -> None:
    assert played(Breakage.REORDER, stream=ROLE + ONE + TWO, reached=False) == [*sent(ROLE, ONE, TWO), END]


def test_a_last_event_without_its_end_is_one_for_all_that_changes() -> None:
    stream = ONE + TWO.rstrip(b"\n")
    assert played(Breakage.DUPLICATE, stream=stream) == [*sent(ONE, TWO, TWO.rstrip(b"\n")), END]
    assert played(Breakage.REORDER, START, stream=stream) == [*sent(TWO, ONE), END]
    assert played(Breakage.TRUNCATE, CLOSE, stream=ONE + STOP.rstrip(b"\n")) == [*sent(ONE), END]


# -- what is left out --------------------------------------------------------------------


def test_a_chunk_of_counts_alone_is_left_out() -> None:
    assert played(Breakage.NO_USAGE) == [*sent(ROLE, ONE, TWO, THREE, STOP, DONE), END]


def test_counts_beside_others_are_taken_out_and_no_other_byte() -> None:
    stop = (
        b'data: { "id": "c",\t"usage" : {"x":[1, {}]} , "choices":[{"delta":{}, "finish_reason":"stop"}]}\n\n'
    )
    left = b'data: { "id": "c" , "choices":[{"delta":{}, "finish_reason":"stop"}]}\n\n'
    told = chunk("one", usage={"prompt_tokens": 1})
    assert played(Breakage.NO_USAGE, stream=told + stop + DONE) == [*sent(ONE, left, DONE), END]


def test_counts_that_are_not_there_yet_stay() -> None:
    stream = chunk("one", usage=None) + DONE
    assert played(Breakage.NO_USAGE, stream=stream, reached=False) == [*sent(stream), END]


def test_the_word_in_a_text_is_no_count() -> None:
    stream = chunk('"usage":{"prompt_tokens":1}') + DONE
    assert played(Breakage.NO_USAGE, stream=stream, reached=False) == [*sent(stream), END]


def test_without_known_places_no_count_is_left_out() -> None:
    assert played(Breakage.NO_USAGE, usage=None, reached=False) == [*sent(STREAM), END]


def test_an_empty_stream_has_its_opening_and_its_close() -> None:
    assert played(Breakage.EMPTY) == [*sent(ROLE, STOP, COUNTS, DONE), END]


def test_what_finishes_a_choice_with_a_text_has_none() -> None:
    stream = ROLE + ONE + chunk("two", "stop") + DONE
    stop = chunk(None, "stop")
    assert played(Breakage.EMPTY, stream=stream) == [*sent(ROLE, stop, DONE), END]


def test_an_error_in_an_empty_stream_comes() -> None:
    assert played(Breakage.EMPTY, stream=ROLE + ONE + ERROR) == [*sent(ROLE, ERROR), END]


def test_what_is_no_json_is_content_for_all_that_is_known() -> None:
    assert played(Breakage.EMPTY, stream=ROLE + b"data: oops\n\n: x\n\n") == [*sent(ROLE, b": x\n\n"), END]


def test_an_event_of_nothing_is_no_content() -> None:
    stream = b"data:\n\n" + b"data: null\n\n" + ONE
    assert played(Breakage.EMPTY, stream=stream) == [*sent(b"data:\n\n", b"data: null\n\n"), END]


def test_a_form_that_does_not_say_how_it_is_empty_loses_its_content() -> None:
    form = StreamForm("x", CHAT.framing, CHAT.content_type, None, final=("over",))
    stream = b'data: {"a":1}\n\ndata: {"over":true}\n\n'
    assert played(Breakage.EMPTY, form=form, stream=stream) == [*sent(b'data: {"over":true}\n\n'), END]


# -- a pace ------------------------------------------------------------------------------


def waits(steps: list[Step]) -> list[float | None]:
    return [step.seconds for step in steps if isinstance(step, Wait)]


def test_waits_stand_in_front_of_content_alone() -> None:
    steps = played(Breakage.SLOW, first_token=3.0, per_event=0.5)
    assert steps == [
        Send(ROLE), Wait(3.0), Send(ONE), Wait(0.5), Send(TWO), Wait(0.5), Send(THREE), Wait(0.5),
        Send(STOP + COUNTS + DONE), END,
    ]  # fmt: skip


def test_four_characters_are_a_token() -> None:
    # Three characters, three, five; to finish takes no time.
    assert waits(played(Breakage.SLOW, tokens_per_second=2.0)) == [0.375, 0.375, 0.625]
    both = played(Breakage.SLOW, tokens_per_second=2.0, first_token=1.0, per_event=2.0)
    assert waits(both) == [1.375, 2.375, 2.625, 2.0]


def test_arguments_of_a_call_take_their_time() -> None:
    assert waits(played(Breakage.SLOW, tokens_per_second=1.0, stream=FIRST + SECOND)) == [5 / 4, 2 / 4]


def test_jitter_makes_waits_longer_or_shorter_by_its_share() -> None:
    draws = iter([0.0, 0.5, 0.75])
    player = Player(
        Breakage.SLOW, Manner(per_event=2.0, first_token=2.0, jitter=0.5), form=CHAT, draw=lambda: next(draws)
    )
    assert waits(player.feed(ONE + TWO + THREE)) == [1.0, 2.0, 2.5]


def test_nothing_is_drawn_without_jitter() -> None:
    def draw() -> float:
        raise AssertionError("drawn")

    player = Player(Breakage.SLOW, Manner(per_event=1.0), form=CHAT, draw=draw)
    assert waits(player.feed(ONE + TWO)) == [1.0]


# -- an answer in one piece --------------------------------------------------------------

BODY = b'{"id":"c", "choices":[{"message":{"content":"Hi"}}], "usage":{"prompt_tokens":1}, "x":null}'
HALF = len(BODY) // 2


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        (Breakage.CUT, Break(reset=False)),
        (Breakage.RESET, Break(reset=True)),
        (Breakage.TRUNCATE, END),
    ],
)
def test_an_answer_in_one_piece_breaks_in_its_middle(kind: Breakage, end: Step) -> None:
    for length in (len(BODY), None):
        assert played(kind, stream=BODY, form=None, length=length) == [*sent(BODY[:HALF]), end]
    assert played(kind, At(Spot.BYTES, 3), stream=BODY, form=None) == [*sent(BODY[:3]), end]
    at = At(Spot.PERCENT, 10)
    assert played(kind, at, stream=BODY, form=None, length=len(BODY)) == [*sent(BODY[: len(BODY) // 10]), end]


def test_an_answer_in_one_piece_stalls_in_its_middle() -> None:
    expected = [Send(BODY[:HALF]), Wait(2.0), Send(BODY[HALF:]), END]
    for length in (len(BODY), None):
        assert played(Breakage.STALL, stream=BODY, form=None, length=length, silence=2.0) == expected


def test_a_long_answer_of_unknown_length_is_not_held_back() -> None:
    for kind, rest in ((Breakage.CUT, [Break(reset=False)]), (Breakage.STALL, [Wait(None)])):
        steps = played(kind, stream=BODY * 10, form=None, limit=len(BODY))
        more = [Send((BODY * 10)[HALF:]), END] if kind is Breakage.STALL else []
        assert steps == [Send(BODY[:HALF]), *rest, *more]


@pytest.mark.parametrize("kind", sorted(CHANGES | {Breakage.STREAM_ERROR, Breakage.EMPTY, Breakage.SLOW}))
@pytest.mark.parametrize("at", [None, START, after(1), TOOL, CLOSE, At(Spot.BYTES, 3)], ids=str)
def test_an_answer_in_one_piece_has_no_events(kind: Breakage, at: At | None) -> None:
    steps = played(kind, at, stream=BODY, form=None, length=len(BODY), reached=False, per_event=1.0)
    assert steps == [*sent(BODY), END]


@pytest.mark.parametrize("at", [START, after(0), after(1), TOOL, CLOSE, At(Spot.PERCENT, 50)], ids=str)
def test_an_answer_in_one_piece_has_no_spots_but_bytes(at: At) -> None:
    assert played(Breakage.CUT, at, stream=BODY, form=None, reached=False) == [*sent(BODY), END]


def test_an_answer_in_one_piece_loses_its_counts() -> None:
    left = BODY.replace(b', "usage":{"prompt_tokens":1}', b"")
    assert played(Breakage.NO_USAGE, stream=BODY, form=None) == [*sent(left), END]
    without = b"\n\n" + left
    assert played(Breakage.NO_USAGE, stream=without, form=None, reached=False) == [*sent(without), END]


def test_an_answer_that_is_too_long_to_be_held_keeps_its_counts() -> None:
    steps = played(Breakage.NO_USAGE, stream=BODY, form=None, limit=len(BODY) - 1, reached=False)
    assert steps == [*sent(BODY), END]


# -- large events, memory ----------------------------------------------------------------

LARGE = chunk("x" * 3000)


@pytest.mark.parametrize(
    ("kind", "at", "expected"),
    [
        (Breakage.CUT, START, [*sent(ROLE), Break(reset=False)]),
        (Breakage.CUT, after(1), [*sent(ROLE, LARGE), Break(reset=False)]),
        (Breakage.CUT, after(2), [*sent(ROLE, LARGE, ONE), Break(reset=False)]),
        (Breakage.CUT, after(4), [*sent(ROLE, LARGE, ONE, LARGE, LARGE), Break(reset=False)]),
        (Breakage.STREAM_ERROR, At(Spot.BYTES, len(ROLE) + 2000), [*sent(ROLE, LARGE, ERROR), END]),
        (Breakage.DUPLICATE, START, [*sent(ROLE, LARGE, ONE, ONE, LARGE, LARGE, STOP, DONE), END]),
        (Breakage.EMPTY, None, [*sent(ROLE, STOP, DONE), END]),
    ],
)
def test_an_event_that_is_too_large_is_content(kind: Breakage, at: At | None, expected: list[Step]) -> None:
    stream = ROLE + LARGE + ONE + LARGE + LARGE + STOP + DONE
    assert played(kind, at, stream=stream, limit=1000) == expected


def test_an_event_that_is_too_large_is_waited_for_once() -> None:
    steps = played(Breakage.SLOW, stream=LARGE + ONE + LARGE, limit=1000, per_event=1.0)
    assert steps == [Send(LARGE), Wait(1.0), Send(ONE), Wait(1.0), Send(LARGE), END]


@pytest.mark.parametrize("kind", sorted(IN_BODY))
@pytest.mark.parametrize("form", [CHAT, ollama.STREAM, google.ARRAY_STREAM, None])
def test_no_more_is_held_than_the_limit(kind: Breakage, form: StreamForm | None) -> None:
    manner = Manner(at=after(1000) if kind not in (Breakage.NO_USAGE, Breakage.EMPTY) else None)
    player = Player(kind, manner, form=form, usage=openai.CHAT_USAGE, limit=1000)
    given = got = 0
    opening = b'[{"x":"' if form is google.ARRAY_STREAM else b'{"x":"' if form is ollama.STREAM else b"data: "
    for piece in [opening, *[b"x" * 50] * 200]:
        given += len(piece)
        got += sum(len(step.data) for step in player.feed(piece) if isinstance(step, Send))
        assert kind is Breakage.EMPTY or given - got <= 1050


# -- the table, the length ---------------------------------------------------------------


def test_every_kind_that_has_a_spot_has_a_default() -> None:
    assert set(DEFAULT_AT) == ANYWHERE | CHANGES | {Breakage.STREAM_ERROR}
    assert IN_BODY - set(DEFAULT_AT) == {Breakage.NO_USAGE, Breakage.EMPTY, Breakage.SLOW}


@pytest.mark.parametrize("kind", sorted(KEEP_LENGTH))
@pytest.mark.parametrize("at", [None, START, after(2), CLOSE, At(Spot.BYTES, 5)], ids=str)
def test_kinds_that_keep_the_length_send_the_answer_as_far_as_it_goes(kind: Breakage, at: At | None) -> None:
    steps = played(kind, None if kind is Breakage.SLOW else at, per_event=1.0)
    data = b"".join(step.data for step in steps if isinstance(step, Send))
    assert STREAM.startswith(data)
    assert steps[-1] != END or data == STREAM


@pytest.mark.parametrize(
    ("length", "excess", "told"), [(10, 5, 15), (10, -3, 7), (10, -30, 0), (0, 100, 100)]
)
def test_a_wrong_length_is_never_below_nothing(length: int, excess: int, told: int) -> None:
    assert wrong_length(length, excess) == told


# -- arrays ------------------------------------------------------------------------------

ARRAY = google.ARRAY_STREAM


def element(text: str | None, finish: str | None = None, **members: object) -> bytes:
    parts: list[object] = [] if text is None else [{"text": text}]
    candidate = {"content": {"parts": parts}, **({"finishReason": finish} if finish else {})}
    return encode({"candidates": [candidate], **members})


A, B, C = element("a"), element("b"), element("c", "STOP")
LIST = b"[" + A + b"\n,\r\n" + B + b",\n" + C + b"\n]\n"


def listed(kind: Breakage, at: At | None = None, stream: bytes = LIST, **more: object) -> bytes:
    error = b",\n" + encode({"error": {"code": 503}})
    steps = played(kind, at, stream=stream, form=ARRAY, usage=google.USAGE, error=error, **more)  # type: ignore[arg-type]
    assert [type(step) for step in steps] == [Send, Finish]
    assert isinstance(steps[0], Send)
    return steps[0].data


@pytest.mark.parametrize(
    ("at", "before"), [(START, []), (None, [A]), (after(2), [A, B]), (CLOSE, [A, B]), (after(3), [A, B, C])]
)
def test_an_array_with_an_error_is_whole(at: At | None, before: list[bytes]) -> None:
    values = [*map(json.loads, before), {"error": {"code": 503}}]
    assert json.loads(listed(Breakage.STREAM_ERROR, at)) == values


def test_an_array_stays_one_whatever_is_left_out_or_changes() -> None:
    a, b, c = map(json.loads, (A, B, C))
    assert json.loads(listed(Breakage.DUPLICATE, START)) == [a, a, b, c]
    assert json.loads(listed(Breakage.DUPLICATE)) == [a, b, b, c]
    assert json.loads(listed(Breakage.REORDER, START)) == [b, a, c]
    assert json.loads(listed(Breakage.REORDER)) == [a, c, b]
    assert listed(Breakage.REORDER, CLOSE, reached=False) == LIST
    assert json.loads(listed(Breakage.EMPTY)) == [{"candidates": [{"finishReason": "STOP"}]}]
    assert json.loads(listed(Breakage.EMPTY, stream=b"[" + A + b"," + B + b"]")) == []


def test_counts_alone_are_left_out_of_an_array_wherever_they_stand() -> None:
    counts = encode({"usageMetadata": {"totalTokenCount": 1}, "modelVersion": "m"})
    told = element("a", usageMetadata={"totalTokenCount": 1})
    for elements, left in (
        ([counts, A, B], [A, B]),
        ([counts, counts, A], [A]),
        ([A, counts, B], [A, B]),
        ([A, counts], [A]),
        ([counts], []),
        ([told, counts], [A]),
    ):
        stream = b"[ " + b"\n, ".join(elements) + b"\n]"
        assert json.loads(listed(Breakage.NO_USAGE, stream=stream)) == list(map(json.loads, left))


def test_garbage_leaves_the_brackets_of_an_array_alone() -> None:
    data = listed(Breakage.GARBAGE)
    assert data == LIST.replace(B, b"{," + B[1:])
    with pytest.raises(json.JSONDecodeError):
        json.loads(data)


def test_an_array_is_truncated_without_its_bracket() -> None:
    assert listed(Breakage.TRUNCATE, CLOSE) == b"[" + A + b"\n,\r\n" + B
    assert listed(Breakage.TRUNCATE, after(3)) == LIST[: -len(b"\n]\n")]


# -- other dialects' own spots -----------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "stream", "at", "left"),
    [
        (anthropic.STREAM, b'event: ping\ndata: {"type":"ping"}\n\n', after(1), None),
        (
            anthropic.STREAM,
            b'event: message_start\ndata: {"type":"message_start"}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
            CLOSE,
            b'event: message_start\ndata: {"type":"message_start"}\n\n',
        ),
        (ollama.STREAM, b'{"message":{"content":"x"}}\n{"done":true,"done_reason":"stop"}', CLOSE, b'{"message":{"content":"x"}}\n'),
        (cohere.STREAM_V1, b'{"event_type":"stream-start"}\n{"event_type":"stream-end"}\n', CLOSE, b'{"event_type":"stream-start"}\n'),
    ],
)  # fmt: skip
def test_dialects_know_their_spots(form: StreamForm, stream: bytes, at: At, left: bytes | None) -> None:
    steps = played(Breakage.CUT, at, stream=stream, form=form, reached=left is not None)
    assert steps == ([*sent(stream), END] if left is None else [*sent(left), Break(reset=False)])
