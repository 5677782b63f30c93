"""Plots of a comparison, with matplotlib (the extra ``towline[plot]``); equal records make equal files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from towline.core.queues.amounts import GPU
from towline.simulation.replay.record import Record

_HOUR_MS = 3_600_000
_WIDTH, _HEIGHT = 10.0, 3.2
_LEGEND_AT_MOST = 12


def draw(records: Mapping[str, Record], path: Path) -> None:
    """Utilisation over time, what is queued, and the distribution of waits: a line a policy."""
    with_gpus = any(record.capacity[GPU] for record in records.values())
    figure = Figure(figsize=(_WIDTH, _HEIGHT * (3 + with_gpus)), layout="constrained")
    axes = figure.subplots(3 + with_gpus, 1, squeeze=False)[:, 0]
    _over_time(axes[0], records, "cpu", "CPUs held, %", 100)
    if with_gpus:
        _over_time(axes[1], records, "gpu", "GPUs allocated, %", 100)
    _over_time(axes[-2], records, "queued", "elements queued", 1)
    _waits(axes[-1], records)
    if len(records) <= _LEGEND_AT_MOST:
        axes[0].legend(loc="upper right", fontsize="small")
    _write(figure, path)


def draw_allocation(told: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Of openb: the allocation of GPUs at each arrived demand, a group of bars a demand."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT * 1.5), layout="constrained")
    axes = figure.subplots()
    demands = list(dict.fromkeys(at for one in told.values() for at in one["allocation"]))
    width = 0.8 / max(len(told), 1)
    for number, (name, one) in enumerate(told.items()):
        heights = [one["allocation"].get(at, 0.0) for at in demands]
        places = [at + (number - (len(told) - 1) / 2) * width for at in range(len(demands))]
        axes.bar(places, heights, width, label=f"{name}, {one['failed_pods']:g} failed")
    axes.set_xticks(range(len(demands)), [f"{at} %" for at in demands])
    axes.set_xlabel("GPUs asked for so far")
    axes.set_ylabel("GPUs allocated, %")
    lowest = min((value for one in told.values() for value in one["allocation"].values()), default=0.0)
    axes.set_ylim(max(0.0, lowest - 5), 100)
    axes.legend(loc="lower right", fontsize="small")
    _write(figure, path)


def _over_time(axes: Axes, records: Mapping[str, Record], field: str, title: str, factor: float) -> None:
    for name, record in records.items():
        hours = [(each.at_ms - record.began_ms) / _HOUR_MS for each in record.samples]
        axes.plot(
            hours, [getattr(each, field) * factor for each in record.samples], label=name, linewidth=0.9
        )
    axes.set_xlabel("hours")
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _waits(axes: Axes, records: Mapping[str, Record]) -> None:
    """How many % of the elements waited at most so long. Waits below a second stand at one."""
    for name, record in records.items():
        waits = sorted(max(start.wait_ms, 1000) / 1000 for start in record.starts)
        parts = [100 * (at + 1) / len(waits) for at in range(len(waits))]
        axes.step(waits, parts, where="post", label=name, linewidth=0.9)
    if any(record.starts for record in records.values()):
        axes.set_xscale("log")
    axes.set_xlabel("wait of at most, seconds")
    axes.set_ylabel("elements, %")
    axes.set_ylim(0, 101)


def _write(figure: Figure, path: Path) -> None:
    suffix = path.suffix.lower().removeprefix(".")
    with matplotlib.rc_context({"svg.hashsalt": "towline", "svg.fonttype": "none"}):
        metadata: dict[str, Any] = {"Date": None} if suffix == "svg" else {}
        figure.savefig(path, format=suffix, dpi=120, metadata=metadata)
