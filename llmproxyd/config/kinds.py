"""Kinds of values: a type and what it cannot say alone, in the annotation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from llmproxyd.config import texts, urls
from llmproxyd.config.markers import POLICY, POSITIVE, STATE_FILE, UPSTREAM, check, normal
from llmproxyd.faults import language, scenariotext
from llmproxyd.faults.kinds import provider_error
from llmproxyd.faults.values import AT_HELP, at_of, jitter_of
from llmproxyd.redaction import Secret, SecretURL
from llmproxyd.units import Duration

Endpoint = Annotated[str, normal(texts.ENDPOINT, texts.endpoint)]
UpstreamName = Annotated[str, check(texts.UPSTREAM_NAME, texts.upstream_name)]
UpstreamReference = Annotated[str, UPSTREAM]
PolicyName = Annotated[str, check(texts.POLICY_NAME, texts.policy_name)]
PolicyReference = Annotated[str, POLICY]
BaseURL = Annotated[str, normal(texts.BASE_URL, texts.base_url)]
AdminEndpoint = Annotated[str, normal(texts.ENDPOINT, texts.admin_endpoint)]
Origin = Annotated[str, normal(texts.ORIGIN, texts.allowed_origin)]
EndpointPath = Annotated[str, check(texts.ENDPOINT_PATH, texts.endpoint_path)]
RawPath = Annotated[str, check(texts.RAW_PATH, texts.raw_path)]
Method = Annotated[str, normal(texts.METHOD, texts.method)]
CachedMethod = Annotated[str, normal(texts.CACHED_METHOD, texts.cached_method)]
FieldName = Annotated[str, normal(texts.FIELD_NAME, texts.field_name)]
Parameter = Annotated[str, check(texts.PARAMETER, texts.parameter)]
Pattern = Annotated[str, check(texts.PATTERN, texts.pattern)]
KeyPrefix = Annotated[str, check(texts.KEY_PREFIX, texts.key_prefix)]
StreamName = Annotated[str, check(texts.STREAM, texts.stream)]
StoreURL = Annotated[SecretURL, check(urls.STORE, urls.store)]
RedisURL = Annotated[SecretURL, check(urls.REDIS, urls.redis)]
WebhookURL = Annotated[Secret, check(urls.WEBHOOK, urls.webhook)]
EncryptionKey = Annotated[Secret, check(urls.SECRET_KEY, urls.secret_key)]
HeaderName = Annotated[str, check(texts.HEADER_NAME, texts.header_name)]
PathPrefix = Annotated[str, normal(texts.PATH_PREFIX, texts.path_prefix)]
StrippedPrefix = Annotated[str, normal(texts.STRIPPED_PREFIX, texts.stripped_prefix)]
Host = Annotated[str, normal(texts.HOST, texts.host)]
Header = Annotated[str, normal(texts.HEADER, texts.header)]
Model = Annotated[str, check(texts.MODEL, texts.model)]
ReadableFile = Annotated[Path, check(texts.FILE, texts.readable_file)]
KeptFile = Annotated[Path, STATE_FILE, check(texts.KEPT_FILE, texts.kept_file)]
LogFolder = Annotated[Path, "log folder", check(texts.FOLDER, texts.folder)]
RuleName = Annotated[str, check(texts.RULE_NAME, texts.rule_name)]
Positive = Annotated[Duration, POSITIVE]
ScenarioText = Annotated[str, check(scenariotext.ASKED, scenariotext.check_asked)]
FaultMode = Annotated[str, check('a command such as "n", "c 3" or "r 30%"', language.parse)]
FaultKindName = Annotated[
    str, check(f"one of {', '.join((*language.KINDS, *language.BREAKAGES))}", language.kind_of)
]
ProviderError = Annotated[str, check(f"one of {', '.join(language.KINDS)}", provider_error)]
FaultSpot = Annotated[str, check(AT_HELP, at_of)]
JitterShare = Annotated[str, check('a share such as "20%"', jitter_of)]
FaultModifier = Annotated[str, check(language.MODIFIER_HELP, language.parse_when)]
