"""What follows from the rest of a configuration, filled in once it is read: places and defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llmproxyd.config.folders import Folders
from llmproxyd.config.gateway import Access, Audit, Events
from llmproxyd.config.schema import Config, Faults
from llmproxyd.config.urls import SQLITE
from llmproxyd.faults.scenariotext import is_file
from llmproxyd.redaction import SecretURL

AUDIT = Path("audit.jsonl")


def filled(config: Config, folders: Folders, *, faults_said: bool) -> Config:
    """*config* with the places of its logs and files, the default ones too.

    :param faults_said: ``operator.faults`` is somebody's word.
    """
    logging, errors = config.logging, config.error_logging
    operator = config.operator
    if not faults_said:
        operator = replace(operator, faults=not config.access.enabled)
    return replace(
        config,
        logging=replace(logging, folder=folders.of_logs(logging.folder)),
        error_logging=replace(errors, folder=folders.of_logs(errors.folder)),
        access=_access(config.access, folders),
        events=_events(config.events, folders),
        audit=_audit(config, folders),
        operator=operator,
        faults=_faults(config.faults, folders),
    )


def _faults(faults: Faults, folders: Folders) -> Faults:
    """With the paths of files as a whole."""
    scenario, report = faults.scenario, faults.report
    if scenario is not None and is_file(scenario):
        scenario = str(folders.resolve(scenario))
    return replace(faults, scenario=scenario, report=None if report is None else folders.of_state(report))


def _access(access: Access, folders: Folders) -> Access:
    """With the database's path as a whole."""
    text = access.store.reveal()
    if not text.startswith(SQLITE):
        return access
    path = folders.of_state(folders.expanded(text.removeprefix(SQLITE)))
    return replace(access, store=SecretURL(f"{SQLITE}{path}"))


def _events(events: Events, folders: Folders) -> Events:
    """With the paths of files as a whole."""
    dispatch = tuple(
        one if one.path is None else replace(one, path=folders.of_state(one.path)) for one in events.dispatch
    )
    return replace(events, dispatch=dispatch)


def _audit(config: Config, folders: Folders) -> Audit:
    """With a file where access is on: what an administrator changes is on record."""
    file = config.audit.file
    if file is None and config.access.enabled:
        file = AUDIT
    return Audit(None if file is None else folders.of_state(file))
