"""Bodies are changed where a rule fires; the rest of them stays as it was, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxyd.config import reflect
from llmproxyd.transform.body import MAX_CONTAINERS, MAX_MEMBERS, Transforms, _read, with_model
from llmproxyd.transform.rules import JSONValue, Transform

VENICE = Transforms(
    [
        Transform(
            drop=("prompt_cache_key", "logprobs", "top_logprobs"),
            drop_unless={"parallel_tool_calls": "boolean"},
        ),
        Transform(endpoints=("embeddings",), replace={"encoding_format": {"base64": "float"}}),
    ]
)


def _model_of(body: bytes) -> str | None:
    """The model by which rules are chosen."""
    found = _read(body)
    return None if found is None else found.model


def applied(rule: Transform, body: str, model: str | None = None) -> str | None:
    """*body* after *rule*, ``None`` when it did not fire."""
    found = Transforms([rule]).apply("chat", model, body.encode())
    return None if found is None else found.decode()


# Each verb.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"x":1}', "{}"),
        ('{"x":1,"a":2}', '{"a":2}'),
        ('{"a":2,"x":1}', '{"a":2}'),
        ('{"a":2,"x":1,"b":3}', '{"a":2,"b":3}'),
        ('{"x":1,"a":2,"x":3,"b":4,"x":5}', '{"a":2,"b":4}'),
        ('{"x":1,"x":2}', "{}"),
        ('{"a": 2, "x": 1, "b": 3}', '{"a": 2, "b": 3}'),
        ('{"x": 1, "a": 2}', '{"a": 2}'),
        ('{\n  "x": 1,\n  "a": 2\n}\n', '{\n  "a": 2\n}\n'),
        ('{\n  "a": 2,\n  "x": 1\n}\n', '{\n  "a": 2\n}\n'),
        ('{\n  "x": 1\n}', "{\n}"),
        (' \r\n{ "a" : 2 , "x" : 1 } \t', ' \r\n{ "a" : 2 } \t'),
        ('{"\\u0078":1,"a":"\\u0078"}', '{"a":"\\u0078"}'),
        ('{"x":{"a":[",","}"]},"a":1.50e+1}', '{"a":1.50e+1}'),
        ('{"x":"\\\\","a":"\\"x\\":1,"}', '{"a":"\\"x\\":1,"}'),
        ('{"a":"é😀","x":"é"}', '{"a":"é😀"}'),
        ('{"a":{"x":1}}', None),
        ('{"X":1}', None),
        ('{"xx":1}', None),
        ("{}", None),
    ],
)
def test_drop_takes_every_member_of_that_name_out_with_one_comma(body: str, expected: str | None) -> None:
    assert applied(Transform(drop=("x",)), body) == expected


TYPES = {
    "boolean": ("true", "false"),
    "string": ('""', '"true"'),
    "integer": ("0", "-12"),
    "number": ("0", "-12", "1.0", "-1e2", "1E2"),
    "array": ("[]", "[true]"),
    "object": ("{}", '{"a":true}'),
}
VALUES_BY_TYPE = sorted({value for values in TYPES.values() for value in values} | {"null"})


@pytest.mark.parametrize("wanted", TYPES)
@pytest.mark.parametrize("value", VALUES_BY_TYPE)
def test_drop_unless_keeps_a_member_of_the_type_alone(wanted: str, value: str) -> None:
    found = applied(Transform(drop_unless={"x": wanted}), f'{{"x":{value},"a":1}}')
    assert found == (None if value in TYPES[wanted] else '{"a":1}')


def test_drop_unless_looks_at_the_last_value_and_lets_no_former_one_come_forth() -> None:
    rule = Transform(drop_unless={"x": "boolean"})
    assert applied(rule, '{"x":true,"a":1,"x":null}') == '{"a":1}'
    assert applied(rule, '{"x":null,"a":1,"x":true}') is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"a":1, "x" : 2}', '{"a":1, "y" : 2}'),
        ('{"\\u0078":2}', '{"y":2}'),
        ('{"x":1,"x":2}', '{"y":1,"y":2}'),
        ('{"x":1,"y":2}', None),
        ('{"x":1,"\\u0079":2}', None),
        ('{"a":"x"}', None),
    ],
)
def test_rename_changes_the_name_alone_and_overwrites_nothing(body: str, expected: str | None) -> None:
    assert applied(Transform(rename={"x": "y"}), body) == expected


def test_new_names_are_written_as_json() -> None:
    assert applied(Transform(rename={"x": 'é"\n'}), '{"x":1}') == '{"é\\"\\n":1}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{}", '{"x":false}'),
        ("{ }", '{ "x":false}'),
        ('{"a":1}', '{"a":1,"x":false}'),
        ('{"a": 1}', '{"a": 1, "x": false}'),
        ('{ "a" : 1 }', '{ "a" : 1, "x" : false }'),
        ('{"a":1, "b":2}', '{"a":1, "b":2, "x":false}'),
        ('{\n  "a": 1\n}\n', '{\n  "a": 1,\n  "x": false\n}\n'),
        ('{\r\n\t"a": 1,\r\n\t"b": {"x": 1}\r\n}', '{\r\n\t"a": 1,\r\n\t"b": {"x": 1},\r\n\t"x": false\r\n}'),
    ],
)
def test_missing_member_is_added_at_the_end_in_the_style_of_the_body(body: str, expected: str) -> None:
    assert applied(Transform(set={"x": False}), body) == expected
    assert applied(Transform(default={"x": False}), body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"x" : [1, 2] , "a":1}', '{"x" : false , "a":1}'),
        ('{"x":true,"x":0}', '{"x":true,"x":false}'),
        ('{"\\u0078":null}', '{"\\u0078":false}'),
        ('{"x": false}', None),
    ],
)
def test_set_overwrites_and_default_does_not(body: str, expected: str | None) -> None:
    assert applied(Transform(set={"x": False}), body) == expected
    assert applied(Transform(default={"x": False}), body) is None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (1.5, "1.5"),
        ("é😀\u2028", '"é😀\u2028"'),
        ('"\\\n', '"\\"\\\\\\n"'),
        ({"a": [1, {"b": "c"}]}, '{"a":[1,{"b":"c"}]}'),
        ("\ud800é", '"\\ud800\\u00e9"'),
    ],
)
def test_values_are_written_compactly_and_as_utf_8(value: JSONValue, written: str) -> None:
    assert applied(Transform(set={"x": value}), "{}") == f'{{"x":{written}}}'


@pytest.mark.parametrize(
    ("old", "value", "fires"),
    [
        ("base64", '"base64"', True),
        ("base64", '"b\\u0061se64"', True),
        ("base64", '"Base64"', False),
        ("base64", '["base64"]', False),
        ("true", "true", True),
        ("true", '"true"', True),
        ("null", "null", True),
        ("1.0", "1.0", True),
        ("1.0", "1", False),
        ("[]", "[]", False),
        ("{}", "{}", False),
        ('"a"', '"a"', False),
    ],
)
def test_replace_compares_strings_as_they_are_and_scalars_as_written(
    old: str, value: str, fires: bool
) -> None:
    found = applied(Transform(replace={"x": {old: "new"}}), f'{{"x": {value},"a":"base64"}}')
    assert found == ('{"x": "new","a":"base64"}' if fires else None)


def test_replace_is_done_once_and_on_the_last_value() -> None:
    rule = Transform(replace={"x": {"a": "b", "b": "c"}})
    assert applied(rule, '{"x":"a"}') == '{"x":"b"}'
    assert applied(rule, '{"x":"a","x":"z"}') is None
    assert applied(rule, '{"x":"z","x":"b"}') == '{"x":"z","x":"c"}'


# Several.


def test_verbs_of_one_rule_see_what_those_before_them_left() -> None:
    rule = Transform(
        drop=("a",),
        drop_unless={"b": "boolean"},
        rename={"c": "a"},
        set={"b": "x"},
        default={"a": "never", "d": "y"},
        replace={"d": {"y": "z"}, "a": {"1": 2}},
    )
    assert applied(rule, '{"a":0,"b":null,"c":1}') == '{"a":2,"b":"x","d":"z"}'


def test_each_rule_sees_the_result_of_the_former() -> None:
    rules = [
        Transform(rename={"x": "y"}),
        Transform(replace={"y": {"1": 2}}),
        Transform(set={"model": "b"}),
        Transform(models=("b",), default={"z": 3}),
        Transform(models=("a",), default={"never": 4}),
    ]
    found = Transforms(rules).apply(None, None, b'{"x":1,"model":"a"}')
    assert found == b'{"y":2,"model":"b","z":3}'


def test_first_members_dropped_leave_a_style_to_add_in() -> None:
    rule = Transform(drop=("a",), set={"x": 1})
    assert applied(rule, '{"a":1}') == '{"x":1}'
    assert applied(rule, '{\n "a": 1,\n "b": 2\n}') == '{\n "b": 2,\n "x": 1\n}'
    assert applied(rule, '{\n "a": 1\n}') == '{\n "x":1\n}'


# For whom.


def test_rules_are_for_their_endpoints() -> None:
    transforms = Transforms([Transform(endpoints=("chat", "responses"), drop=("x",))])
    concerned = {name: transforms.concerns(name) for name in ("chat", "responses", "embeddings", None)}
    assert concerned == {"chat": True, "responses": True, "embeddings": False, None: False}
    for name, fires in concerned.items():
        assert transforms.apply(name, None, b'{"x":1}') == (b"{}" if fires else None)


def test_rule_without_endpoints_is_for_all_of_them() -> None:
    transforms = Transforms([Transform(endpoints=("chat",), drop=("y",)), Transform(drop=("x",))])
    assert transforms.concerns("embeddings")
    assert transforms.concerns(None)
    assert transforms.apply(None, None, b'{"x":1,"y":2}') == b'{"y":2}'


def test_no_rule_for_bodies_concerns_nothing() -> None:
    assert not Transforms([]).concerns("chat")
    assert not Transforms([Transform(endpoints=("chat",))]).concerns("chat")
    assert Transforms([]).apply("chat", None, b'{"x":1}') is None


@pytest.mark.parametrize(
    ("globs", "named", "fires"),
    [
        (("gpt-*",), '"gpt-5"', True),
        (("gpt-*",), '"GPT-5"', False),
        (("gpt-*",), '"x/gpt-5"', False),
        (("a", "llama-[34]*"), '"llama-3.1"', True),
        (("*",), "7", False),
        (("*",), "null", False),
        (("*",), '"\\ud800"', False),
        (("a\nb*",), '"a\\nb\\n"', True),
        (("b",), '"a","model":"b"', True),
        (("a",), '"a","model":"b"', False),
    ],
)
def test_rules_are_for_the_models_that_the_body_names(
    globs: tuple[str, ...], named: str, fires: bool
) -> None:
    rule = Transform(models=globs, drop=("x",))
    assert applied(rule, f'{{"model":{named},"x":1}}') == (f'{{"model":{named}}}' if fires else None)


def test_rule_for_models_is_not_for_a_body_without_one() -> None:
    assert applied(Transform(models=("*",), drop=("x",)), '{"x":1}') is None


def test_model_that_the_caller_gives_counts_instead() -> None:
    rule = Transform(models=("a",), drop=("x",))
    assert applied(rule, '{"x":1,"model":"b"}', model="a") == '{"model":"b"}'
    assert applied(rule, '{"x":1,"model":"a"}', model="b") is None


# What passes.

DEEP = 100_000
NOT_OBJECTS = {
    "empty": b"",
    "white space": b" \n",
    "array": b'[{"x":1}]',
    "string": b'"x"',
    "null": b"null",
    "no end": b'{"x":1',
    "no value": b'{"x":}',
    "no colon": b'{"x" 1}',
    "only a comma": b"{,}",
    "comma before": b'{,"x":1}',
    "comma at the end": b'{"x":1,}',
    "two commas": b'{"x":1,,"a":2}',
    "no comma": b'{"x":1 "a":2}',
    "trailing garbage": b'{"x":1}}',
    "two objects": b'{"x":1}\n{"x":2}',
    "byte order mark": b'\xef\xbb\xbf{"x":1}',
    "UTF-16": '{"x":1}'.encode("utf-16"),
    "UTF-16 without mark": '{"x":1}'.encode("utf-16-le"),
    "UTF-32": '{"x":1}'.encode("utf-32"),
    "Latin-1": '{"x":"é"}'.encode("latin-1"),
    "surrogate in UTF-8": b'{"x":"\xed\xa0\x80"}',
    "NaN": b'{"x":NaN}',
    "Infinity": b'{"x":1,"a":Infinity}',
    "NaN within": b'{"x":1,"a":[-Infinity]}',
    "single quotes": b"{'x':1}",
    "bare name": b"{x:1}",
    "number as name": b"{1:1}",
    "number as a further name": b'{"x":1,2:3}',
    "comment": b'{"x":1/**/}',
    "leading zero": b'{"x":01}',
    "leading plus": b'{"x":+1}',
    "bare point": b'{"x":1.}',
    "True": b'{"x":True}',
    "vertical tab": b'{\x0b"x":1}',
    "no-break space": '{\xa0"x":1}'.encode(),
    "control character": b'{"x":"\n"}',
    "control character in a name": b'{"x":1,"\x01":2}',
    "bad escape": b'{"x":1,"a":"\\x41"}',
    "bad escape in a name": b'{"x":1,"\\u00":2}',
    "broken within": b'{"x":1,"a":[1,{"b":}]}',
    "brackets that do not match": b'{"x":1,"a":[1}]',
    "multipart": b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n{"x":1}\r\n--b--\r\n',
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "deep arrays": b'{"x":1,"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"x":' * DEEP + b"1" + b"}" * DEEP,
    "deep and open": b'{"x":1,"a":' + b"[" * DEEP,
    "endless integer": b'{"x":1,"a":' + b"1" * DEEP + b"}",
    "too many arrays": b'{"x":1,"a":['
    + b"[]," * (MAX_CONTAINERS // 2)
    + b"{}," * (MAX_CONTAINERS // 2)
    + b"1]}",
    "too many members": b'{"x":1' + b',"a":2' * MAX_MEMBERS + b"}",
}
EVERY_VERB = Transforms(
    [
        Transform(
            drop=("x",),
            drop_unless={"x": "string"},
            rename={"x": "z"},
            set={"y": 1},
            default={"z": 1},
            replace={"x": {"1": 2}},
        ),
        Transform(models=("*",), set={"y": 2}),
    ]
)


@pytest.mark.parametrize("name", NOT_OBJECTS)
def test_what_is_no_json_object_passes(name: str) -> None:
    body = NOT_OBJECTS[name]
    assert EVERY_VERB.apply("chat", None, body) is None
    assert _model_of(body.replace(b'"x":', b'"model":')) is None
    assert with_model(body.replace(b'"x":', b'"model":'), "m") is None


def test_as_many_containers_as_are_allowed_are_looked_at() -> None:
    body = b'{"x":1,"a":[' + b"[]," * (MAX_CONTAINERS - 2) + b"1]}"
    assert Transforms([Transform(drop=("x",))]).apply("chat", None, body) == b"{" + body[7:]


def test_as_many_members_as_are_allowed_are_looked_at() -> None:
    body = b'{"x":1' + b',"a":2' * (MAX_MEMBERS - 1) + b"}"
    assert VENICE.apply("chat", None, body) is None
    assert Transforms([Transform(drop=("x",))]).apply("chat", None, body) == b"{" + body[7:]


FRAGMENTS = st.sampled_from(
    [*'{}[]:,"\\ \n-.+eE019', '"x"', '"model":', "true", "null", "NaN", "é", "\\u0078", "\ufeff"]
)


def is_object(body: bytes) -> bool:
    """Whether *body* is a JSON object, by a parser that builds it."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return isinstance(json.loads(body.decode(), parse_constant=refuse), dict)
    except ValueError:
        return False


