"""Group normalisation with a backward pass that is fast on the CPU.

PyTorch 2.13 is slow on the way back where the memory is channels-last: half of a training step of SegResNet goes
there. Here the same sums are matrix products. `python Testing/benchmarks/group_norm.py` prints both.

    speed_up(network)      # every torch.nn.GroupNorm in it
"""

from __future__ import annotations

import torch

CHUNKS = 64
"""Sums are taken over so many pieces first: products come in bfloat16, and their rounding averages out."""


def speed_up(network: torch.nn.Module) -> None:
    """Exchanges the backward pass of each group normalisation for 3D images; weights and results stay."""
    for module in network.modules():
        if type(module) is torch.nn.GroupNorm:
            module.__class__ = _GroupNorm


class _GroupNorm(torch.nn.GroupNorm):
    def forward(self, image):
        return _Normalize.apply(image, self.weight, self.bias, self.num_groups, self.eps)


class _Normalize(torch.autograd.Function):
    """y = weight (x - mean) rstd + bias, over groups of channels (Wu and He 2018, Group Normalization)."""

    @staticmethod
    def forward(context, image, weight, bias, groups, eps):
        sizes = (image.shape[0], image.shape[1], image[0, 0].numel(), groups)
        if image.is_contiguous(memory_format=torch.channels_last_3d) and weight.dtype != image.dtype:
            weight, bias = weight.to(image.dtype), bias.to(image.dtype)
        result, mean, rstd = torch.ops.aten.native_group_norm(image, weight, bias, *sizes, eps)
        context.save_for_backward(image, weight, mean, rstd)
        context.groups = groups
        return result

    @staticmethod
    def backward(context, slope):
        image, weight, mean, rstd = context.saved_tensors
        n, channels = image.shape[:2]
        groups, members = context.groups, channels // context.groups
        x, dy = (_rows(each) for each in (image, slope.to(image.dtype)))
        with_x, alone = (_sum(each).view(n, groups, members) for each in (dy * x, dy))
        mean, rstd = (each.float().view(n, groups, 1) for each in (mean, rstd))
        factor = weight.float().view(1, groups, members)
        count = x.shape[1] * members
        a, b = (factor * with_x).sum(2, keepdim=True), (factor * alone).sum(2, keepdim=True)
        of_x = (b * mean - a) * rstd**3 / count
        constant = -of_x * mean - b * rstd / count
        run = CHUNKS if x.shape[1] % CHUNKS == 0 else 1  # voxels in a row: long rows are quick
        of_x, constant, of_dy = (
            each.expand(n, groups, members).reshape(n, 1, channels).to(x.dtype).repeat(1, 1, run)
            for each in (of_x, constant, factor * rstd)
        )
        x, dy = (each.view(n, -1, run * channels) for each in (x, dy))
        dx = torch.addcmul(constant, x, of_x).addcmul_(dy, of_dy)
        dx = dx.view(n, *image.shape[2:], channels).permute(0, 4, 1, 2, 3)
        of_weight = ((with_x - alone * mean) * rstd).sum(0).view(channels)
        return dx, of_weight.to(weight.dtype), alone.sum(0).view(channels).to(weight.dtype), None, None


def _rows(image):
    """(n, c, k, j, i) as (n, voxels, c): a view where the memory is channels-last."""
    return image.permute(0, 2, 3, 4, 1).contiguous().flatten(1, 3)


def _sum(rows):
    """Over the voxels of (n, voxels, c), in single precision."""
    n, voxels, channels = rows.shape
    pieces = CHUNKS if voxels % CHUNKS == 0 else 1
    ones = rows.new_ones(n * pieces, 1, voxels // pieces)
    return torch.bmm(ones, rows.reshape(n * pieces, -1, channels)).float().view(n, pieces, channels).sum(1)
