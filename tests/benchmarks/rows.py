"""What was measured, as rows of one table: medians, with the least and the most in brackets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measure of ours and of a peer, taken in turns: the n-th values belong together."""

    section: str
    measure: str
    peer: str
    ours: tuple[float, ...]
    peers: tuple[float, ...]
    digits: int
    target: str

    @property
    def ratios(self) -> list[float]:
        return [ours / peer for ours, peer in zip(self.ours, self.peers, strict=True)]


def marginal_core_seconds(cores: int, walls: tuple[float, float], trials: tuple[int, int], training: float) -> float:
    """Core-seconds that one more trial costs beside its `training`, from the wall clocks of a short and a long run."""
    beside = [cores * wall - count * training for wall, count in zip(walls, trials, strict=True)]
    return (beside[1] - beside[0]) / (trials[1] - trials[0])


def table(rows: Sequence[Row], title: str) -> Table:
    made = Table(title=title)
    made.add_column("measure")
    made.add_column("ours", justify="right")
    made.add_column("peer", justify="right")
    made.add_column("the peer")
    made.add_column("ours / peer", justify="right")
    made.add_column("target for ours")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            made.add_section()
            made.add_row(section, style="bold")
        cells = spread(row.ours, row.digits), spread(row.peers, row.digits), row.peer, spread(row.ratios, 2)
        made.add_row(f"  {row.measure}", *cells, row.target)
    return made


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and in brackets the least and the most, of more than one."""
    middle = f"{median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} \\[{min(values):,.{digits}f}–{max(values):,.{digits}f}]"
