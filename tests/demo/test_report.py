"""The report needs nothing beside it, and its plots show what they say."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

from sparsemeta.demo import plots, table
from sparsemeta.pattern import Pattern

pytestmark = pytest.mark.xdist_group("demo")  # one process makes the demo that all look at

LOADS = "src", "href", "srcset", "data", "poster", "xlink:href", "{http://www.w3.org/1999/xlink}href"


class Links(HTMLParser):
    """Everything that a page would load or link to."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in LOADS]


@pytest.fixture
def page(finished) -> str:
    return (finished.out / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def images(page) -> list[str]:
    links = Links()
    links.feed(page)
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links.found)
    return [base64.b64decode(link.partition(",")[2]).decode() for link in links.found]


def test_page_loads_nothing(page, images):
    assert len(images) == 4
    assert not re.search(r"url\(|@import|<script|<link|<iframe", page)


def test_plots_are_whole_and_load_nothing(images):
    for image in images:
        elements = list(ElementTree.fromstring(image).iter())
        loaded = [value for e in elements for name, value in e.attrib.items() if name in LOADS]
        assert len(elements) > 20 and all(link.startswith(("#", "data:")) for link in loaded)


def test_page_holds_table_configuration_and_machine(page, finished):
    for row in table.rows(finished.figures):
        assert all(text in page for text in row)
    assert "&quot;meta_lr&quot;: 0.001" in page and f"&quot;torch&quot;: &quot;{torch.__version__}&quot;" in page


def test_headline_says_slower_when_it_is():
    accuracy = {"dense": {"accuracy": 93.0}, "ticket": {"accuracy": 92.5}}
    figures = {"accuracy": accuracy, "ticket": {"sparsity": 0.8}, "speed": {"ratio": 0.5}}
    assert "20 % of the weights: meta-step 2.00x slower, accuracy 92.5 % against 93.0 %" in table.headline(figures)
    figures["speed"]["ratio"] = 3.0
    assert "3.00x faster" in table.headline(figures)


def test_same_figures_give_the_same_plot():
    mask = torch.rand(6, 4, 3, 3) > 0.5
    pictures = [plots.mask_picture(Pattern.from_mask(m), "conv") for m in (mask, mask.clone(), ~mask)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_running_mean():
    assert plots.running_mean([1, 2, 3, 4], 2).tolist() == pytest.approx([1.5, 2.5, 3.5])
    assert plots.running_mean([1.0], 2).tolist() == [1.0]