@given(st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=20).map(lambda parts: "".join(parts).encode()))
@example(b'{"x":1}\n')
def test_any_bytes_but_a_json_object_pass(body: bytes) -> None:
    found = EVERY_VERB.apply("chat", None, body)
    assert (found is not None) == is_object(body)
    assert found is None or is_object(found)
    _model_of(body)
    assert (with_model(body, "m") is not None) == (is_object(body) and "model" in json.loads(body))


# Against a naive implementation.

NAMES = st.sampled_from(["model", "a", "b", "c", "é", 'q"', "\\", "", "😀", "\ud800"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "b", "true", "1", '{"a":1}', '",', "\\", "é😀", "\n\u2028"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
SENDABLE = NAMES.filter(lambda name: name != "\ud800")
SPACE = st.text(" \t\r\n", max_size=2)
TEXTS = st.sampled_from(["a", "b", "true", "false", "null", "1", "-0.0", "😀", "{}"])


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """An object as somebody might write it: any white space, any escapes, members more than once."""

    def written(value: object) -> str:
        escaped = draw(st.booleans()) or "\\ud" in json.dumps(value)
        return json.dumps(value, ensure_ascii=escaped, indent=draw(st.sampled_from([None, None, 1])))

    members = [
        draw(SPACE) + written(name) + draw(SPACE) + ":" + draw(SPACE) + written(value) + draw(SPACE)
        for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=7))
    ]
    return draw(SPACE) + "{" + (",".join(members) or draw(SPACE)) + "}" + draw(SPACE)


