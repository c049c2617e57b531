"""The network is the paper's, and sees what the paper says."""

import pytest

torch = pytest.importorskip("torch")

from FemurSegLib.errors import ModelError  # noqa: E402
from FemurSegLib.segmentation.network import NETWORKS, SIZE_MULTIPLE, build_network, normalize  # noqa: E402


def test_segresnet_is_that_of_table_3():
    network = build_network("segresnet")
    assert (network.blocks_down, network.blocks_up, network.init_filters) == ((1, 2, 2, 4), (1, 1, 1), 16)
    assert (network.in_channels, network.dropout_prob) == (1, 0.2)
    megabytes = sum(p.numel() for p in network.parameters()) * 4 / 1e6
    assert 17.5 < megabytes < 19.5  # Table 7: a file of 18 MB


def test_two_channels_come_out_at_the_size_that_went_in():
    image = torch.rand(1, 1, 2 * SIZE_MULTIPLE, 3 * SIZE_MULTIPLE, SIZE_MULTIPLE)
    with torch.inference_mode():
        assert build_network().eval()(image).shape == (1, 2, *image.shape[2:])


def test_the_window_of_table_3_becomes_0_to_1():
    assert normalize(torch.tensor([-1000.0, -100.0, 200.0, 500.0, 3000.0])).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_network_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ModelError, match="transunet") as error:
        build_network("transunet")
    assert all(name in error.value.hint for name in NETWORKS)
