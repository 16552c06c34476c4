"""Where data sets come from, and how each is loaded by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsemeta.data.cifar_fs import BINARY, cifar_fs
from sparsemeta.data.decode import Decoding
from sparsemeta.data.glyphs import glyphs
from sparsemeta.data.image_classes import Splits
from sparsemeta.data.image_folder import split_folders
from sparsemeta.data.mini_imagenet import mini_imagenet
from sparsemeta.data.omniglot import omniglot
from sparsemeta.keys import check_keys

OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        about: what it is and its terms.
        page: its official page.
        load: gives its ``Splits``; takes ``root`` unless it needs none, and options.
        files: name, address and checksum of each file to download.
        how: where nothing can be downloaded: how to come by it.
    """

    about: str
    page: str
    load: Callable[..., Splits]
    files: tuple[tuple[str, str, str], ...] = ()
    how: str = ""


def drawn(
    classes: Sequence[int] = (1000, 100, 100), per_class: int = 20, size: int = 28, device: Any = "cpu"
) -> Splits:
    """``glyphs`` of as many classes for training, validation and test."""
    return glyphs(sum(classes), per_class, size).to(device).split(*classes)


def own(root: Path, size: Any = None, channels: int = 3, invert: bool = False, device: Any = "cpu") -> Splits:
    """``image_folder`` of each of ``root/train``, ``root/val`` and ``root/test``."""
    return split_folders(root, size=size, channels=channels, invert=invert, device=device)


SOURCES: Mapping[str, Source] = {
    "glyphs": Source("characters that nobody has written, drawn by sparsemeta", "", drawn, how="it needs no files"),
    "omniglot": Source(
        "1,623 handwritten characters of 50 alphabets (Lake et al. 2015; MIT licence)",
        "https://github.com/brendenlake/omniglot",
        omniglot,
        (  # the checksums are those that torchvision checks; the repository publishes none
            ("images_background.zip", f"{OMNIGLOT}images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718"),
            ("images_evaluation.zip", f"{OMNIGLOT}images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811"),
        ),
    ),
    "cifar-fs": Source(
        "CIFAR-100 (Krizhevsky 2009; research use) in the split of Bertinetto et al. 2019",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        cifar_fs,
        ((BINARY, f"https://www.cs.toronto.edu/~kriz/{BINARY}", "md5:03b5dce01913d631647c71ecec9e9cb8"),),
    ),
    "mini-imagenet": Source(
        "100 classes of ImageNet (Vinyals et al. 2016; ImageNet's terms, research use)",
        "https://image-net.org/download.php",
        mini_imagenet,
        how="ImageNet's terms forbid redistribution: sign in at its page, take the images that the tables train.csv, "
        "val.csv and test.csv of Ravi and Larochelle 2017 name, and put them into ROOT/images beside the tables",
    ),
    "folder": Source(
        "images of your own: ROOT/{train,val,test}/class/x.png", "", own, how="give your folder as ROOT"
    ),
}


def source(name: str) -> Source:
    """The data set of that name. Raises ``ValueError`` if there is none."""
    if name not in SOURCES:
        raise ValueError(f"expected a data set of {', '.join(SOURCES)}; got {name!r}")
    return SOURCES[name]


def load(name: str, root: Path | None = None, **options: Any) -> Splits:
    """The splits of the data set ``name``, from ``root``.

    Raises ``ValueError`` for an unknown name or option, or a ``root`` that is missing.
    """
    loader = source(name).load
    if name != "glyphs" and root is None:
        raise ValueError(f"expected the folder that holds {name}; got none. Give it with --data, or as root in [data]")
    check_keys(options, inspect.signature(loader).parameters, f"an option of the data set {name}")
    return loader(**options) if name == "glyphs" else loader(root, **options)


def decoding(name: str, splits: Splits, options: Mapping[str, Any]) -> Decoding:
    """How files become images like those of ``splits``."""
    channels, *size = splits.train.image_shape
    return Decoding(tuple(size), channels, invert=name == "omniglot" or bool(options.get("invert", False)))
