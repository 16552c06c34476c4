"""The main job: a dense network and its ticket, meta-trained for the same number of steps and compared."""

from sparsemeta.demo.run import demo
from sparsemeta.demo.settings import Settings

__all__ = ["Settings", "demo"]
