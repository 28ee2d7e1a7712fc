"""Kinds of values: a type and what it cannot say alone, in the annotation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from llmproxyd.config import texts
from llmproxyd.config.markers import POLICY, POSITIVE, UPSTREAM, check, normal
from llmproxyd.faults import language
from llmproxyd.units import Duration

Endpoint = Annotated[str, normal(texts.ENDPOINT, texts.endpoint)]
UpstreamName = Annotated[str, check(texts.UPSTREAM_NAME, texts.upstream_name)]
UpstreamReference = Annotated[str, UPSTREAM]
PolicyName = Annotated[str, check(texts.POLICY_NAME, texts.policy_name)]
PolicyReference = Annotated[str, POLICY]
BaseURL = Annotated[str, normal(texts.BASE_URL, texts.base_url)]
Origin = Annotated[str, normal(texts.ORIGIN, texts.origin)]
HeaderName = Annotated[str, check(texts.HEADER_NAME, texts.header_name)]
PathPrefix = Annotated[str, normal(texts.PATH_PREFIX, texts.path_prefix)]
StrippedPrefix = Annotated[str, normal(texts.STRIPPED_PREFIX, texts.stripped_prefix)]
Host = Annotated[str, normal(texts.HOST, texts.host)]
Header = Annotated[str, normal(texts.HEADER, texts.header)]
Model = Annotated[str, check(texts.MODEL, texts.model)]
ReadableFile = Annotated[Path, check(texts.FILE, texts.readable_file)]
LogFolder = Annotated[Path, "log folder", check(texts.FOLDER, texts.folder)]
RuleName = Annotated[str, check(texts.RULE_NAME, texts.rule_name)]
Positive = Annotated[Duration, POSITIVE]
FaultMode = Annotated[str, check('a command such as "n", "c 3" or "r 30%"', language.parse_mode)]
FaultKindName = Annotated[str, check(f"one of {', '.join(language.KINDS)}", language.kind_of)]
FaultModifier = Annotated[str, check(language.MODIFIER_HELP, language.parse_when)]
