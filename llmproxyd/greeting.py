"""What the operator is told at the start, as text; where the output is JSON, as lines of the log."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from twisted.logger import Logger

from llmproxyd.assembly import Assembly
from llmproxyd.control.verbs import Control
from llmproxyd.observe.banner import Facts, Place, banner
from llmproxyd.observe.output import Output
from llmproxyd.pipeline.policy import Upstream


class Greeting:
    """Tells the operator things.

    :param as_json: the output is lines of JSON, and so is what is told.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(self, output: Output, *, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json

    def say(self, text: str) -> None:
        """Tell *text*, which is whole lines."""
        if self._as_json:
            self.log.info("{text}", text=text.rstrip())
        else:
            self._output.write(text)

    def greet(
        self,
        works: Assembly,
        control: Control,
        addresses: Sequence[str],
        *,
        notes: Sequence[str],
        warnings: Sequence[str],
        at_console: bool,
    ) -> None:
        """Say what is there, and how it is used.

        :param addresses: URLs on which we listen.
        :param notes: on what is rehearsed.
        :param at_console: somebody can type commands.
        """
        if self._as_json:
            self.log.info(
                "Listening on {urls}; mode: {mode}", urls=", ".join(addresses), mode=control.mode_in_words()
            )
            for note in notes:
                self.log.info("{note}", note=note)
            self._warn(warnings)
            return
        # The journal shows a warning as one, which a banner cannot.
        in_log = self._output.journald
        shown = banner_of(works, addresses, notes, () if in_log else warnings, symbols=self._output.symbols)
        self._output.write(f"{shown}\n{control.status().text}")
        if in_log:
            self._warn(warnings)
        if at_console:
            self._output.write("\n" + control.help().text)

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self.log.warn("{warning}", warning=warning)


def banner_of(
    works: Assembly, addresses: Sequence[str], notes: Sequence[str], warnings: Sequence[str], *, symbols: bool
) -> str:
    """The banner of what has been built."""
    config = works.config
    return banner(
        Facts(
            version=version("llmproxyd"),
            addresses=addresses,
            state_folder=str(config.state_folder),
            source=None if config.source is None else str(config.source),
            upstreams=[
                Place(name, one.provider.name, one.base_url, one.keyed, absorbs(one))
                for name, one in sorted(works.upstreams.items())
            ],
            default=config.server.single_upstream or config.default_upstream,
            single=config.server.single_upstream,
            prefix=config.server.path_prefix.rstrip("/"),
            preset=config.preset,
            providers=works.providers.values(),
            timeouts=config.timeouts,
            sandbox=config.sandbox.enabled,
            notes=notes,
            warnings=warnings,
            symbols=symbols,
        )
    )


def absorbs(upstream: Upstream) -> tuple[str, ...]:
    """What is done about the failures of *upstream*, for people."""
    policy = upstream.resilience
    told = []
    if count := policy.retry.max_retries:
        told.append("1 retry" if count == 1 else f"{count} retries")
    if policy.breaker.enabled:
        told.append("breaker")
    if len(upstream.keys) > 1:
        told.append(f"{len(upstream.keys)} keys")
    if upstream.fallbacks:
        told.append("else " + ", ".join(one.upstream for one in upstream.fallbacks))
    return tuple(told)
