"""The providers as a document: docs/providers.rst is what :func:`reference` returns, with a newline.

To write it anew::

    python -c 'from llmproxyd.providers.reference import reference; print(reference())' > docs/providers.rst
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from textwrap import fill, indent

from llmproxyd.providers.base import Endpoint, EndpointKind, ErrorContext, ErrorKind, Provider, Streams
from llmproxyd.providers.registry import built_in

WIDTH = 110
"""Columns of a line, where it can be broken."""

_HEAD = """\
=========
Providers
=========

What is known of the API of each: where it is, where its key goes, by what a request for it is recognised,
which endpoints it has, how its errors look. Errors of the proxy's own have the same shape, with a code from
`errors <errors.rst>`_. All below *Each* is made from what the daemon goes by.

Which one a request is for
==========================

``/to/NAME/…`` says it (``/to/groq/openai/v1/chat/completions``); else a rule under ``routes``; else
``server.single_upstream``; else the first sign of these, from top to bottom. Signs are found in the method,
the path, the names of query arguments and header fields, the scheme and the first characters of a key, and
the first word of ``User-Agent``. The body is never looked at.

=============  ===============================================================================================
Provider       Signs
=============  ===============================================================================================
Bedrock        ``Authorization: AWS4-HMAC-SHA256 …``; ``/model/MODEL/converse``;
               ``/model/MODEL/converse-stream``; ``/model/MODEL/invoke``;
               ``/model/MODEL/invoke-with-response-stream``
Databricks     ``/serving-endpoints/…``; ``/ai-gateway/…``; ``/oidc/…``; ``/api/2.0/…``;
               ``/.well-known/databricks-config``
Azure          ``/openai/deployments/…``; ``/openai/…?api-version=…``; ``api-key: …``;
               ``User-Agent: AzureOpenAI/…``; ``User-Agent: AsyncAzureOpenAI/…``
Google         ``x-goog-api-key: …``; ``x-goog-api-client: …``; ``/v1beta/…``; ``/upload/v1beta/…``;
               ``/v1/models/MODEL:generateContent``; ``/v1/models/MODEL?key=…``
Databricks     a key: ``Authorization: Bearer dapi…``
Fireworks      a key: ``Authorization: Bearer fw_…``
Groq           a key: ``Authorization: Bearer gsk_…``
OpenRouter     a key: ``Authorization: Bearer sk-or-…``
xAI            a key: ``Authorization: Bearer xai-…``
OpenRouter     ``/api/v1/messages``; ``/api/v1/…`` and ``anthropic-version: …``;
               ``/api/v1/…`` and ``anthropic-beta: …``; ``/api/v1/…`` and ``x-api-key: …``
Anthropic      ``anthropic-version: …``; ``anthropic-beta: …``; ``x-api-key: …``; ``/v1/messages``;
               ``/v1/messages/count_tokens``
Anthropic      a key: ``Authorization: Bearer sk-ant-…``
Ollama         ``/api/chat``; ``/api/generate``; ``/api/tags``; ``/api/embed``
Cohere         ``/v2/chat``; ``/v2/embed``; ``/v2/rerank``
OpenRouter     ``/api/v1/…``
Groq           ``/openai/v1/…``
Cohere         ``User-Agent: cohere/…``
Fireworks      ``User-Agent: Fireworks/…``; ``User-Agent: AsyncFireworks/…``
Groq           ``User-Agent: Groq/…``; ``User-Agent: AsyncGroq/…``
Mistral        ``User-Agent: mistral-client/…``
Ollama         ``User-Agent: ollama-python/…``
Together       ``User-Agent: Together/…``; ``User-Agent: AsyncTogether/…``
Tetrate        ``/v1/…`` and ``HTTP-Referer: …`` and ``X-Title: …``, and the key is none of OpenAI's
=============  ===============================================================================================

Nothing of these: ``default_upstream``, which is OpenAI unless another one is named. Where clients present
tokens of projects (``access.enabled``), the signs that are keys do not hold. DeepSeek, Venice, vLLM and
llama.cpp server speak OpenAI's API and show no sign of their own: name them, by ``/to/NAME/…`` or a route.

Each
====

