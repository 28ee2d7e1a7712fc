"""What ``llmproxyctl`` shows to people: aligned tables and lists of members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


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


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> str:
    """Columns below their *heads*.

    :param right: numbers of the columns that are aligned to the right.
    """
    lines = [list(heads), *([plain(one) for one in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    to_the_right = set(right)
    out = []
    for line in lines:
        cells = [
            cell.rjust(width) if column in to_the_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
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
