"""The network that finds the endosteal surface inside a femur's mask, and the numbers that belong to it.

After Deng et al. 2022: a V-Net (Milletari 2016) with 3 x 3 x 3 kernels, batch normalisation, softmax cross-
entropy (of two classes, hence one logit and a sigmoid) and Adam. Deng's has about 8.6 million parameters and
patches of 192 x 192 x 64; this one has 16, 32, 64 and 128 filters (1.6 million) and patches of 64, so that two
CPU cores train and run it: the cortex is at most a dozen millimetres thick, and with three halvings the network
sees more than 64 mm. Deng gives it the CT inside the mask; here it sees all of the CT, since tissue outside tells
of the partial volume at the periosteal surface, and the mask as a second channel.
"""

from __future__ import annotations

import torch
from torch import nn

SPACING_MM = (1.0, 1.0, 1.0)
"""Voxels that the network sees; Deng's are 0.8 x 0.8 x 0.987 mm."""
WINDOW_HU = (-200.0, 1600.0)
"""Intensities mapped to 0..1 and clipped: from marrow fat (about -100 HU) with its noise to dense cortex, whose
modes are 1400 to 1550 HU in the real CTs of the project (phantom/tissue.py)."""
PATCH = (64, 64, 64)
FILTERS = (16, 32, 64, 128)
SIZE_MULTIPLE = 2 ** (len(FILTERS) - 1)
"""Windows are a multiple of this many voxels."""
NAME = "vnet"


class CompartmentNetwork(nn.Module):
    """A V-Net of MONAI's residual blocks. (n, 2, k, j, i) as `network_input` makes it -> logits (n, 1, k, j, i),
    positive inside the endosteal surface."""

    def __init__(self):
        super().__init__()
        from monai.networks.blocks import Convolution, ResidualUnit

        # The running statistics change slowly: batches are small, and averaged weights are what is used.
        style = {"act": "PRELU", "norm": ("BATCH", {"momentum": 0.02})}
        steps = list(zip(FILTERS, FILTERS[1:], strict=False))
        self.first = ResidualUnit(3, 2, FILTERS[0], subunits=1, **style)
        self.down = nn.ModuleList(
            nn.Sequential(
                Convolution(3, few, many, strides=2, kernel_size=2, padding=0, **style),
                ResidualUnit(3, many, many, subunits=2, **style),
            )
            for few, many in steps
        )
        self.up = nn.ModuleList(nn.ConvTranspose3d(many, few, kernel_size=2, stride=2) for few, many in steps)
        self.join = nn.ModuleList(ResidualUnit(3, 2 * few, few, subunits=1, **style) for few, _ in steps)
        self.last = nn.Conv3d(FILTERS[0], 1, kernel_size=1)

    def forward(self, x):
        kept = [self.first(x)]
        for down in self.down:
            kept.append(down(kept[-1]))
        x = kept.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = join(torch.cat([up(x), kept.pop()], dim=1))
        return self.last(x)


def network_input(hu: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(2, k, j, i) float32 from HU and a mask (0 or 1, or shares between) of the same shape (k, j, i)."""
    low, high = WINDOW_HU
    return torch.stack([((hu.float() - low) / (high - low)).clamp(0, 1), mask.float()])