A provider with a base URL is an upstream of its name, without any configuration. Its endpoints stand with
regular expressions, which are searched in the path; all other paths pass as well. Faults hit what is listed
under *Inference* alone. What ``c``, ``r`` and ``u`` are answered with is under *Rehearsed*, and below it the
answer to ``r``: its fields, its body, and the event that ends a stream with it.
"""


def reference() -> str:
    """The providers of this package as reStructuredText."""
    parts = [_HEAD, *(_provider(one) for one in sorted(built_in(), key=lambda one: one.title.lower()))]
    return "\n\n".join(part.strip("\n") for part in parts)


def _provider(provider: Provider) -> str:
    facts = "\n".join(_filled(f":{name}: {text}", below="    ") for name, text in _facts(provider))
    title = f"{provider.title}\n{'-' * len(provider.title)}"
    context, endpoint = _context(provider)
    spec = provider.spec(ErrorKind.RATE_LIMIT, endpoint.operation)
    fields = _family(name.decode() for name, _ in (*spec.headers, *provider.dialect.headers(spec, context)))
    body = json.dumps(provider.error_value(spec, context), indent=2, ensure_ascii=False)
    event = provider.stream_error(endpoint.forms[0], spec, context)
    told = f"{spec.status}, with {_literals(fields)}" if fields else f"{spec.status}"
    parts = [title, facts, _filled(f"{told}::"), indent(body, "    ")]
    if event is None:
        parts.append("In a stream: no such event; the connection is cut.")
    else:
        parts += ["In a stream::", indent(event.decode().replace("\r", "").strip("\n"), "    ")]
    return "\n\n".join(parts)


def _family(names: Iterable[str]) -> list[str]:
    """Field names, those of one family of rate limits as one."""
    found = ((name, *name.partition("ratelimit")) for name in names)
    return list(dict.fromkeys(f"{before}ratelimit-…" if word else name for name, before, word, _ in found))


def _context(provider: Provider) -> tuple[ErrorContext, Endpoint]:
    """Of a call as clients make it most: an endpoint that can stream."""
    endpoint = next(one for one in provider.endpoints if one.kind is EndpointKind.INFERENCE and one.forms)
    context = ErrorContext(
        kind=ErrorKind.RATE_LIMIT,
        operation=endpoint.operation,
        model=provider.sample_model,
        request_id="1f0c9a7e-7",
        wall=1_767_225_600.0,
    )
    return context, endpoint


def _facts(provider: Provider) -> Iterator[tuple[str, str]]:
    """Names and texts of the list on top."""
    yield "Name", f"``{provider.name}``"
    if provider.base_url is not None:
        yield "Base URL", f"``{provider.base_url}``"
    elif provider.base_url_variable is not None:
        yield "Base URL", f"none of its own; ``{provider.base_url_variable}`` names it"
    else:
        yield "Base URL", f"none of its own; ``upstreams.{provider.name}.base_url``"
    place = provider.credential
    yield "Key", f"``{place.header.decode()}: {place.prefix.decode()}KEY``"
    if provider.keys:
        yield "In clients", f"the key is in {_literals(provider.keys)}"
    for variable, path in provider.hosts.items():
        yield "Pointed here by", f"``{variable}=http://127.0.0.1:8888{path}``"
    for kind in EndpointKind:
        endpoints = [one for one in provider.endpoints if one.kind is kind]
        if endpoints:
            yield kind.value.capitalize(), "; ".join(_endpoints(endpoints))
    letters = (ErrorKind.CONTEXT_LENGTH, ErrorKind.RATE_LIMIT, provider.unknown)
    statuses = (str(provider.errors[kind].status) for kind in letters)
    yield "Rehearsed", ", ".join(f"``{one}`` {status}" for one, status in zip("cru", statuses, strict=True))


def _endpoints(endpoints: Iterable[Endpoint]) -> Iterator[str]:
    for one in endpoints:
        streams = "" if one.streams is Streams.NEVER else " (streams)"
        yield f"{one.operation} ``{one.pattern.pattern.decode()}``{streams}"


def _literals(texts: Iterable[str]) -> str:
    return ", ".join(f"``{one}``" for one in texts)


def _filled(text: str, below: str = "") -> str:
    return fill(text, WIDTH, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
