"""Fixtures of stores, for modules with ``pytest_plugins = ["storefixtures"]``."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from storebench import Kind

sys.path.insert(0, str(Path(__file__).parents[1]))
from pgserver import PostgresUnderTest, postgres_under_test

_number = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresUnderTest]:
    yield from postgres_under_test()


@pytest.fixture
def postgres_database(postgres: PostgresUnderTest) -> Iterator[str]:
    name = f"test{next(_number)}"
    yield postgres.database(name)
    postgres.drop(name)


@pytest.fixture
def sqlite(tmp_path: Path, _nothing_left: None) -> Iterator[Kind]:
    kind = Kind("sqlite:llmproxyd.db", tmp_path)
    yield kind
    kind.close()


@pytest.fixture
def postgresql(postgres_database: str, tmp_path: Path, _nothing_left: None) -> Iterator[Kind]:
    kind = Kind(postgres_database, tmp_path)
    yield kind
    kind.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.getfixturevalue(request.param)
    return found
