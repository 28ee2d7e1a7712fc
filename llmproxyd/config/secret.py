"""Secrets: a text, ``${VARIABLE}``, ``{file: PATH}`` or ``{credential: NAME}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath

from llmproxyd.config.folders import Folders
from llmproxyd.config.problems import Path, did_you_mean, path_text, quoted
from llmproxyd.config.tree import Layer, Listing, Node, Scalar, Table
from llmproxyd.redaction import REDACTED, Secret, SecretURL

MAX_SECRET = 64 * 1024
"""Bytes of a secret's file.  The longest token is a fraction of it; a device would be endless."""

OTHERS = 0o004
"""The permission of everybody else to read."""

_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SENSITIVE_FIELD = re.compile("auth|key|token|secret|cookie|passw", re.IGNORECASE)
_FORMS = ("file", "credential")


class SecretReader:
    """Reads secrets from wherever they are kept.

    :param environ: for ``${VARIABLE}`` and ``$CREDENTIALS_DIRECTORY``.
    :param folders: what relative paths stand against.
    """

    def __init__(self, environ: Mapping[str, str], folders: Folders) -> None:
        self._environ = environ
        self._folders = folders
        self.literal: list[Scalar] = []
        """The secrets that stand in the configuration file itself."""
        self.warnings: list[str] = []

    def read(self, node: Node, path: Path, kind: type[Secret] = Secret) -> Secret:
        """The secret that *node* holds or points to.

        :param path: of the key, for warnings.
        :param kind: of the secret; a URL may hold a path in any script.
        :raises ValueError: with a message that never holds the secret.
        """
        if isinstance(node, Scalar):
            text = self._inline(node, path, kind)
        elif isinstance(node, Listing):
            raise ValueError("found a list; accepted: one secret")
        else:
            text = self._kept(node, path)
        if not text:
            raise ValueError("the secret is empty")
        if issubclass(kind, SecretURL):
            if not text.isprintable():
                raise ValueError("the URL must be one line of text")
        elif not text.isascii() or not text.isprintable():
            raise ValueError("the secret must be one line of ASCII text, as it becomes a header field")
        if REDACTED in text:
            self.warnings.append(
                f"{node.source}: {path_text(path)}: holds the placeholder {REDACTED} instead of a secret"
            )
        return kind(text)

    def _inline(self, node: Scalar, path: Path, kind: type[Secret]) -> str:
        # What comes from the environment or the command line is taken as it is: whoever
        # exports a key does not expect its dollar signs to be read.
        if node.source.layer not in (Layer.FILE, Layer.PRESET):
            return node.text
        pointed = any(not escape for escape, _ in _VARIABLE.findall(node.text))
        harmless = issubclass(kind, SecretURL) and not SecretURL(node.text).hidden()
        if not pointed and not harmless and _sensitive(path):
            self.literal.append(node)
        return _VARIABLE.sub(self._variable, node.text)

    def _variable(self, match: re.Match[str]) -> str:
        escape, name = match.groups()
        if escape:
            return match.group()[1:]
        if not match.group().endswith("}") or not _VARIABLE_NAME.fullmatch(name):
            raise ValueError('a reference to a variable is written "${NAME}"; write "$${" for a plain "${"')
        value = self._environ.get(name)
        if not value:
            raise ValueError(f"the environment variable {name} is {'not set' if value is None else 'empty'}")
        return value

    def _kept(self, table: Table, path: Path) -> str:
        names = list(table.entries)
        value = table.entries[names[0]].value if names else None
        if len(names) != 1 or names[0] not in _FORMS:
            near = did_you_mean(names[0], _FORMS) if len(names) == 1 else ""
            raise ValueError(
                f"found a mapping of other keys{near}; accepted: {{file: PATH}}, {{credential: NAME}}"
            )
        if not isinstance(value, Scalar) or value.is_null:
            raise ValueError(f"{names[0]}: accepted: {'a path' if names[0] == 'file' else 'a name'}")
        if names[0] == "credential":
            return _first_line(self._credential(value.text))
        file = self._folders.resolve(value.text)
        text = _first_line(file)
        if mode(file) & OTHERS:
            self.warnings.append(
                f"{value.source}: {path_text(path)}: others can read {file}; chmod o= {file}"
            )
        return text

    def _credential(self, name: str) -> FilePath:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ValueError("$CREDENTIALS_DIRECTORY is not set; is LoadCredential= in the systemd unit?")
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise ValueError(f"{quoted(name)} is no name of a credential; it has no slashes")
        return FilePath(folder) / name


def _sensitive(path: Path) -> bool:
    """Whether a text at *path* must be kept from others.

    Any header's value is shown to nobody, but ``x-team: research`` is worth no warning.
    """
    return path[-2:-1] != ("headers",) or bool(_SENSITIVE_FIELD.search(str(path[-1])))


def _first_line(file: FilePath) -> str:
    """The text of *file* without the line break that editors put at its end.

    :raises ValueError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_SECRET + 1)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_SECRET:
        raise ValueError(f"{file} is longer than {MAX_SECRET // 1024} KiB; is it the right file?")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not text") from None


def mode(file: FilePath) -> int:
    """The permissions of *file*, none when it is gone meanwhile."""
    try:
        return file.stat().st_mode
    except OSError:
        return 0
