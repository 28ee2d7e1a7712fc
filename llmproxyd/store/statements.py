"""What is asked of the database: each function runs within one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from llmproxyd.access.projects import Project, Token
from llmproxyd.redaction import Secret
from llmproxyd.store import rows
from llmproxyd.store.encryption import Cipher
from llmproxyd.store.interface import Changes, Conflict, Outdated, UsageRow, Used
from llmproxyd.store.session import Row, Session

KEPT = 1000
"""Changes that are remembered.  Who missed more forgets everything."""

_AT_ONCE = 500
"""Values in one statement: SQLite took no more than 999 for long."""


def insert_project(session: Session, project: Project, cipher: Cipher) -> None:
    """Add *project*."""
    row = rows.project_row(project)
    session.run(f"INSERT INTO projects ({rows.PROJECT}) VALUES ({_marks(row)})", *row)
    _put_credentials(session, project, cipher)
    _changed(session, "project", project.id)


def update_project(session: Session, project: Project, cipher: Cipher, was: Project | None = None) -> bool:
    """Replace *project*; whether it was there.

    :raises Outdated: it is not *was*.
    """
    if was is not None and select_projects(session, cipher, project.id) not in ([], [was]):
        raise Outdated("the project has just been changed by somebody else")
    id, *values, _, updated = rows.project_row(project)
    changed = session.run(
        "UPDATE projects SET name = ?, active = ?, allow = ?, rpm = ?, tpm = ?, updated = ? WHERE id = ?",
        *values,
        updated,
        id,
    )
    if not changed:
        return False
    session.run("DELETE FROM credentials WHERE project = ?", id)
    _put_credentials(session, project, cipher)
    _changed(session, "project", project.id)
    return True


def delete_project(session: Session, id: str) -> bool:
    """Take the project away, and by the schema's rule its tokens and credentials."""
    if not rows.possible(id) or not session.run("DELETE FROM projects WHERE id = ?", id):
        return False
    _changed(session, "project", id)
    return True


def _put_credentials(session: Session, project: Project, cipher: Cipher) -> None:
    session.many(
        "INSERT INTO credentials (project, upstream, nonce, ciphertext) VALUES (?, ?, ?, ?)",
        [
            (project.id, upstream, *cipher.encrypt(secret.reveal(), project.id, upstream))
            for upstream, secret in project.credentials.items()
        ],
    )


def select_projects(session: Session, cipher: Cipher, id: str | None = None) -> list[Project]:
    """All projects by name, or that of *id*."""
    if id is not None and not rows.possible(id):
        return []
    where, values = ("", ()) if id is None else (" WHERE {} = ?", (id,))
    found = session.all(f"SELECT {rows.PROJECT} FROM projects{where.format('id')}", *values)
    credentials: dict[str, dict[str, Secret]] = {}
    for project, upstream, nonce, ciphertext in session.all(
        f"SELECT project, upstream, nonce, ciphertext FROM credentials{where.format('project')}", *values
    ):
        plain = cipher.decrypt(bytes(nonce), bytes(ciphertext), project, upstream)
        credentials.setdefault(project, {})[upstream] = Secret(plain)
    made = [rows.project_of(row, credentials.get(row[0], {})) for row in found]
    return sorted(made, key=lambda project: project.name)


def insert_token(session: Session, token: Token) -> None:
    """Add *token*.

    :raises Conflict: its project is not there.
    """
    row = rows.token_row(token)
    if session.one("SELECT 1 FROM projects WHERE id = ?", token.project) is None:
        raise Conflict("there is no project of this id")
    session.run(f"INSERT INTO tokens ({rows.TOKEN}) VALUES ({_marks(row)})", *row)
    _changed(session, "token", token.id)


def update_token(session: Session, token: Token, was: Token | None = None) -> bool:
    """Replace *token* but for its counts; whether it was there.

    :raises Outdated: but for its counts it is not *was*.
    """
    if was is not None:
        known = select_token(session, "id", token.id)
        if known is not None and not rows.same_but_counts(known, was):
            raise Outdated("the token has just been changed by somebody else")
    id, _, *values, _, _, _, _ = rows.token_row(token)
    changed = session.run(
        "UPDATE tokens SET digest = ?, shown = ?, name = ?, active = ?, expires_at = ?, max_requests = ?, "
        "rpm = ?, tpm = ?, scopes = ? WHERE id = ?",
        *values,
        id,
    )
    if changed:
        _changed(session, "token", token.id)
    return bool(changed)


