"""`sparsemeta adapt`: two folders of images and a checkpoint are enough."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sparsemeta.meta.trained import load_trained


def adapt(call, checkpoint, folders, *options):
    support, query = folders
    return call("adapt", "--checkpoint", checkpoint, "--support", support, "--query", query, "--threads", 1, *options)


def pixels(file) -> torch.Tensor:
    return torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8).view(1, 1, 28, 28) / 255


def test_predictions_are_those_of_the_adapted_model(call, checkpoint, folders, as_json):
    facts = as_json(adapt(call, checkpoint, folders, "--json", "--steps", 3))
    classes = sorted(folder.name for folder in folders[0].iterdir())
    known = [(classes.index(file.parent.name), pixels(file)) for file in sorted(folders[0].rglob("*.png"))]
    asked = sorted(folders[1].rglob("*.png"))

    clone = load_trained(checkpoint).learner.clone()
    support, labels = torch.cat([x for _, x in known]), torch.tensor([label for label, _ in known])
    for _ in range(3):
        clone.adapt(F.cross_entropy(clone(support), labels))
    probabilities = F.softmax(clone(torch.cat([pixels(file) for file in asked])), 1)
    expected = [classes[i] for i in probabilities.argmax(1)]

    assert facts["classes"] == classes and len(facts["images"]) == len(asked) == 15
    assert [image["class"] for image in facts["images"]] == expected
    assert [image["probability"] for image in facts["images"]] == pytest.approx(
        probabilities.max(1).values.tolist(), abs=1e-3
    )
    hits = sum(name == file.parent.name for name, file in zip(expected, asked, strict=True))
    assert facts["accuracy"] == pytest.approx(100 * hits / 15)
    assert facts["adapt_ms"] > 0 and facts["classify_ms"] > 0 and facts["peak_mb"] > facts["extra_mb"] >= 0


def test_it_prints_each_image_time_memory_and_mode(call, checkpoint, folders):
    output = adapt(call, checkpoint, folders).output
    assert output.count(".png") == 15 and "peak memory" in output and "bn_mode=transductive" in output
    assert "adapted in" in output and "% of the images are classified as their folder says" in output


def test_images_without_folders_and_of_another_size(call, checkpoint, folders, tmp_path, as_json):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(sorted(folders[1].rglob("*.png"))[:3]):
        Image.open(file).convert("RGB").resize((50, 40)).save(flat / f"{i}.jpg")
    facts = as_json(adapt(call, checkpoint, (folders[0], flat), "--json"))
    assert [image["image"] for image in facts["images"]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert facts["accuracy"] is None and facts["images"][0]["true"] is None


def test_wrong_folders_are_named(call, checkpoint, folders, tmp_path):
    shutil.rmtree(next(folders[0].iterdir()))
    error = str(adapt(call, checkpoint, folders).exception)
    assert "expected 5 classes" in error and "got 4" in error and "ways=4" in error
    (tmp_path / "empty").mkdir()
    assert "expected images in" in str(adapt(call, checkpoint, (folders[0], tmp_path / "empty")).exception)
