"""TransUNet in three dimensions: residual encoder, vision transformer on its deepest features, U-Net decoder.

After Chen et al. 2021 (TransUNet), which Xie 2025 compares with (Table 7) without saying how it was built.
MONAI has none; its residual blocks make the encoder and its up-sampling blocks the decoder. Kept of the paper:
features at 1/16 of the size as tokens, learnt positions, 12 layers of ViT-B (768 wide, 12 heads, 3072 in
between), skips. Not kept: two dimensions, ResNet-50 and its weights from ImageNet (the encoder here is narrower
and untrained); and there is a skip at full size, which the paper has not. 96 million weights; a file of 385 MB,
for Xie's 354 MB.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.blocks.unetr_block import UnetrUpBlock
from torch import nn

FEATURES = (16, 32, 64, 128, 256)
"""Of the encoder at 1, 1/2, 1/4, 1/8 and 1/16 of the size."""
HIDDEN, LAYERS, HEADS, BETWEEN = 768, 12, 12, 3072
"""ViT-B. (torch's transformer: MONAI's needs einops.)"""


class TransUNet(nn.Module):
    """One channel in, two out. It takes the `patch` (k, j, i; multiples of 16) that it was made for, no other."""

    def __init__(self, patch: tuple[int, int, int]):
        super().__init__()
        tokens = tuple(n // 16 for n in patch)
        block = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance"}
        channels = (1, *FEATURES)
        self.encoder = nn.ModuleList(
            UnetResBlock(in_channels=a, out_channels=b, stride=1 if a == 1 else 2, **block)
            for a, b in zip(channels, FEATURES)  # noqa: B905  (one longer)
        )
        self.embedding = nn.Conv3d(FEATURES[-1], HIDDEN, 1)
        self.position = nn.Parameter(0.02 * torch.randn(1, HIDDEN, *tokens))
        layer = nn.TransformerEncoderLayer(
            HIDDEN, HEADS, BETWEEN, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(HIDDEN), enable_nested_tensor=False)
        self.back = nn.Conv3d(HIDDEN, FEATURES[-1], 3, padding=1)
        self.decoder = nn.ModuleList(
            UnetrUpBlock(in_channels=b, out_channels=a, upsample_kernel_size=2, res_block=True, **block)
            for b, a in zip(FEATURES[:0:-1], FEATURES[-2::-1], strict=True)
        )
        self.out = nn.Conv3d(FEATURES[0], 2, 1)

    def forward(self, image):
        skips, features = [], image
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        features = self.embedding(skips.pop())
        if features.shape[2:] != self.position.shape[2:]:
            raise ValueError(f"an image of {tuple(image.shape[2:])} for a TransUNet of other positions")
        features = features + self.position
        tokens = self.transformer(features.flatten(2).transpose(1, 2))
        features = self.back(tokens.transpose(1, 2).reshape(features.shape))
        for block in self.decoder:
            features = block(features, skips.pop())
        return self.out(features)
