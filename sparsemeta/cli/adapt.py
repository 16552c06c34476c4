"""`sparsemeta adapt`: a few labelled images in, the classes of others out, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparsemeta.cli.recipe_options import Device, Threads

if TYPE_CHECKING:
    from sparsemeta.meta.trained import Trained


def adapt(
    checkpoint: Annotated[Path, typer.Option(help="As `sparsemeta train` writes it.")],
    support: Annotated[Path, typer.Option(help="Folder of labelled images: class/x.png.")],
    query: Annotated[Path, typer.Option(help="Folder of images to classify: x.png, or class/x.png to count hits.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Inner steps. Default: the checkpoint's.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Adapt a checkpoint to the classes of one folder and classify the images of another."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta.meta.trained import load_trained

    if threads:
        torch.set_num_threads(threads)
    facts = classify(load_trained(checkpoint, device), support, query, steps)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        show(facts)


def classify(trained: Trained, support: Path, query: Path, steps: int | None) -> dict[str, Any]:
    """Everything that `sparsemeta adapt --json` prints."""
    import torch

    from sparsemeta.data.labelled import read_images
    from sparsemeta.meta.on_device import adapt_and_classify

    config = trained.config
    known = read_images(support, trained.about["images"], trained.about["normalise"])
    asked = read_images(query, trained.about["images"], trained.about["normalise"])
    classes = sorted(set(known.labels) - {None})
    if len(classes) != config.ways or None in known.labels:
        raise ValueError(
            f"expected {config.ways} classes, each a folder of images, in {support}, as the model has outputs; "
            f"got {len(classes)}: {classes[:10]}. Add or remove classes, or train a model with ways={len(classes)}"
        )
    place = next(trained.model.parameters())
    labels = place.new_tensor([classes.index(label) for label in known.labels]).long()
    steps = steps or config.eval_inner_steps or config.inner_steps
    result = adapt_and_classify(trained.learner, known.images.to(place), labels, asked.images.to(place), steps)
    best, positions = result.probabilities.max(1)
    rows = zip(asked.names, asked.labels, positions.tolist(), best.tolist(), strict=True)
    images = [{"image": n, "class": classes[p], "probability": round(b, 4), "true": label} for n, label, p, b in rows]
    judged = [image["class"] == image["true"] for image in images if image["true"] in classes]
    return {
        "classes": classes,
        "images": images,
        "accuracy": 100 * sum(judged) / len(judged) if judged else None,
        "steps": steps,
        "bn_mode": config.bn_mode,
        "threads": torch.get_num_threads(),
        **{name: getattr(result, name) for name in ("first_ms", "adapt_ms", "classify_ms", "peak_mb", "extra_mb")},
    }


def show(facts: dict[str, Any]) -> None:
    """Print what `classify` returned."""
    table = Table("image", "class", "probability")
    for image in facts["images"]:
        table.add_row(escape(image["image"]), escape(image["class"]), f"{image['probability']:.3f}")
    console = Console()
    console.print(table)
    if facts["accuracy"] is not None:
        console.print(f"{facts['accuracy']:.1f} % of the images are classified as their folder says")
    times = f"adapted in {facts['adapt_ms']:.1f} ms (first time {facts['first_ms']:.1f} ms), {facts['steps']} steps"
    console.print(f"{times}; classified {len(facts['images'])} images in {facts['classify_ms']:.1f} ms")
    if facts["peak_mb"] is not None:
        console.print(f"peak memory {facts['peak_mb']:.0f} MB, of which adapting took {facts['extra_mb']:.0f} MB")
    console.print(f"bn_mode={facts['bn_mode']}, {facts['threads']} threads")
