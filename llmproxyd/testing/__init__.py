"""For tests, shipped so that users have them too.

``providers`` says what is missing in a provider's entry; ``upstream`` is a scripted upstream on a
real socket, ``proxy`` the daemon in this process.  ``library`` has in memory what a site may bring of
its own to a proxy in it, ``store`` a store of projects and tokens.

With pytest-twisted, or anything else that runs the reactor::

    from llmproxyd.testing.proxy import ProxyUnderTest
    from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer

    upstream = FakeUpstream([Send(json_answer({"id": "x"}))]).listen(reactor)
    proxy = ProxyUnderTest(reactor, {"upstreams": {"openai": {"base_url": upstream.url}}}).start()
"""
