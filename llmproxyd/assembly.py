"""A pipeline and all that it needs, from a configuration.  It listens nowhere and talks to nobody.

The daemon and the library stand on it.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail

from llmproxyd.config.cassettes import with_recorded
from llmproxyd.config.scenariofile import folder_of
from llmproxyd.config.schema import Config
from llmproxyd.config.schema import Upstream as Settings
from llmproxyd.control.scenarios import Scenarios
from llmproxyd.faults.choose import Engine
from llmproxyd.gateway import NO_PARTS, Gateway, Parts
from llmproxyd.inspection.prices import Prices
from llmproxyd.listen import StartError
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.journal import Journal
from llmproxyd.observe.lag import Lag
from llmproxyd.observe.metrics import Metrics, Sources
from llmproxyd.observe.recording import Recording, secrets_in
from llmproxyd.observe.sink import Sink
from llmproxyd.observe.targets import Targets
from llmproxyd.pipeline.build import policy_of, router_of, upstreams_of
from llmproxyd.pipeline.deck import Deck, NotUsable
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.route import Router
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.pipeline.sends import Sends
from llmproxyd.pipeline.upstream import PassThroughClient, Sender, client_for
from llmproxyd.pipeline.watching import Watch
from llmproxyd.providers.base import Provider
from llmproxyd.redaction import Redactor
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.wire import tls
from llmproxyd.wire.agent import ProxyAgent
from llmproxyd.wire.head import Limits
from llmproxyd.wire.wheel import Wheel

GOODBYE = 2.0
"""Seconds for idle upstream connections to close when stopping."""


@dataclass(frozen=True, slots=True)
class Made:
    """The connections to one upstream.

    :param key: the settings that they were made with.
    """

    key: object
    agent: ProxyAgent
    client: PassThroughClient


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a configuration asks for."""

    config: Config
    upstreams: Mapping[str, Upstream]
    router: Router[Upstream]
    agents: Mapping[str, Made]


