"""What may be asked of an upstream: endpoints, methods, parameters, origins, header fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from llmproxyd.model import Request


@dataclass(frozen=True, slots=True)
class Allow:
    """What is allowed.  An empty list or mapping allows everything.

    :param endpoints: paths as the client sends them, less what selects the upstream: exact
        (``/v1/models``), prefix (``/v1/files/`` with its slash at the end), or glob
        (``/v1/models/*``; ``*`` does not cross a slash, ``**`` does).
    :param methods: upper case.
    :param params: accepted values (globs) by the name of a top-level member of the body or of an
        argument of the query.
    :param origins: web pages, by origin, whose scripts may; ``*`` for all.
    :param required_headers: ``name`` or ``name: value``, the name in lower case.
    """

    endpoints: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    params: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    origins: tuple[str, ...] = ()
    required_headers: tuple[str, ...] = ()


class Allowlist:
    """An :class:`Allow`, ready to be held against requests.

    :ivar open: it allows everything.
    :ivar reads_body: the body must be at hand before a request is let through.
    """

    __slots__ = ("open", "reads_body")

    def __init__(self, allow: Allow) -> None:
        raise NotImplementedError

    def check_head(self, request: Request, target: bytes) -> None:
        """Hold the head of *request* against the list.

        :param target: raw path and query, less what selected the upstream.
        :raises Refused: 403 ``endpoint_not_allowed``, ``origin_not_allowed``; 405
            ``method_not_allowed`` with ``Allow``; 400 ``required_header_missing``.
        """
        raise NotImplementedError

    def check_body(self, request: Request, body: bytes, model: str | None) -> None:
        """Hold the body (whole, as it came) against ``params``.

        :param model: as the path names it, where the endpoint's path does.
        :raises Refused: 403 ``model_not_allowed`` for the parameter ``model``, ``param_not_allowed``
            for others; 400 ``malformed_body`` where it cannot be read and a rule needs it.
        """
        raise NotImplementedError
