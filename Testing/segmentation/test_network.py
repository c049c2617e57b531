"""The networks are those of the papers, and see what the papers say."""

import pytest

torch = pytest.importorskip("torch")

from FemurSegLib.errors import ModelError  # noqa: E402
from FemurSegLib.segmentation.network import (  # noqa: E402
    NETWORKS,
    RECIPES,
    build_network,
    normalize,
    trained_patch,
)
from FemurSegLib.training.losses import LOSSES  # noqa: E402


def test_segresnet_is_that_of_table_3():
    network = build_network("segresnet")
    assert (network.blocks_down, network.blocks_up, network.init_filters) == ((1, 2, 2, 4), (1, 1, 1), 16)
    assert (network.in_channels, network.dropout_prob) == (1, 0.2)
    megabytes = sum(p.numel() for p in network.parameters()) * 4 / 1e6
    assert 17.5 < megabytes < 19.5  # Table 7: a file of 18 MB


@pytest.fixture(scope="module")
def transunet():
    return build_network("transunet", (32, 16, 48)).eval()


def test_transunet_is_about_as_large_as_that_of_table_7(transunet):
    megabytes = sum(p.numel() for p in transunet.parameters()) * 4 / 1e6
    assert megabytes == pytest.approx(354, rel=0.1)


def test_transunet_takes_its_patch_only_and_its_weights_tell_which(transunet):
    assert transunet.window == (32, 16, 48) == trained_patch("transunet", transunet.state_dict())
    with torch.inference_mode():
        assert transunet(torch.rand(1, 1, 32, 16, 48)).shape == (1, 2, 32, 16, 48)
        with pytest.raises(ValueError, match="positions"):
            transunet(torch.rand(1, 1, 32, 32, 48))


def test_where_the_tokens_lie_matters_to_transunet(transunet):
    image = torch.rand(1, 1, 32, 16, 48)
    with torch.inference_mode():
        before = transunet(image)
        transunet.position.copy_(torch.randn_like(transunet.position))
        assert not torch.allclose(before, transunet(image), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not RECIPES[name].fixed_window])
def test_two_channels_come_out_at_the_size_that_went_in(name):
    multiple = RECIPES[name].size_multiple
    image = torch.rand(1, 1, 2 * multiple, 3 * multiple, multiple)
    network = build_network(name).eval()
    assert network.window is None and trained_patch(name, network.state_dict()) is None
    with torch.inference_mode():
        assert network(image).shape == (1, 2, *image.shape[2:])


def test_the_recipes_are_those_of_the_papers():
    assert RECIPES["segresnet"].patch == (160, 160, 160) and RECIPES["segresnet"].batch == 4  # Xie, Table 3
    vnet = RECIPES["vnet"]
    assert (vnet.patch, vnet.batch, vnet.loss, vnet.learning_rate) == ((64, 192, 192), 1, "ce", 1e-4)  # Deng, 2.3
    assert {name for name in NETWORKS if RECIPES[name].threshold == "otsu"} == {"vnet"}
    assert RECIPES["unet3d"].loss == "ce"  # Sultana, Eq. 6
    for name, recipe in RECIPES.items():
        assert recipe.loss in LOSSES and all(n % recipe.size_multiple == 0 for n in recipe.patch), name


def test_the_window_of_table_3_becomes_0_to_1_and_what_is_brighter_1_to_2():
    hu = torch.tensor([-1000.0, -100.0, 200.0, 500.0, 1750.0, 3000.0, 3071.0])
    assert normalize(hu).tolist() == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_a_network_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ModelError, match="nnunet") as error:
        build_network("nnunet")
    assert all(name in error.value.hint for name in NETWORKS)


def test_a_patch_that_cannot_be_halved_is_refused():
    with pytest.raises(ModelError, match="24 x 24 x 24") as error:
        build_network("vnet", (24, 24, 24))
    assert "16" in error.value.hint
