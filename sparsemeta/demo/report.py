"""The report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from html import escape
from string import Template
from typing import Any

from sparsemeta.demo import plots
from sparsemeta.demo.table import HEADER, headline, rows
from sparsemeta.demo.timing import NOT_COMPILED
from sparsemeta.ticket import Ticket

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sparsemeta demo</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .25rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child { text-align: left } img { max-width: 100%; background: #fff } pre { background: #f5f5f5; padding: 1rem }
</style>
<h1>$headline</h1>
<p>$task</p>
$table
<p>$method</p>
<h2>Training</h2>
$curves
<h2>Time</h2>
$seconds
<h2>Ticket</h2>
$fractions
$mask
<h2>Configuration</h2>
<pre>$configuration</pre>
<h2>Machine</h2>
<pre>$machine</pre>
</html>
""")

TASK = (
    "Conv-4 with {hidden} filters, 5-way 1-shot on {data}, second-order MAML (Finn et al. 2017). The dense network is "
    "meta-trained for {steps:,} steps; the largest weights of its convolutions are the ticket (the head stays dense). "
    "The ticket starts from the dense network's weights after step {rewind} and goes on from there with the sparse "
    "kernels, on the same tasks, to step {steps:,}."
)
METHOD = (
    "Accuracy: mean over the same test tasks, of classes that training never saw, with the 95 % interval. Time: median "
    "of {rounds} meta-steps of each kind, which take turns on the same tasks in one process. The FLOP ratio counts "
    "the multiply-adds of a forward pass; efficiency is the ratio of seconds over it. The ticket's engine "
    "also fuses what lies between the convolutions: with 0 % pruned it shows that gain alone. To save time it trains "
    "the dense network too, whose times are PyTorch's all the same. {not_compiled}."
)


def report(figures: dict[str, Any], ticket: Ticket) -> str:
    """The page, with every plot inside."""
    settings, training = figures["configuration"], figures["training"]
    seconds = figures["speed"]["seconds_per_meta_step"]
    name = max(ticket, key=lambda name: ticket[name].numel)
    return PAGE.substitute(
        headline=escape(headline(figures)),
        task=escape(TASK.format(**settings)),
        table=table([HEADER, *rows(figures)]),
        method=escape(METHOD.format(rounds=seconds["sparse"]["rounds"], not_compiled=NOT_COMPILED)),
        curves=image(plots.training_curves(training["dense"], training["ticket"]), "training curves"),
        seconds=image(plots.seconds_bars(seconds), "seconds of a meta-step"),
        fractions=image(plots.kept_fractions(figures["ticket"]["layers"]), "weights kept in each layer"),
        mask=image(plots.mask_picture(ticket[name], name), f"kept weights of {name}"),
        configuration=escape(json.dumps(settings, indent=2)),
        machine=escape(json.dumps(figures["machine"], indent=2)),
    )


def table(lines: list[tuple[str, ...]]) -> str:
    head, *body = ("".join(f"<td>{escape(text)}</td>" for text in line) for line in lines)
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in (head.replace("td>", "th>"), *body)) + "</table>"


def image(svg: str, alt: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<p><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}"></p>'
