"""The segmentation networks by name, and the numbers of the papers that belong to them.

    network = build_network("transunet", patch=(96, 96, 96))
    RECIPES["transunet"].loss           # what its paper trains it with

A network takes (n, 1, k, j, i) of 0..2 and gives (n, 2, k, j, i): background and femur. Importing this page needs
no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from FemurSegLib.errors import ModelError

SPACING_MM = (1.0, 1.0, 1.0)
"""Voxels that the network sees (Xie 2025, Table 3: resampled spacing)."""
WINDOW_HU = (-100.0, 500.0)
"""Intensities mapped to 0..1 (Xie 2025, Table 3: normalise intensity range)."""
BRIGHTEST_HU = 3000.0
"""From the end of the window to here: 1..2, then clipped. Xie clips at 500 HU; but the half height of a cortex of
1500 HU lies above that, so that a blurred bone looks larger than a sharp one, and metal looks like bone."""
PATCH = (160, 160, 160)
"""Patch of the paper's training (Xie 2025, Table 3)."""
SIZE_MULTIPLE = 8
"""Windows are a multiple of this many voxels: the encoder halves three times."""


@dataclass(frozen=True)
class Recipe:
    """How the paper in `source` trains and runs a network; `chosen` names what it does not say and was chosen here.

    patch: (k, j, i) voxels. loss: a name of training/losses.py. threshold: of the probability, `half` or `otsu`.
    size_multiple: of a window, along each axis. fixed_window: it runs on windows of the size it was trained on
    only. cpu_precision: of the training on a CPU; see training/optimization.py. All are trained with AdamW and a
    weight decay of 1e-5, which is next to Adam.
    """

    source: str
    patch: tuple[int, int, int] = PATCH
    batch: int = 4
    loss: str = "dice"
    learning_rate: float = 1e-3
    threshold: str = "half"
    size_multiple: int = SIZE_MULTIPLE
    fixed_window: bool = False
    cpu_precision: str = "auto"
    chosen: str = ""


# Single precision on a CPU for those that halve four times: there, torch 2.13 now and then gives gradients of 1e30
# for kernels on maps of a few voxels in bfloat16 (seen with vnet and unet3d on patches of 32, not with segresnet).
RECIPES = {
    "segresnet": Recipe("Xie 2025, Table 3", chosen="learning rate"),
    "transunet": Recipe(
        "Xie 2025, Table 7",
        size_multiple=16,
        fixed_window=True,
        cpu_precision="fp32",
        chosen="all but the name, as for segresnet",
    ),
    # 192 x 192 x 64 voxels, batch 1 (Deng); 192 x 192 x 32 and Dice + L2 (Zhao, sections 2.3 and 2.4).
    "vnet": Recipe(
        "Deng 2022, section 2.3",
        patch=(64, 192, 192),
        batch=1,
        loss="ce",
        learning_rate=1e-4,
        threshold="otsu",
        size_multiple=16,
        cpu_precision="fp32",
    ),
    # The paper's patch of 512 x 256 x 1 with an overlap of 256 x 128 x 64 contradicts itself: the latter is taken.
    "unet3d": Recipe(
        "Sultana 2024, sections 3.1 and 3.2",
        patch=(64, 256, 128),
        batch=10,
        loss="ce",
        size_multiple=16,
        cpu_precision="fp32",
        chosen="learning rate (its schedule ends at 1e-5), normalisation, number of features",
    ),
}
NETWORKS = tuple(RECIPES)


def recipe_of(name: str) -> Recipe:
    """The recipe of a network. Raises ModelError for a name that is not in `NETWORKS`."""
    if name not in RECIPES:
        raise ModelError(f"There is no network '{name}'.", f"Choose one of: {', '.join(NETWORKS)}.")
    return RECIPES[name]


def build_network(name: str = "segresnet", patch: tuple[int, int, int] | None = None):
    """An untrained network with its `recipe`, and `window`: the only size (k, j, i) it runs on, or None for any.

    patch: what it will be trained on, that of its recipe if not given; it matters where `window` is fixed.

    segresnet: MONAI's, as Xie 2025, Table 3: blocks down (1, 2, 2, 4), up (1, 1, 1), 16 filters, dropout 0.2.
    transunet: see segmentation/transunet.py.
    vnet: MONAI's V-Net (Milletari 2016): kernels of 5^3, strided convolutions, 45.6 million weights. That of Zhao
        and Deng is their own: kernels of 3^3, three max poolings, 8.6 million weights. Dropout 0.2 for the 0.8 that
        Zhao keeps.
    unet3d: MONAI's BasicUNet (Falk 2019): two convolutions of 3^3 a level, max pooling, five levels, ReLU.
        Sultana's kernels are 6 x 3, for slices of known orientation; its features are not in the text.

    Raises ModelError for a name that is not in `NETWORKS`, or a patch that the network cannot halve often enough.
    """
    recipe = recipe_of(name)
    patch = tuple(patch or recipe.patch)
    if any(n % recipe.size_multiple for n in patch):
        raise ModelError(
            f"The network '{name}' takes no patches of {' x '.join(map(str, patch))} voxels.",
            f"Choose multiples of {recipe.size_multiple}.",
        )
    network = _BUILDERS[name](patch)
    network.recipe = recipe
    network.window = patch if recipe.fixed_window else None
    return network


def trained_patch(name: str, tensors) -> tuple[int, int, int] | None:
    """The patch that weights were trained on, where the network is bound to it; else None."""
    if name != "transunet" or "position" not in tensors:
        return None
    return tuple(RECIPES[name].size_multiple * n for n in tensors["position"].shape[2:])


def normalize(hu):
    """HU (torch tensor, any shape) to what the network sees: 0..1 over `WINDOW_HU`, 1..2 up to `BRIGHTEST_HU`."""
    low, high = WINDOW_HU
    return ((hu - low) / (high - low)).clamp(0, 1) + ((hu - high) / (BRIGHTEST_HU - high)).clamp(0, 1)


def _segresnet(patch):
    from monai.networks.nets import SegResNet

    return SegResNet(
        spatial_dims=3,
        init_filters=16,
        in_channels=1,
        out_channels=2,
        dropout_prob=0.2,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )


def _transunet(patch):
    from FemurSegLib.segmentation.transunet import TransUNet

    return TransUNet(patch)


def _vnet(patch):
    from monai.networks.nets import VNet

    return VNet(3, 1, 2, act="relu", dropout_prob_down=0.2, dropout_prob_up=(0.2, 0.2))


def _unet3d(patch):
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, act="relu")


_BUILDERS = {"segresnet": _segresnet, "transunet": _transunet, "vnet": _vnet, "unet3d": _unet3d}
