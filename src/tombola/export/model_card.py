"""The model card of a ticket: what it is, how good it is against the dense network, and how to repeat it."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from tombola.analysis.measures import early_of
from tombola.analysis.verdicts import verdicts
from tombola.errors import InputError
from tombola.export.measured_card import card_lines
from tombola.formatting import counted, percent, plain, signed, value, with_unit
from tombola.running.results import Results
from tombola.running.ticket import Ticket
from tombola.studies.command import command
from tombola.tasks.metric import metric_of

TAGS = ("lottery-ticket", "pruning", "sparse", "pytorch")


def card(ticket: Ticket, results: Results | None) -> str:
    """Return the text of README.md.

    Args:
        ticket: that it describes.
        results: of the ticket's study, for the verdict; without them the card says that it is unknown.

    Raises:
        InputError: the ticket is not of these results.
    """
    origin = ticket.origin
    head = ["---", "library_name: tombola", f"tags: {json.dumps(TAGS)}", "---", ""]
    title = f"# A ticket of {_name(origin['network'].get('name', 'a network'))}"
    density = percent(ticket.mask.density)
    lines = [
        f"A sparse subnetwork: {ticket.mask.remaining:,} of {ticket.mask.total:,} prunable weights, {density} %. "
        f"Study {_name(origin.get('study'))}, arm {_name(origin.get('arm'))}, trial {origin.get('trial')}, "
        f"level {origin.get('level')}.",
        "",
        "## How good it is",
        "",
        *_verdict(ticket, results),
        "",
        "## Size and speed",
        "",
        *card_lines(results, ticket),
        "",
        "## Use",
        "",
        "```python",
        "import tombola",
        "",
        'ticket = tombola.Ticket.from_pretrained("OWNER/NAME")  # this repository',
        "module = ticket.build(trained=True)  # a network of your own: build(factory=make_model)",
        "```",
        "",
        "`model.safetensors` holds the trained weights as a plain state_dict, `start.safetensors` the weights that the "
        "ticket is trained from, and `mask.safetensors` the mask as packed bits. No file holds code.",
    ]
    return "\n".join([*head, title, "", *lines]) + "\n"


def _name(text: Any) -> str:
    """Return a name as code in Markdown; it comes from a user's file."""
    return f"`{plain(text, 80).replace('`', '')}`"


def _verdict(ticket: Ticket, results: Results | None) -> list[str]:
    if results is None:
        return ["Unknown: the ticket was written without the results of its study."]
    levels, origin = results.frame(), ticket.origin
    mine = levels[levels["job"] == origin.get("job")]
    mine = mine[(mine["arm"] == origin.get("arm")) & (mine["trial"] == origin.get("trial"))]
    if mine.empty:
        raise InputError(
            f"this ticket ({origin.get('study')}, {origin.get('arm')}, trial {origin.get('trial')}, level "
            f"{origin.get('level')}) is not of the results in {str(results.store.root)!r}; give the results it is of"
        )
    metric = metric_of(levels)
    own = value(float(mine.iloc[0][early_of(metric)]), metric)
    lines = [f"- Its own test {metric.words} at early stop: {own}"]
    judged = verdicts(levels, results.study.margin)
    row = judged[(judged["arm"] == origin["arm"]) & (judged["level"] == origin["level"])]
    lines += _judged(row, metric) if len(row) else ["- It is the dense network, with which verdicts compare."]
    return [*lines, "", "Repeat it:", "", f"    {command(results.study)}"]


def _judged(row: pd.DataFrame, metric: Any) -> list[str]:
    """Return the verdict on a level, and the interval that it stands on."""
    found = row.iloc[0]
    mean, low, high = (float(found[f"{metric.name}_difference{end}"]) for end in ("", "_low", "_high"))
    if pd.isna(low):
        interval = "none: fewer than two trials can be compared"
    else:
        interval = with_unit(f"{signed(low, metric)} to {signed(high, metric)}", metric)
    return [
        f"- Verdict on its level over {counted(int(found['n']), 'trial')}: **{found['verdict']}**",
        f"- Difference to the dense network in test {metric.words}: {with_unit(signed(mean, metric), metric)}; 95 % "
        f"interval: {interval}",
        f"- Reason: {found['reason']}",
    ]
