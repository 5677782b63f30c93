"""``tow simulate``: what a policy or a cluster would do, on a trace, in virtual time, or what servers do
while everything breaks; and ``tow events export``, which writes such a trace."""

from __future__ import annotations

import typer

from towline.cli.simulate import exporting
from towline.cli.simulate.events import events
from towline.cli.simulate.faults import simulate as faults
from towline.cli.simulate.openb import openb
from towline.cli.simulate.swf import swf

simulate = typer.Typer(invoke_without_command=True)


def add(app: typer.Typer) -> None:
    exporting.add(app)
    simulate.callback()(faults)
    simulate.command("events")(events)
    simulate.command("openb")(openb)
    simulate.command("swf")(swf)
    app.add_typer(simulate, name="simulate")
