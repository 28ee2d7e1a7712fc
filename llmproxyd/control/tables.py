"""What people are shown: aligned tables and lists of members, in colour where that can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"
_COLOURS: Mapping[str, str] = {
    **dict.fromkeys(("open", "inactive", "expired", "used up", "failed"), RED),
    **dict.fromkeys(("half-open", "draining", "drained"), YELLOW),
    **dict.fromkeys(("closed", "enabled", "active", "hit"), GREEN),
}
"""By the word that a cell is, or begins with before a comma."""


def paint(text: str, code: str, on: bool) -> str:
    """*text* in the colour *code* (SGR, ECMA-48 §8.3.117), as it is where colours are not *on*."""
    return f"\x1b[{code}m{text}\x1b[0m" if on and text else text


def _painted(cell: str, head: str) -> str:
    word = cell.strip()
    code = _COLOURS.get(word.partition(",")[0])
    if head == "STATUS" and word.isdigit():
        code = RED if word >= "500" else YELLOW if word >= "400" else GREEN
    return cell if code is None else cell.replace(word, paint(word, code, True))


def plain(value: object) -> str:
    """*value* on one line, without anything that a terminal would act on."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if value % 1 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(name)}: {plain(one)}" for name, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value) or "-"
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Iterable[int] = (),
    *,
    colour: bool = False,
) -> str:
    """Columns below their *heads*.

    :param right: numbers of the columns that are aligned to the right.
    """
    lines = [list(heads), *([plain(one) for one in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    to_the_right = set(right)
    out: list[str] = []
    for line in lines:
        cells = [
            cell.rjust(width) if column in to_the_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        if colour and out:
            cells = [_painted(cell, head) for cell, head in zip(cells, heads, strict=True)]
        text = "  ".join(cells).rstrip()
        out.append(text if out else paint(text, BOLD, colour))
    return "\n".join(out)


def members(value: Mapping[str, object], indent: int = 0) -> str:
    """One member a line; what has members itself below it, further to the right."""
    width = max((len(plain(name)) for name in value), default=0)
    lines = []
    for name, one in value.items():
        lead = " " * indent + plain(name)
        if isinstance(one, Mapping) and one:
            lines += [lead, members(one, indent + 2)]
        elif isinstance(one, list) and any(isinstance(each, Mapping) for each in one):
            lines.append(lead)
            lines += [members(each, indent + 2) for each in one if isinstance(each, Mapping)]
        else:
            lines.append(f"{' ' * indent}{plain(name):<{width}}  {plain(one)}")
    return "\n".join(lines)
