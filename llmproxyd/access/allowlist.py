"""What may be asked of an upstream: endpoints, methods, parameters, origins, header fields.

A request is held against the list as any upstream may read it: where servers differ in how they
read a path, a query or a body, every reading must be allowed, and what cannot be read plainly
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import unquote

from llmproxyd.access.bodies import members
from llmproxyd.access.forms import arguments
from llmproxyd.access.paths import Paths, is_plain, problem, readings
from llmproxyd.access.values import Values
from llmproxyd.errors import Refused
from llmproxyd.model import Request

MODEL = "model"
ALTERNATIVES = "models"
"""The member under which OpenRouter takes other models to turn to; the list for ``model`` is for it too."""

_METHOD = re.compile(r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*")
_ORIGIN = re.compile(r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s@\\*]+")
_FIELD = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?::[ ]*([!-~](?:[ -~]*[!-~])?))?")
_DEFAULT_PORT = re.compile(r"(?<=^http:)(//.*):80$|(?<=^https:)(//.*):443$")

_OTHER_METHOD = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})
"""Fields by which some servers take another method (Google's do)."""

_OTHER_PATH = frozenset({b"x-original-url", b"x-rewrite-url"})
"""Fields by which some servers take another path."""

_BODILESS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE"})
"""Methods that name no model unless they come with a body."""

_TO = re.compile(rb"\A/to/[^/]+")

_MODEL_IN_PATH = re.compile(
    rb"/(?:deployments|engines|model|serving-endpoints(?!/(?:chat/completions|responses|embeddings)\Z))/([^/]+)/"
    rb"|/(?:tuned)?models/([^/:]+)",
    re.IGNORECASE,
)
"""Where paths name models: Azure (which heeds no case), Bedrock, Databricks, Gemini, old OpenAI."""

_SHOWN = 10
"""Allowed things that a refusal names at most."""


@dataclass(frozen=True, slots=True)
class Allow:
    """What is allowed.  An empty list or mapping allows everything.

    :param endpoints: paths as the client sends them, less what selects the upstream: exact
        (``/v1/models``), prefix (``/v1/files/`` with its slash at the end), or glob
        (``/v1/models/*``; ``*`` does not cross a slash, ``**`` between two slashes does).
    :param methods: their names, in upper case.
    :param params: accepted values (globs) by the name of a top-level member of the body or of an
        argument of the query.  A list for ``model`` is for the model that the path names, too, and
        an inference request that names none is refused; other parameters may be absent.
    :param origins: web pages, by origin, whose scripts may; ``*`` for all.  Where none is listed no
        request is refused for its origin, but no page is given leave (CORS) either.
    :param required_headers: ``name`` or ``name: value``, the name in lower case.
    """

    endpoints: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    params: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    origins: tuple[str, ...] = ()
    required_headers: tuple[str, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        for path in self.endpoints:
            wrong = problem(path)
            if wrong is not None:
                yield "endpoints", f'found "{path}"; {wrong}'
        for method in self.methods:
            if not _METHOD.fullmatch(method):
                yield "methods", f'found "{method}"; accepted: a method in upper case such as "POST"'
        for name, values in self.params.items():
            if not name.strip() or not name.isprintable() or "[" in name:
                yield "params", f'found "{name}"; accepted: the name of a parameter such as "model"'
            elif not values:
                yield f"params.{name}", 'found nothing; accepted: values such as "gpt-4o" or "gpt-4o-*"'
        folded = [name.casefold() for name in self.params]
        for name in sorted({name for name in folded if folded.count(name) > 1}):
            yield "params", f'"{name}" stands there twice; the names of parameters have no case here'
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                yield (
                    "origins",
                    f'found "{origin}"; accepted: an origin such as "http://localhost:3000", without a path, '
                    'or "*"',
                )
        for text in self.required_headers:
            if not _FIELD.fullmatch(text):
                yield "required_headers", f'found "{text}"; accepted: a header field, "name" or "name: value"'


class Allowlist:
    """An :class:`Allow`, ready to be held against requests.

    :raises ValueError: it is none that :meth:`Allow.problems` would pass.
    :ivar open: it allows everything.
    :ivar reads_body: the body must be at hand before a request is let through;
        :meth:`check_body` is to be called for each, one without a body included.
    :ivar methods: as configured.
    :ivar origins: in lower case, without ports that say nothing.
    """

    __slots__ = ("_params", "_paths", "_required", "methods", "open", "origins", "reads_body")

    def __init__(self, allow: Allow) -> None:
        for key, text in allow.problems():
            raise ValueError(f"{key}: {text}")
        self.methods = tuple(allow.methods)
        self.origins = frozenset(map(normal_origin, allow.origins))
        self._paths = Paths(allow.endpoints) if allow.endpoints else None
        self._required = [_required(text) for text in allow.required_headers]
        self._params = _governed(allow.params)
        self.reads_body = bool(self._params)
        self.open = not (
            self.methods or self.origins or self._required or self.reads_body or self._paths is not None
        )

    def check_head(self, request: Request, target: bytes) -> None:
        """Hold the head of *request* against the list, the arguments of its query included.

        :param target: raw path and query, less what selected the upstream.
        :raises Refused: 403 ``endpoint_not_allowed``, ``origin_not_allowed``, ``model_not_allowed``,
            ``param_not_allowed``; 405 ``method_not_allowed`` with ``Allow``; 400
            ``required_header_missing``, ``malformed_body`` for a query that cannot be read.
        """
        self.check_path(request, target)
        self._check_method(request)
        self._check_origin(request)
        self._check_required(request)
        if self._params:
            for name, value in arguments(target.partition(b"?")[2], self._params):
                self._judge(name, value)

    def check_path(self, request: Request, target: bytes) -> None:
        """The part of :meth:`check_head` that is for the path.

        :raises Refused: 403 ``endpoint_not_allowed``.
        """
        if self._paths is None:
            return
        if not self._paths.allow(target.partition(b"?")[0]):
            message = "This path is not among those that are allowed here (allow.endpoints)."
            raise Refused(403, "endpoint_not_allowed", message)
        if any(name.lower() in _OTHER_PATH for name, _ in request.headers):
            message = "A header field names another path, which is not allowed here; leave it out."
            raise Refused(403, "endpoint_not_allowed", message)

    def check_body(self, request: Request, body: bytes, model: str | None, *, inference: bool = True) -> None:
        """Hold the body (whole, as it came; empty for none) against ``params``.

        :param model: as the path names it (raw), where the endpoint's path does.  Of a path that is not
            known to, segments behind ``models/``, ``deployments/`` and the like count as models.
        :param inference: the endpoint is one for inference, or none that is known: it must name a
            model where models are listed.
        :raises Refused: 403 ``model_not_allowed`` for the parameter ``model``, ``param_not_allowed``
            for others, ``endpoint_not_allowed`` for a path that may name a model in disguise; 400
            ``malformed_body`` where the body cannot be read, 415 ``content_encoding_not_allowed``.
        """
        if not self._params:
            return
        in_path = MODEL in self._params and self._check_models_in_path(request, body, model)
        named = in_path
        for name, value in members(request.headers, body, self._params) if body else ():
            if in_path and name == MODEL and isinstance(value, str):
                # In bodies, Gemini has ``models/M`` for what paths call ``M``.
                value = value.removeprefix("models/")
            self._judge(name, value)
            named = named or name == MODEL
        if MODEL in self._params and not named and inference and _may_ask(request, body):
            self._refuse(MODEL, "The request names no model, and only some are allowed here")

    def _check_models_in_path(self, request: Request, body: bytes, model: str | None) -> bool:
        """Check what the path names; whether it names a model at all."""
        if model is None and not _may_ask(request, body):
            return False
        path = _TO.sub(b"", request.path)
        if not (is_plain(path) if model is None else readings(path)):
            message = "Models are checked here, so the path must be a plain one, without percent-encoding."
            raise Refused(403, "endpoint_not_allowed", message)
        if model is not None:
            self._judge(MODEL, unquote(model))
            return True
        found = [match[1] or match[2] for match in _MODEL_IN_PATH.finditer(path)]
        for name in found:
            self._judge(MODEL, name.decode("ascii"))
        return bool(found)

    def _check_method(self, request: Request) -> None:
        if not self.methods:
            return
        asked = [request.method]
        asked += [value.strip() for name, value in request.headers if name.lower() in _OTHER_METHOD]
        if not all(one.decode("latin-1") in self.methods for one in asked):
            raise method_not_allowed(self.methods)

    def _check_origin(self, request: Request) -> None:
        if not self.origins or "*" in self.origins:
            return
        for name, value in request.headers:
            if name.lower() == b"origin" and normal_origin(value.decode("latin-1")) not in self.origins:
                raise origin_not_allowed()

    def _check_required(self, request: Request) -> None:
        for wanted, value in self._required:
            found = [text.strip() for name, text in request.headers if name.lower() == wanted]
            if not found or (value is not None and any(text != value for text in found)):
                what = wanted.decode("ascii")
                but = "" if value is None else " with the value that was agreed on"
                message = f"Requests must have the header field {what}{but}."
                raise Refused(400, "required_header_missing", message)

    def _judge(self, name: str, value: object) -> None:
        """Refuse a *value* that the parameter *name* may not have."""
        if name == MODEL and not isinstance(value, str):
            value = {}  # nothing but a text is a model's name
        if not self._params[name].accept(value):
            what = "This model is" if name in (MODEL, ALTERNATIVES) else f'This value of "{name}" is'
            self._refuse(name, f"{what} not among those that are allowed here")

    def _refuse(self, name: str, what: str) -> NoReturn:
        words = self._params[name].words
        shown = ", ".join(words[:_SHOWN]) + (" …" if len(words) > _SHOWN else "")
        code = "model_not_allowed" if name in (MODEL, ALTERNATIVES) else "param_not_allowed"
        raise Refused(403, code, f"{what}: {shown}.")


def _may_ask(request: Request, body: bytes) -> bool:
    """Whether *request* can ask something of a model."""
    return bool(body) or request.method not in _BODILESS


def _governed(params: Mapping[str, tuple[str, ...]]) -> dict[str, Values]:
    """What is checked, by name in lower case; what may be anything is not."""
    found = {name.casefold(): Values(accepted) for name, accepted in params.items()}
    if MODEL in found:
        found.setdefault(ALTERNATIVES, found[MODEL])
    return {name: values for name, values in found.items() if not values.all}


def _required(text: str) -> tuple[bytes, bytes | None]:
    match = _FIELD.fullmatch(text)
    assert match is not None
    value = match[2]
    return match[1].lower().encode("ascii"), None if value is None else value.encode("ascii")


def normal_origin(text: str) -> str:
    """An origin as origins are compared: lower case, without the port that its scheme implies."""
    return _DEFAULT_PORT.sub(r"\1\2", text.strip().lower())


def origin_not_allowed() -> Refused:
    """The refusal of a web page."""
    message = "Web pages of this origin may not use this; whoever runs the proxy can list it (allow.origins)."
    return Refused(403, "origin_not_allowed", message)


def method_not_allowed(methods: Iterable[str]) -> Refused:
    """The refusal of a method (RFC 9110 §15.5.6).

    :param methods: those that are allowed.
    """
    names = ", ".join(methods)
    message = f"This method is not allowed here; {names} would be."
    return Refused(405, "method_not_allowed", message, ((b"allow", names.encode("ascii")),))
