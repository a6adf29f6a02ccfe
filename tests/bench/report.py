"""The report of what `netd.py` measured: text, with the bars that hold or do not, and a plot."""

import statistics
from dataclasses import dataclass

from plot import Bars, Line, svg

_WIDTH = 40


@dataclass(frozen=True)
class Bar:
    """What must hold: `value` is at most, or with `least` at least, `limit`."""

    name: str
    value: float
    limit: float
    least: bool = False

    @property
    def holds(self):
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self):
        sign, verdict = ">=" if self.least else "<=", "holds" if self.holds else "FAILS"
        return f"  {self.name:58} {self.value:6.2f}  {sign} {self.limit:<5g} {verdict}"


def write(figures, plot):
    """Print the report and draw the plot; return 1 if something does not hold, otherwise 0."""
    few, many = list(figures["attach"])[1:]
    rows = _rows(figures)
    for title, unit, values in rows:
        print(f"\n{title}, {unit}")
        most = max(values.values())
        for name, value in values.items():
            mark = "#" * max(1, round(value / most * _WIDTH))
            print(f"  {name:16} {value:12,.2f}  {mark}")
    print(f"\nScrape of all metrics at {many}")
    for name, (taken, size) in figures["scrape"].items():
        print(f"  {name:16} {taken:9,.1f} ms {size:12,} bytes")
    print("\nFrom damage to repair, ms: median (most)")
    for name, kinds in figures["repairs"].items():
        words = ", ".join(f"{kind} {each[0]:,.0f} ({each[1]:,.0f})" for kind, each in kinds.items())
        print(f"  {name:16} {words}")
    print(f"\nFilled to {many} in {figures['fill_seconds']:.0f} s. What must hold:")
    bars = _bars(figures, few, many)
    for bar in bars:
        print(bar)
    plot.write_text(svg(f"netd: {many}", _panels(figures, rows)))
    print(f"plot: {plot}")
    return int(not all(bar.holds for bar in bars))


def _p50(samples):
    return {name: statistics.median(values) for name, values in samples.items()}


def _p99(samples):
    return {name: statistics.quantiles(values, n=100)[98] for name, values in samples.items()}


def _middle(turn):
    return statistics.median(turn) if isinstance(turn, list) else turn


def _in_turns(samples, one, other):
    """Return how many times `other` one is: the median of turns, in which both were measured."""
    return statistics.median(
        _middle(a) / _middle(b) for a, b in zip(samples[one], samples[other], strict=True)
    )


def _rows(figures):
    microseconds = {
        name: [second * 1e6 for turn in turns for second in turn]
        for name, turns in figures["latency"].items()
    }
    thousands = {
        name: [each / 1_000 for each in values] for name, values in figures["small"].items()
    }
    gigabits = {
        name: [each * 1_514 * 8 / 1e9 for each in values]
        for name, values in figures["large"].items()
    }
    return (
        ("AttachPort / CNI ADD, p50", "ms", _p50(figures["attach"])),
        ("DetachPort / CNI DEL, p50", "ms", _p50(figures["detach"])),
        ("UDP guest-outside-guest, p50", "us", _p50(microseconds)),
        ("UDP guest-outside-guest, p99", "us", _p99(microseconds)),
        ("Frames of 106 bytes, guest to outside", "1000/s", _p50(thousands)),
        ("Frames of 1,514 bytes, guest to outside", "Gbit/s", _p50(gigabits)),
    )


def _bars(figures, few, many):
    attach, detach = _p50(figures["attach"]), _p50(figures["detach"])
    latency = _in_turns(figures["latency"], many, few)
    small, large = (_in_turns(figures[kind], many, few) for kind in ("small", "large"))
    bars = []
    for name, call, theirs, ours in (
        ("AttachPort", "ADD", attach["CNI"], attach),
        ("DetachPort", "DEL", detach["CNI"], detach),
    ):
        bars += [Bar(f"{name} at {at} / CNI {call}", ours[at] / theirs, 0.25) for at in (few, many)]
        bars.append(Bar(f"{name} at {many} / at {few}", ours[many] / ours[few], 1.2))
    bars += [
        Bar(f"latency p50 at {many} / at {few}", latency, 1.1),
        Bar(f"small frames a second at {many} / at {few}", small, 0.9, True),
        Bar(f"throughput at {many} / at {few}", large, 0.9, True),
    ]
    slowest = max(each[0] for kinds in figures["repairs"].values() for each in kinds.values())
    bars.append(Bar("slowest kind of repair, median, seconds", slowest / 1_000, 1.0))
    return bars


def _panels(figures, rows):
    bars = [Bars(title, unit, _short(values)) for title, unit, values in rows]
    curve = Line("AttachPort p50", "ms", "ports attached", figures["curve"])
    return [bars[0], bars[1], curve, bars[2], bars[4], bars[5]]


def _short(values):
    return {name.removesuffix(" ports"): value for name, value in values.items()}