def delete_token(session: Session, id: str) -> bool:
    """Take the token away; whether it was there."""
    if not rows.possible(id) or not session.run("DELETE FROM tokens WHERE id = ?", id):
        return False
    _changed(session, "token", id)
    return True


def select_token(session: Session, column: Literal["id", "digest"], value: str | bytes) -> Token | None:
    """The token whose *column* is *value*."""
    if isinstance(value, str) and not rows.possible(value):
        return None
    row = session.one(f"SELECT {rows.TOKEN} FROM tokens WHERE {column} = ?", value)
    return None if row is None else rows.token_of(row)


def select_tokens(session: Session, project: str | None) -> list[Token]:
    """The tokens of *project*, or all: the newest first."""
    if project is not None and not rows.possible(project):
        return []
    where, values = ("", ()) if project is None else (" WHERE project = ?", (project,))
    made = [rows.token_of(row) for row in session.all(f"SELECT {rows.TOKEN} FROM tokens{where}", *values)]
    return sorted(made, key=lambda token: (-token.created, token.id))


def add_used(session: Session, batch: Sequence[Used]) -> dict[str, int]:
    """Count *batch*; requests by the id of each of its tokens."""
    # In order, so that two hosts that count the same wait for each other in turn.
    session.many(
        "INSERT INTO usage (day, project, token, model, requests, input, output, cost) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, project, token, model) DO UPDATE SET "
        "requests = usage.requests + excluded.requests, input = usage.input + excluded.input, "
        "output = usage.output + excluded.output, cost = usage.cost + excluded.cost",
        sorted(rows.used_row(used) for used in batch),
    )
    sums: dict[str, list[float]] = {}
    for used in batch:
        known = sums.setdefault(used.token, [0, 0, rows.moment(used.last_used, "last_used") or 0.0])
        known[0] += used.requests
        known[1] += used.input + used.output
        known[2] = max(known[2], used.last_used)
    session.many(
        "UPDATE tokens SET requests = requests + ?, tokens = tokens + ?, "
        "last_used = CASE WHEN last_used > ? THEN last_used ELSE ? END WHERE id = ?",
        [(requests, tokens, last, last, id) for id, (requests, tokens, last) in sorted(sums.items())],
    )
    return _requests(session, sorted(sums))


def _requests(session: Session, ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for at in range(0, len(ids), _AT_ONCE):
        some = ids[at : at + _AT_ONCE]
        found.update(session.all(f"SELECT id, requests FROM tokens WHERE id IN ({_marks(some)})", *some))
    return found


def select_changes(session: Session, since: int) -> Changes:
    """What was changed after *since*."""
    row = session.one("SELECT MIN(seq), MAX(seq) FROM changes")
    first, last = row if row is not None and row[1] is not None else (1, 0)
    if since == last:
        return Changes(last)
    if since > last or since < first - 1:
        # Another database stands here now, or what we ask for is forgotten.
        return Changes(last, all=True)
    found: dict[str, dict[str, None]] = {"project": {}, "token": {}}
    for kind, id in session.all("SELECT kind, id FROM changes WHERE seq > ? ORDER BY seq", since):
        found.setdefault(kind, {})[id] = None
    return Changes(last, tuple(found["project"]), tuple(found["token"]))


def select_usage(session: Session, by: Literal["project", "token", "model"], since: str) -> list[UsageRow]:
    """What was used from the day *since* on, the most first."""
    if by not in ("project", "token", "model"):
        raise ValueError(f"usage is told by project, token or model, not by {by!r}")
    found = session.all(
        f"SELECT {by}, SUM(requests), SUM(input), SUM(output), SUM(cost) FROM usage WHERE day >= ? "
        f"GROUP BY {by}",
        rows.text(since, "a day"),
    )
    return in_order(UsageRow(name, int(a), int(b), int(c), float(cost)) for name, a, b, c, cost in found)


def in_order(found: Iterable[UsageRow]) -> list[UsageRow]:
    """*found*, the most first."""
    return sorted(found, key=lambda row: (-row.cost, -row.input - row.output, -row.requests, row.name))


def _changed(session: Session, kind: str, id: str) -> None:
    """Add to the sequence of changes, which has no gap: the transaction is the only one that does so."""
    session.run(
        "INSERT INTO changes (seq, kind, id) "
        "SELECT COALESCE(MAX(seq), 0) + 1, CAST(? AS TEXT), CAST(? AS TEXT) FROM changes",
        kind,
        id,
    )
    session.run("DELETE FROM changes WHERE seq <= (SELECT MAX(seq) FROM changes) - ?", KEPT)


def _marks(values: Sequence[object] | Row) -> str:
    return ", ".join("?" * len(values))
