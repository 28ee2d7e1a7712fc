"""All providers by name: every file of this package, and entry points from outside."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

from llmproxyd import providers as _package
from llmproxyd.providers.base import Provider

ENTRY_POINT_GROUP = "llmproxyd.providers"


class ProviderError(Exception):
    """An installed provider cannot be used; the message says which and why."""


def built_in() -> list[Provider]:
    """The providers of this package: each module that defines ``PROVIDER``."""
    found = []
    for info in pkgutil.iter_modules(_package.__path__):
        module = importlib.import_module(f"{_package.__name__}.{info.name}")
        provider = getattr(module, "PROVIDER", None)
        if provider is not None:
            found.append(provider)
    return found


def from_entry_points() -> list[Provider]:
    """The providers that installed distributions name in the group ``llmproxyd.providers``.

    :raises ProviderError: an entry cannot be loaded, or is no :class:`Provider`.
    """
    found = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            provider = entry.load()
        except Exception as error:
            raise ProviderError(
                f"the provider {entry.name} = {entry.value} cannot be loaded: {error}"
            ) from error
        if not isinstance(provider, Provider):
            raise ProviderError(f"{entry.name} = {entry.value} is not a llmproxyd Provider")
        found.append(provider)
    return found


def registry(found: Iterable[Provider] | None = None) -> Mapping[str, Provider]:
    """Providers by name; one from outside replaces a built-in one of the same name."""
    if found is None:
        found = [*built_in(), *from_entry_points()]
    return MappingProxyType({provider.name: provider for provider in found})
