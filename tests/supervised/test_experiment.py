"""The experiment: small, from its configuration to its table, interrupted and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsemeta.data import ImageClasses, Splits
from sparsemeta.supervised import Blocks, Experiment, Family, experiment
from sparsemeta.supervised.experiment_table import as_markdown
from sparsemeta.supervised.records import Records
from sparsemeta.ticket import Ticket

CONFIGS = Path(__file__).parents[2] / "configs" / "experiments"
FAMILY = Family(
    depths=(14, 20), widths=(4, 4, 8), classes=3, held_out=4, rounds=2, steps=4, batch=8, lr=0.05, milestones=(3,),
    rewind=1, controls=("reinitialised", "random", "snip"),
)  # fmt: skip  one name a line would be longer than the rest
TRAIN = {"queries": 2, "meta_batch": 2, "steps": 4, "ways": 3, "inner_lr": 0.1}
BLOCKS = Blocks(shapes=("1x1", "4x4"), hidden=8, rewind=2, proposals=2, tasks=4, timed=2, train=TRAIN)


@pytest.fixture(scope="module")
def splits():
    def classes(count):
        images = torch.randint(256, (count * 12, 3, 16, 16), dtype=torch.uint8)
        return ImageClasses(images, torch.arange(count).repeat_interleave(12), [f"class {n}" for n in range(count)])

    return Splits(classes(4), classes(3), classes(3))


def test_the_family_has_every_arm_and_goes_on(splits, tmp_path, monkeypatch):
    interrupted, save = [], Records.once

    def stop_at_squeezed(self, name, make):
        if name.endswith("squeezed") and not interrupted:
            interrupted.append(name)
            raise KeyboardInterrupt
        return save(self, name, make)

    config = Experiment(family=FAMILY)
    monkeypatch.setattr(Records, "once", stop_at_squeezed)
    with pytest.raises(KeyboardInterrupt):
        experiment(config, splits, tmp_path / "a")
    halfway = json.loads((tmp_path / "a" / "results.json").read_text())["records"]
    records = experiment(config, splits, tmp_path / "a")
    kinds = ["dense", "own", "stretched", "reinitialised", "random", "snip"]
    assert [r["kind"] for r in records if r["depth"] == 20] == kinds
    assert [r["kind"] for r in records if r["depth"] == 14] == [k.replace("stretched", "squeezed") for k in kinds]
    by_name = {(r["depth"], r["kind"]): r for r in records}
    assert list(halfway.values()) == [r for r in records if r["depth"] == 20] + records[6:8]  # not run again
    assert all(0 <= r["accuracy"] <= 100 and r["test_images"] == 12 for r in records)
    assert by_name[20, "own"]["sparsity"] == pytest.approx(0.36, abs=1e-3)
    stretched = by_name[20, "stretched"]
    assert stretched["search_flops"] == by_name[14, "own"]["search_flops"] < by_name[20, "own"]["search_flops"]
    assert all(by_name[20, k]["sparsity"] == stretched["sparsity"] for k in kinds[3:])
    assert by_name[20, "snip"]["search_flops"] == 0 < by_name[20, "random"]["search_flops"]
    assert by_name[20, "dense"]["training_flops"] > 4 / 3 * by_name[20, "own"]["training_flops"]
    facts = Ticket.load(tmp_path / "a" / "family_0" / "stretched_20_ticket.safetensors").provenance
    assert facts["method"] == "imp" and facts["elastic"][0]["mapping"] == "0:0;1:1,2"
    table = (tmp_path / "a" / "results.md").read_text().splitlines()
    assert len(table) == 2 + len(records) and table[4].startswith("| 20 | stretched | ")


def test_block_shapes_have_accuracy_and_seconds(splits, tmp_path):
    records = experiment(Experiment(blocks=BLOCKS), splits, tmp_path)
    assert [r["kind"] for r in records] == ["dense", "1x1 at 0.8", "4x4 at 0.8", "4x4 permuted at 0.8"]
    plain, blocks, permuted = records[1:]
    assert plain["magnitude"] == 1 > permuted["magnitude"] > blocks["magnitude"]
    assert all(r["sparsity"] == pytest.approx(0.8, abs=0.03) and r["tasks"] == 4 for r in records[1:])
    assert all(r["ratio"] > 0 and 1 < r["flop_ratio"] < 6 for r in records[1:])
    taken = [r["seconds_per_meta_step"] for r in records[1:]]
    assert all(one["contiguous"] == taken[0]["contiguous"] for one in taken), "they are timed together"
    assert "| 4x4 permuted | 80 % |" in (tmp_path / "results.md").read_text()


def test_another_configuration_takes_another_folder(splits, tmp_path):
    Records(tmp_path, {"blocks": None, "family": {"lr": 1}}, {}).once("x", dict)
    with pytest.raises(ValueError, match=r"another in \['family'\]; take a new folder"):
        experiment(Experiment(family=FAMILY), splits, tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="expected an experiment's results"):
        experiment(Experiment(family=FAMILY), splits, tmp_path)


def test_repetitions_share_a_line_with_their_range():
    dense = [{"part": "blocks", "kind": "dense", "accuracy": a, "interval": i} for a, i in ((40.0, 0.6), (44.0, 0.8))]
    assert "| dense |  |  |  | 2 | 42.00 ± 0.50 (40.00 to 44.00) |" in as_markdown(dense)
    assert "| 1 | 40.00 ± 0.60 |" in as_markdown(dense[:1])


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_configurations_can_be_read(config):
    found = Experiment.read(config)
    family, blocks = found.family, found.blocks
    assert f"configs/experiments/{config.name} " in config.read_text(), "the command in its comment is another file's"
    assert family is None or family.classes == 64 and family.rounds == 6
    assert blocks is None or blocks.config(3).seed == 3 and blocks.shapes == ["1x1", "4x4", "8x8", "16x16"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[famly]", "got 'famly'. The nearest is 'family'"), ("[family]\nstep = 3", "The nearest is 'steps'"),
        ("[family]\ndepths = [32, 20]", "shallower and a deeper"), ("family = 3", "to be a table; got 3"),
        ("[family]\ncontrols = ['snap']", r"got \['snap'\]"), ("[blocks.train]\nseed = 3", "got 'seed'"),
        ("[family]\nrewind = 99999", "got 99999"), ("[blocks]\nrewind = 0", "got 0"), ("[fam", "a TOML file"),
        ("[blocks]\nshapes = ['2:4']", "blocks such as '4x4'"),
    ],
)  # fmt: skip  a table
def test_errors_in_a_configuration(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        Experiment.read(tmp_path / "c.toml")
