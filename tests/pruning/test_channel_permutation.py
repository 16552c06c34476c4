"""Channel permutation: the function stays, blocks keep more, and what must not move does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta.models import VGG, Conv4, ConvN, ResNet12, ResNetCifar, ResNetImageNet
from sparsemeta.pruning.channel_permutation import ChannelPermutation, permute_channels
from sparsemeta.pruning.channel_permutation_spaces import channel_spaces

MODELS = {
    "ResNetCifar": lambda: ResNetCifar(14, widths=(4, 6, 8)),
    "ResNetImageNet": lambda: ResNetImageNet(18, widths=(4, 6, 8, 8), image_size=32),
    "VGG": lambda: VGG(11, widths=(4, 6, 8, 8, 8)),
    "Conv4": lambda: Conv4(hidden=6, image_size=32),  # its head reads 2x2 positions of each channel
    "ConvN": lambda: ConvN(5, hidden=6, image_size=32, track_running_stats=True),
    "ResNet12": lambda: ResNet12(widths=(4, 6, 8), image_size=32),
}


def random_state(model):
    """Float64, with every tensor random: a permutation that forgot one would change the output."""
    model = model.double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if ".norm." in name else torch.randn_like(tensor) / 5)
    return model


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_any_order_of_every_space_leaves_the_function(build):
    model, x = random_state(build()), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    spaces = channel_spaces(model, (3, 32, 32))
    orders = [torch.randperm(space.size) for space in spaces]
    permuted = ChannelPermutation(spaces, orders, 0, 0).model(model)
    moved = {name for space in spaces for name, _ in space.axes}
    assert moved == {name for name in model.state_dict() if not name.endswith("num_batches_tracked")} - {"head.bias"}
    torch.testing.assert_close(permuted(x), model(x), rtol=1e-10, atol=1e-10)
    assert not torch.equal(permuted.head.weight, model.head.weight)


def test_residual_sums_share_their_channels():
    spaces = channel_spaces(ResNetCifar(14, widths=(4, 6, 8)), (3, 32, 32))
    stage = next(space for space in spaces if ("stages.1.0.shortcut.conv.weight", 0) in space.axes)
    expected = {f"stages.1.{block}.conv2.conv.weight": 0 for block in (0, 1)}
    expected |= {"stages.1.1.conv1.conv.weight": 1, "stages.2.0.conv1.conv.weight": 1}
    assert all((name, axis) in stage.axes for name, axis in expected.items())
    assert ("stages.1.0.conv1.conv.weight", 0) not in stage.axes
    assert len(spaces) == 3 + 6  # one for each stage, one inside each block


class Net(nn.Module):
    def __init__(self, between, **conv):
        super().__init__()
        self.between = between
        self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3, **conv)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        return self.b(self.between(self, self.a(x)))


@pytest.mark.parametrize(
    "between",
    [
        lambda self, x: x * self.scale, lambda self, x: x.roll(1, 1), lambda self, x: x.cumsum(1),
        lambda self, x: x.mul_(self.scale), lambda self, x: x[:, [1, 0, 2, 3]], lambda self, x: x + self.scale,
        lambda self, x: x.sum(1, keepdim=True).expand(-1, 4, -1, -1) + x.softmax(1),
        lambda self, x: torch.cat([x[:, :2], x[:, 2:]], 1), lambda self, x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1),
    ],
)  # fmt: skip  a table
def test_what_tells_channels_apart_fixes_them(between):
    assert channel_spaces(Net(between), (2, 9, 9)) == []


def test_a_write_into_channels_fixes_them():
    def between(self, x):
        x[:, 0] = 0
        return x

    assert channel_spaces(Net(between), (2, 9, 9)) == []


def test_grouped_convolutions_fix_theirs():
    assert channel_spaces(Net(lambda self, x: x.relu(), groups=2), (2, 9, 9)) == []
    assert len(channel_spaces(Net(lambda self, x: x.relu()), (2, 9, 9))) == 1


def test_a_mean_over_channels_is_not_one_over_positions():
    def between(self, x):
        return x.mean(1)[:, None].expand(-1, 4, -1, -1)

    assert channel_spaces(Net(between), (2, 6, 6)) == []  # 4 channels of 4x4: the shapes alone do not tell


def test_a_shared_weight_moves_as_one():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.loop, self.head = nn.Conv2d(2, 5, 1), nn.Conv2d(5, 5, 1), nn.Linear(5, 3)

        def forward(self, x):
            x = self.loop(self.loop(self.stem(x)).relu())
            return self.head(x.mean((2, 3)))

    model = random_state(Shared())
    (space,) = channel_spaces(model, (2, 4, 4))
    permuted = ChannelPermutation([space], [torch.tensor([3, 1, 4, 0, 2])], 0, 0).model(model)
    x = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(permuted(x), model(x), rtol=1e-12, atol=1e-12)


def test_hidden_blocks_are_found():
    """Weights that are large in whole 4x4 blocks, then scattered: the search brings most of them back."""
    model = ConvN(2, ways=2, hidden=16, image_size=16)
    weight = model.features[1].conv.weight
    large = torch.rand(4, 4) < 0.3
    weight.data.copy_((large.repeat_interleave(4, 0).repeat_interleave(4, 1) + 0.01)[..., None, None].expand_as(weight))
    scattered = torch.randperm(16)
    weight.data.copy_(weight.data[scattered][:, torch.randperm(16)])
    names = ["features.1.conv.weight"]
    how = {"sparsity": 1 - large.float().mean().item(), "kind": {names[0]: (4, 4)}, "exclude": ["head", "features.0"]}
    found = permute_channels(model, (3, 16, 16), proposals=60, **how)
    total = weight.abs().sum().item()
    assert found.before < 0.6 * total and found.after > 0.8 * total
    ticket = sm.pruning.ticket_from_scores(
        sm.pruning.SCORES["magnitude"](found.model(model), exclude=how["exclude"]), sparsity=how["sparsity"],
        kind=how["kind"],
    )  # fmt: skip
    kept = (found.model(model).features[1].conv.weight.abs() * ticket[names[0]].mask()).sum().item()
    assert kept == pytest.approx(found.after, rel=1e-6)


def test_unstructured_gains_nothing_and_moves_nothing():
    model = Conv4(hidden=4, image_size=16)
    found = permute_channels(model, (3, 16, 16), sparsity=0.8, kind=(1, 1))
    assert found.before == found.after
    assert all(torch.equal(order, torch.arange(4)) for order in found.orders)


def test_a_sparse_model_is_refused():
    model = Conv4(hidden=4, image_size=16)
    with pytest.raises(ValueError, match="use densify"):
        channel_spaces(sm.sparsify(model, sm.Ticket.magnitude(model)), (3, 16, 16))
