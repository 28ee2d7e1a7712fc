"""Databricks: invocations of serving endpoints, their list, and the discovery of its OAuth.  Pure.

https://docs.databricks.com/api/workspace/servingendpoints; the AI gateway's paths speak the
dialects of others and are routed to these.
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from llmproxyd.sandbox import embeddings, openai
from llmproxyd.sandbox.values import CREATED, Answer, Ask, Json, Whole, bad_request, metadata


def invocations(ask: Ask) -> Answer:
    """``POST /serving-endpoints/NAME/invocations``: what it is for, its body tells."""
    body = ask.json()
    if "input" in body:
        return embeddings.embeddings(ask)
    if "prompt" in body:
        return openai.completions(ask)
    return openai.chat(ask)


def endpoints(ask: Ask) -> Answer:
    """``GET /api/2.0/serving-endpoints`` and ``/api/ai-gateway/v2/endpoints``."""
    return metadata({"endpoints": [_endpoint(name) for name in ask.models]})


def endpoint(ask: Ask) -> Answer:
    """``GET /api/2.0/serving-endpoints/NAME``: every endpoint exists."""
    return metadata(_endpoint(ask.named))


def _endpoint(name: str) -> Json:
    entity = {"name": name, "foundation_model": {"name": name, "display_name": name}}
    return {
        "name": name,
        "id": name,
        "task": "llm/v1/chat",
        "state": {"ready": "READY", "config_update": "NOT_UPDATING"},
        "config": {"served_entities": [entity]},
        "creator": "sandbox",
        "creation_timestamp": CREATED * 1000,
        "last_updated_timestamp": CREATED * 1000,
        "permission_level": "CAN_QUERY",
    }


def discovery(ask: Ask) -> Answer:
    """The OAuth server's metadata (RFC 8414), with the sandbox's own URLs."""
    oidc = f"{ask.base}/oidc"
    return metadata(
        {
            "issuer": oidc,
            "authorization_endpoint": f"{oidc}/v1/authorize",
            "token_endpoint": f"{oidc}/v1/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["all-apis", "offline_access", "openid"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
        }
    )


def host_metadata(ask: Ask) -> Answer:
    """``GET /.well-known/databricks-config``, where the SDK learns of the OAuth server."""
    return metadata({"oidc_endpoint": f"{ask.base}/oidc", "workspace_id": "1"})


def authorize(ask: Ask) -> Answer:
    """``GET /oidc/v1/authorize``: everyone is let in, back to a redirect URI on this machine.

    :raises Refused: the URI is not one of the loopback (RFC 8252, section 7.3).
    """
    uri = ask.query.get("redirect_uri", "")
    try:
        host = urlsplit(uri).hostname
    except ValueError:
        host = None
    if host not in ("localhost", "127.0.0.1", "::1"):
        raise bad_request("'redirect_uri' must be a URL of the loopback.")
    query = urlencode({"code": "sandbox-code", "state": ask.query.get("state", "")})
    location = f"{uri}{'&' if '?' in uri else '?'}{query}"
    return Whole(b"", status=302, headers=((b"location", location.encode()),))


def token(_ask: Ask) -> Answer:
    """``POST /oidc/v1/token``: the same token for everyone; nothing here asks for it."""
    return metadata(
        {
            "access_token": "sandbox-access-token",
            "refresh_token": "sandbox-refresh-token",
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "all-apis offline_access",
        }
    )
