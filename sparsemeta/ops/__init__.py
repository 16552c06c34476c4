"""Operations: public functions with derivatives of every order. `<name>.py` here is `<name>` in every other layer."""

from . import library as library  # registers the operators with torch.library
from .inner_update import inner_update
from .masked_conv2d import masked_conv2d
from .masked_conv2d_update import masked_conv2d_update
from .masked_linear import masked_linear
from .norm_act_pool import Norm, norm_act_pool

__all__ = ["Norm", "inner_update", "masked_conv2d", "masked_conv2d_update", "masked_linear", "norm_act_pool"]