class Assembly:
    """The moving parts, then the pipeline on top of them.

    :param redactor: learns the secrets of the configuration; others may use it too.
    :raises StartError: in one line, why it cannot be built.
    :ivar connections: how many clients have open, as far as anybody knows.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        providers: Mapping[str, Provider],
        parts: Parts = NO_PARTS,
        redactor: Redactor | None = None,
    ) -> None:
        self.config = config
        self.reactor = reactor
        self.providers = providers
        self.wheel = Wheel(reactor)
        self.sink = Sink()
        self.targets = Targets()
        self.live = Live(reactor.seconds, self.sink.emit)
        self.redactor = Redactor() if redactor is None else redactor
        self.redactor.learn(secrets_in(config))
        self.recording = Recording(config, reactor, time.time, reactor.callFromThread, self.redactor)
        self.engine = Engine(reactor.seconds, random.Random(), [rule.rule() for rule in config.faults.rules])
        self.engine.limits.replace_file([limit.limit() for limit in config.faults.limits])
        self.upstreams: dict[str, Upstream] = {}
        folder = folder_of(config)
        self.scenarios = Scenarios(self.engine, random.Random, folder, self.upstreams, providers)
        self.gateway = Gateway(config, reactor, self.redactor, parts)
        kept = config.journal
        form = EventFormat(self.redactor, Prices(config.events.prices), (kept.bodies, kept.bodies))
        self.journal = Journal(kept.requests, time.time, form, bodies=kept.bodies)
        self.watch = Watch(
            key=secrets.token_bytes(32),
            wheel=self.wheel,
            wall=time.time,
            enabled=config.verdicts.enabled,
            window=config.verdicts.window,
            max_retries=config.verdicts.max_retries,
            rehearsal=self.engine,
        )
        self.deck = Deck(
            config.record,
            config.replay,
            self.wheel,
            time.time,
            reactor.callFromThread,
            secrets_in(config),
        )
        self._sandbox: str | None = None
        self._clients: dict[str, PassThroughClient] = {}
        self.connections: Callable[[], int] = lambda: 0
        self._agents: dict[str, Made] = {}
        self._lag = Lag(reactor)
        self._began = reactor.seconds()

    def build(self, sandbox: str | None = None) -> Pipeline:
        """Make the pipeline; web pages are not guarded against before :meth:`guard`.

        :param sandbox: URL of the stand-in, which then takes the place of every provider.
        :raises StartError: there are recordings that cannot be used.
        """
        config, gateway = self.config, self.gateway
        self._sandbox = sandbox
        self.watch.rehearse(on_request=config.faults.header)
        real: Sends = Sender(self.wheel, self._clients)
        try:
            through = self.deck.before(real)
        except NotUsable as error:
            raise StartError(f"replay.folder: {error}") from None
        plan = self.prepare(config)
        self._take(plan)
        # What an operator has asked is not recorded.
        self.sender = through if self.deck.replaying else real
        self.pipeline = Pipeline(
            policy=policy_of(config, plan.router, guard=False),
            sender=through,
            engine=self.engine,
            emit=self.sink.emit,
            wheel=self.wheel,
            wall=time.time,
            announcing=lambda: self.sink.announcing,
            prefix=secrets.token_hex(4),
            live=self.live,
            entrance=gateway.entrance(self.sink),
            cache=gateway.cache,
            watch=self.watch,
            draw=random.random,
        )
        prices = Prices(config.events.prices) if config.events.prices else None
        self.metrics = Metrics(self._sources(), genai=config.metrics.genai, prices=prices)
        self.sink.subscribe(self.targets, arrivals=False)
        self.sink.subscribe(self.journal, arrivals=False)
        if config.metrics.enabled:
            self.sink.subscribe(self.metrics, arrivals=False)
        return self.pipeline

    def prepare(self, config: Config) -> Prepared:
        """What *config* asks for, made but not in use.

        :raises StartError: it cannot be made, in one line.
        """
        wanted = config
        if recorded := self.deck.providers & self.providers.keys():
            wanted = replace(config, upstreams=with_recorded(config.upstreams, recorded))
        upstreams = upstreams_of(wanted, self.providers, self._sandbox)
        router = router_of(config, upstreams, self.providers)
        agents = {name: self._agent(config, upstream) for name, upstream in upstreams.items()}
        return Prepared(config, upstreams, router, agents)

    def adopt(self, plan: Prepared, *, browsers: bool) -> None:
        """Go by *plan* from now on; requests under way keep what they have.

        Breakers, budgets, keys at rest, counters and pools live on under their names.

        :param browsers: see :meth:`guard`.
        """
        config = self.config = plan.config
        self.redactor.learn(secrets_in(config))
        self.deck.learn(secrets_in(config))
        self.watch.rehearse(on_request=config.faults.header)
        self._take(plan)
        self.live.breakers.reload({name: one.resilience.breaker for name, one in plan.upstreams.items()})
        if isinstance(self.gateway.door, Doorkeeper):
            self.gateway.door.enforce_active = config.access.enforce_active
        self.guard(browsers=browsers)

    def _take(self, plan: Prepared) -> None:
        # The mappings stay the same objects: others look into them.
        self.upstreams.clear()
        self.upstreams.update(plan.upstreams)
        self._router = plan.router
        for name, made in list(self._agents.items()):
            if plan.agents.get(name) is not made:
                # What is under way goes on; a request on its way to an upstream that is gone, too.
                made.agent.close()
        self._agents.update(plan.agents)
        self._clients.update({name: made.client for name, made in plan.agents.items()})

    def guard(self, *, browsers: bool) -> None:
        """Refuse web pages from now on, where a key is stored and nobody but this machine gets in."""
        self.pipeline.policy = policy_of(self.config, self._router, guard=browsers)

    def wire(self) -> dict[str, Any]:
        """What every :class:`~llmproxyd.wire.site.WireSite` needs."""
        server = self.config.server
        limits = Limits(
            max_headers=server.max_headers,
            max_body=server.max_body,
            header_timeout=server.header_timeout,
            idle_timeout=server.idle_timeout,
        )
        return {"clock": self.reactor, "wall": time.time, "wheel": self.wheel, "limits": limits}

    def uptime(self) -> float:
        """Seconds since it was made."""
        uptime: float = self.reactor.seconds() - self._began
        return uptime

    def start(self) -> Deferred[None]:
        """Begin to record, and open the store; see :meth:`Gateway.start`.

        Fails with :exc:`StartError` where the folder of recordings cannot be written to.
        """
        try:
            self.deck.start()
        except NotUsable as error:
            return fail(StartError(str(error)))
        if self.config.metrics.enabled:
            self._lag.start()
        self.recording.start(self.sink)
        return self.gateway.start(self.sink)

    def stop(self) -> Deferred[Any]:
        """Close idle connections, write what waits."""
        self._lag.stop()
        self.watch.stop()
        # A peer that does not answer our goodbye does not hold us up.
        closing = DeferredList([made.agent.close() for made in self._agents.values()])
        closing.addTimeout(GOODBYE, self.reactor).addBoth(lambda _: None)
        closing.addCallback(lambda _: self.deck.stop())
        return closing.addCallback(lambda _: self.gateway.stop()).addCallback(lambda _: self.recording.stop())

    def _agent(self, config: Config, upstream: Upstream) -> Made:
        """The connections to *upstream*: those that there are, if they are to be as they are."""
        settings = config.upstreams.get(upstream.name, Settings())
        key = (settings.tls, settings.pool, settings.proxy, upstream.timeouts.connect)
        known = self._agents.get(upstream.name)
        # Files of certificates may have changed under their names.
        if known is not None and known.key == key and settings.tls == Settings().tls:
            return known
        try:
            trust = tls.policy(
                ca_file=settings.tls.ca_file,
                verify=settings.tls.verify,
                client_cert=settings.tls.client_cert,
            )
        except tls.TLSFileError as error:
            raise StartError(f"upstreams.{upstream.name}.tls: {error}") from error
        agent = ProxyAgent(
            self.reactor,
            trust,
            wheel=self.wheel,
            connect_timeout=upstream.timeouts.connect,
            max_connections=settings.pool.max_connections,
            max_idle=settings.pool.max_idle,
            idle=settings.pool.idle,
            proxy=None if settings.proxy is None else settings.proxy.reveal().encode(),
        )
        return Made(key, agent, client_for(agent))

    def _sources(self) -> Sources:
        """Whom the metrics ask at each scrape."""
        gateway, live = self.gateway, self.live
        shelf = self.pipeline.shelf
        return Sources(
            uptime=self.uptime,
            active=lambda: len(self.pipeline.active),
            connections=lambda: self.connections(),
            pools=self._pools,
            breakers=lambda: [(one.name, one.state) for one in live.breakers],
            budgets=lambda: live.budget_states(),
            lag=lambda: self._lag.worst,
            events_dropped=lambda: gateway.bus.dropped,
            sink_failures=lambda: self.sink.failures,
            cache=None if shelf is None else shelf.stats,
            store_up=None if gateway.door is None else lambda: gateway.ready,
            redis_up=None if gateway.redis is None else lambda: bool(gateway.redis and gateway.redis.up),
        )

    def _pools(self) -> Mapping[str, Mapping[str, int]]:
        found = {}
        for name, made in self._agents.items():
            idle = made.agent.idle_connections
            found[name] = {"idle": idle, "busy": made.agent.open_connections - idle}
        return found
