"""The fast backward pass gives the slopes of PyTorch's own."""

import pytest
import torch

from FemurSegLib.segmentation.network import build_network
from FemurSegLib.training.group_norm import speed_up


def _slopes(norm, image, factors):
    image = image.clone().requires_grad_()
    (norm(image) * factors).sum().backward()
    return image.grad, norm.weight.grad.clone(), norm.bias.grad.clone()


@pytest.mark.parametrize("shape", [(1, 16, 8, 8, 8), (2, 8, 3, 5, 7)])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_slopes_are_those_of_pytorch(shape, layout):
    torch.manual_seed(0)
    image, factors = torch.randn(shape) * 3 + 1, torch.randn(shape)
    image = image.contiguous(memory_format=layout)
    plain, fast = (torch.nn.GroupNorm(4, shape[1]) for _ in range(2))
    for norm in (plain, fast):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        norm.zero_grad()
    holder = torch.nn.Sequential(fast)
    speed_up(holder)
    for mine, theirs in zip(_slopes(fast, image, factors), _slopes(plain, image, factors), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_whole_network_in_bfloat16_is_as_near_to_single_precision_and_keeps_its_weights():
    torch.manual_seed(0)
    network = build_network("segresnet").to(memory_format=torch.channels_last_3d).eval()  # no dropout
    names = list(network.state_dict())
    image = torch.rand(1, 1, 32, 32, 32).contiguous(memory_format=torch.channels_last_3d)

    def slopes(half):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(image)
        ((logits[:, 1] - logits[:, 0]).float() * torch.linspace(-1, 1, 32)).sigmoid().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    exact, plain = slopes(half=False), slopes(half=True)
    speed_up(network)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(slopes(half=False), exact, rtol=1e-3, atol=1e-6)
    assert (slopes(half=True) - exact).norm() < 1.3 * (plain - exact).norm()
