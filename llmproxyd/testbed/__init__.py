"""For tests on real sockets: a scripted upstream and the daemon in this process; shipped.

With pytest-twisted, or anything else that runs the reactor::

    from llmproxyd.testbed.proxy import ProxyUnderTest
    from llmproxyd.testbed.upstream import FakeUpstream, Send, json_answer

    upstream = FakeUpstream([Send(json_answer({"id": "x"}))]).listen(reactor)
    proxy = ProxyUnderTest(reactor, {"upstreams": {"openai": {"base_url": upstream.url}}}).start()
"""
