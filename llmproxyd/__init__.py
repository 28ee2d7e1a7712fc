"""llmproxyd: a daemon between LLM clients and LLM providers.

It passes traffic through unchanged and, on an operator's command, answers with the
provider's own errors.  ``tap`` is where the command line enters, ``service`` is where
the parts are put together; imports run downwards only (see ``tests/unit/test_imports``).
"""