RULES = st.builds(
    Transform,
    models=st.sampled_from([(), (), (), ("*",), ("a", "é*"), ("[!a]",)]),
    drop=st.lists(NAMES, max_size=2).map(tuple),
    drop_unless=st.dictionaries(NAMES, st.sampled_from(sorted(TYPES)), max_size=2),
    rename=st.dictionaries(NAMES, SENDABLE, max_size=2),
    set=st.dictionaries(SENDABLE, VALUES, max_size=2),
    default=st.dictionaries(SENDABLE, VALUES, max_size=2),
    replace=st.dictionaries(NAMES, st.dictionaries(TEXTS, VALUES, max_size=3), max_size=2),
)
PYTHON_TYPES = {
    "boolean": (bool,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "array": (list,),
    "object": (dict,),
}


def naively(rule: Transform, body: dict[str, JSONValue]) -> dict[str, JSONValue]:
    """What *rule* makes of the values in *body*."""
    model = body.get("model")
    sendable = isinstance(model, str) and model != "\ud800"
    if rule.models and not (sendable and any(fnmatchcase(str(model), glob) for glob in rule.models)):
        return body
    made = {name: value for name, value in body.items() if name not in rule.drop}
    for name, wanted in rule.drop_unless.items():
        value = made.get(name)
        is_other = isinstance(value, bool) and wanted != "boolean"
        if name in made and (is_other or not isinstance(value, PYTHON_TYPES[wanted])):
            del made[name]
    for old, new in rule.rename.items():
        if old in made and new not in made:
            made[new] = made.pop(old)
    made |= rule.set
    made = {**rule.default, **made}
    for name, values in rule.replace.items():
        value = made.get(name)
        if name in made and not isinstance(value, list | dict):
            made[name] = values.get(value if isinstance(value, str) else json.dumps(value), value)
    return made


def touched(rule: Transform) -> set[str]:
    """The names that *rule* might do something to."""
    mappings = (rule.drop_unless, rule.rename, rule.set, rule.default, rule.replace)
    return {*rule.drop, *rule.rename.values(), *(name for mapping in mappings for name in mapping)}


def members(text: str) -> list[tuple[str, str]]:
    """Name and text of every member of the object *text*, found character by character."""
    found, start, depth, in_string, escaped, colon = [], 0, 0, False, False, 0
    for at, char in enumerate(text):
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char == ":" and depth == 1 and not colon:
            colon = at
        elif char in "{[":
            depth += 1
            start = at + 1 if depth == 1 else start
        elif char in "}]," and depth == 1:
            if colon:
                found.append((json.loads(text[start:colon]), text[start:at].strip(" \t\r\n")))
            start, colon = at + 1, 0
            depth -= char != ","
        elif char in "}]":
            depth -= 1
    return found


def same(left: object, right: object) -> bool:
    """Whether they are equal as JSON: ``1``, ``1.0`` and ``true`` are not."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(bodies(), st.lists(RULES, max_size=3))
@example('{"a":1,"a":true}', [Transform(rename={"a": "b"}), Transform(default={"a": 0})])
def test_result_is_that_of_changed_values_and_all_else_keeps_its_bytes(
    body: str, rules: list[Transform]
) -> None:
    wanted = before = json.loads(body)
    for rule in rules:
        wanted = naively(rule, wanted)
    found = Transforms(rules).apply("chat", None, body.encode())
    if found is None:
        assert same(wanted, before)
        return
    text = found.decode()
    assert same(json.loads(text), wanted)
    names = set().union(*map(touched, rules))
    kept = [raw for name, raw in members(body) if name not in names]
    assert [raw for name, raw in members(text) if name not in names] == kept
    assert text.partition("{")[0] == body.partition("{")[0]
    assert text.rpartition("}")[2] == body.rpartition("}")[2]


@given(bodies(), RULES)
def test_rules_for_names_that_are_not_there_do_not_fire(body: str, rule: Transform) -> None:
    def elsewhere(mapping: dict[str, str]) -> dict[str, str]:
        return {"not there" + name: value for name, value in mapping.items()}

    rule = replace(
        rule,
        drop=tuple(elsewhere(dict.fromkeys(rule.drop, ""))),
        drop_unless=elsewhere(dict(rule.drop_unless)),
        rename=elsewhere(dict(rule.rename)),
        replace={"not there": {"a": "b"}},
        set={},
        default={name: None for name in json.loads(body) if name != "\ud800"},
    )
    assert Transforms([rule]).apply("chat", None, body.encode()) is None


@given(bodies(), st.sampled_from(["m", "é😀", 'q"']))
def test_another_model_changes_the_value_of_the_last_model_alone(body: str, model: str) -> None:
    found = with_model(body.encode(), model)
    before = members(body)
    places = [index for index, (name, _) in enumerate(before) if name == "model"]
    if not places:
        assert found is None
        return
    assert found is not None
    after = members(found.decode())
    changed = [index for index in range(len(before)) if before[index] != after[index]]
    assert len(after) == len(before)
    assert set(changed) <= {places[-1]}
    assert _model_of(found) == model


# Models.


@pytest.mark.parametrize(
    ("body", "model", "replaced"),
    [
        ('{"model":"a"}', "a", '{"model":"new"}'),
        (' { "n":1.0, "model" : "\\u0061" ,"x":{"model":"b"}}\n', "a", None),
        ('{"model":"a","model":"b"}', "b", '{"model":"a","model":"new"}'),
        ('{"model":null}', None, '{"model":"new"}'),
        ('{"model":"\\ud800"}', None, '{"model":"new"}'),
        ('{"model":"new"}', "new", '{"model":"new"}'),
    ],
)
def test_model_is_read_and_replaced(body: str, model: str | None, replaced: str | None) -> None:
    assert _model_of(body.encode()) == model
    expected = body.replace('"\\u0061"', '"new"') if replaced is None else replaced
    assert with_model(body.encode(), "new") == expected.encode()


def test_body_without_a_model_at_its_top_has_none_to_replace() -> None:
    assert _model_of(b'{"a":{"model":"b"}}') is None
    assert with_model(b'{"a":{"model":"b"}}', "c") is None


# Large ones.

LARGE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    "value",
    [
        b'"' + b"x" * LARGE + b'"',
        b'"' + rb"\"" * (LARGE // 2) + b'"',
        b'"' + rb"\u0078" * (LARGE // 6) + b'"',
        b'"' + "é😀".encode() * (LARGE // 6) + b'"',
        b"[" + b"1," * (LARGE // 2) + b"1]",
        b"[" + b'{"x":1},' * (LARGE // 8) + b"1]",
        b" " * LARGE + b"1",
        b"0." + b"1" * LARGE,
    ],
    ids=["text", "quotes", "escapes", "emoji", "numbers", "objects", "space", "digits"],
)
def test_large_values_pass_as_they_came(value: bytes) -> None:
    rule = Transforms([Transform(drop=("x",), replace={"y": {"a": "b"}, "a": {"a": "b"}})])
    body = b'{"a":' + value + b', "x":1, "y":"a"}'
    assert rule.apply("chat", None, body) == b'{"a":' + value + b', "y":"b"}'
    assert rule.apply("chat", None, body[:-1]) is None
    assert rule.apply("chat", None, b'{"a":' + value + b"}") is None


# Venice.


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("chat", '{"model":"m","prompt_cache_key":"k","messages":[]}', '{"model":"m","messages":[]}'),
        (
            "chat",
            '{"model": "m", "messages": [{"role": "user", "content": "\\u00e9"}], "logprobs": false, "top_logprobs": 0, "parallel_tool_calls": null, "temperature": 1.0}',
            '{"model": "m", "messages": [{"role": "user", "content": "\\u00e9"}], "temperature": 1.0}',
        ),
        ("chat", '{"model":"m","parallel_tool_calls":true}', None),
        ("chat", '{"model":"m","parallel_tool_calls":"true"}', '{"model":"m"}'),
        ("chat", '{"model":"m","messages":[{"logprobs":1}]}', None),
        ("chat", '{"model":"m","encoding_format":"base64"}', None),
        (
            "embeddings",
            '{"input":"a","encoding_format":"base64","model":"m"}',
            '{"input":"a","encoding_format":"float","model":"m"}',
        ),
        ("embeddings", '{"input":"a","encoding_format":"float","model":"m"}', None),
        ("embeddings", '{"input":"a","model":"m"}', None),
    ],
)
def test_what_venice_does_not_understand_is_taken_out(
    operation: str, body: str, expected: str | None
) -> None:
    found = VENICE.apply(operation, None, body.encode())
    assert found == (None if expected is None else expected.encode())


# Declarations.


@pytest.mark.parametrize(
    ("rule", "key", "said"),
    [
        (Transform(), "", "changes nothing"),
        (Transform(endpoints=("chat",), models=("a",)), "", "changes nothing"),
        (Transform(drop_unless={"x": "bool"}), "drop_unless.x", "boolean, string"),
        (Transform(drop_unless={"x": "null"}), "drop_unless.x", "boolean, string"),
        (Transform(rename={"x": "x"}), "rename.x", "own name"),
        (Transform(drop=("x",), rename={"x": "y"}), "rename.x", "dropped"),
        (Transform(drop=("x",), drop_unless={"x": "array"}), "drop_unless.x", "dropped"),
        (Transform(set={"x": 1}, default={"x": 2}), "default.x", "is set"),
        (Transform(set={"x": float("nan")}), "set.x", "no such number"),
        (Transform(default={"x": {"a": [float("inf")]}}), "default.x", "no such number"),
        (Transform(replace={"x": {"a": float("-inf")}}), "replace.x.a", "no such number"),
        (Transform(replace={"x": {"a": "a"}}), "replace.x.a", "same value"),
        (Transform(replace={"x": {}}), "replace.x", "found nothing"),
    ],
)
def test_rules_that_cannot_be_meant_are_told(rule: Transform, key: str, said: str) -> None:
    [(where, message)] = rule.problems()
    assert where == key
    assert said in message


@pytest.mark.parametrize(
    "rule",
    [
        Transform(drop=("x",), set={"x": 1}),
        Transform(rename={"a": "b", "b": "c"}, default={"c": None}),
        Transform(replace={"x": {"1": 1.5, "a": "b"}}, drop_unless={"y": "integer"}),
    ],
)
def test_rules_that_can_be_meant_are_not_told(rule: Transform) -> None:
    assert list(rule.problems()) == []


def test_verbs_work_in_the_order_in_which_they_are_declared() -> None:
    verbs = [name for name in reflect.keys(Transform) if name not in ("endpoints", "models", "paths")]
    assert verbs == ["drop", "drop_unless", "rename", "set", "default", "replace"]
