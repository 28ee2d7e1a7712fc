"""The proxy as a resource in one's own twisted.web site; docs/library.rst shows it.

``resource`` has :class:`~llmproxyd.library.resource.ProxyResource` and what makes its configuration,
``interfaces`` what a site may bring of its own.  The other modules stand between the two: ``door``
(tokens and projects), ``guarded`` (a cache), ``outlets`` (audit and events), ``lines`` (logs).  What
tests need in their stead is in :mod:`llmproxyd.testing.library`.
"""
