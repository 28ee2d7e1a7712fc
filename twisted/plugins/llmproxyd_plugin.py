"""Tells twistd of ``twistd llmproxy``."""

from twisted.application.service import ServiceMaker

llmproxy = ServiceMaker(
    "llmproxyd",
    "llmproxyd.tap",
    "A proxy between LLM clients and LLM providers that rehearses failure on command.",
    "llmproxy",
)
