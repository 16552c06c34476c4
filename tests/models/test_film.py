"""FiLM against its definition, and where FiLMConv4 has it."""

from __future__ import annotations

import torch

import sparsemeta as sm


def test_film_scales_and_shifts_by_the_context():
    film = sm.models.FiLM(channels=3, size=5)
    x, context = torch.randn(2, 3, 4, 4), torch.randn(5)
    gamma, beta = (film.affine.weight @ context + film.affine.bias).split(3)
    y = torch.func.functional_call(film, {"context": context}, (x,))
    torch.testing.assert_close(y, (1 + gamma[:, None, None]) * x + beta[:, None, None])
    rows = torch.randn(7, 3)
    gamma, beta = film.affine.bias.split(3)
    torch.testing.assert_close(film(rows), (1 + gamma) * rows + beta)


def test_film_conv4_is_conv4_where_film_does_nothing():
    model = sm.models.FiLMConv4(ways=4, in_channels=1, hidden=8, image_size=28, context=6, film_blocks=(0, 2))
    plain = sm.models.Conv4(ways=4, in_channels=1, hidden=8, image_size=28)
    shared = {name: value for name, value in model.state_dict().items() if "film" not in name}
    plain.load_state_dict(shared)
    x = torch.randn(5, 1, 28, 28)
    assert not torch.allclose(model(x), plain(x))
    for i in (0, 2):
        torch.nn.init.zeros_(model.features[i].film.affine.bias)
    torch.testing.assert_close(model(x), plain(x))
    contexts = [name for name, _ in model.named_buffers()]
    assert contexts == ["features.0.film.context", "features.2.film.context"]
