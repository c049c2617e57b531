"""Volume to network and back: place, windows, and what happens when memory runs out."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from FemurSegLib.errors import InputError, MemoryExhaustedError  # noqa: E402
from FemurSegLib.grid import Grid  # noqa: E402
from FemurSegLib.segmentation import inference  # noqa: E402
from FemurSegLib.segmentation.inference import Runner, pick_device, to_shape, to_working_grid  # noqa: E402
from FemurSegLib.segmentation.network import RECIPES  # noqa: E402
from FemurSegLib.volume import Volume  # noqa: E402


class Local(torch.nn.Module):
    """Looks at one voxel at a time, so that windows cannot matter; runs out of memory above `limit` voxels."""

    def __init__(self, limit=None):
        super().__init__()
        self.limit, self.sizes = limit, []

    def forward(self, image):
        if self.limit is not None and image.numel() > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        self.sizes.append(tuple(image.shape[2:]))
        return torch.cat([torch.zeros_like(image), (image - 0.5) * 8], 1)


def crop(shape=(40, 30, 50), spacing=(0.8, 0.8, 2.0)):
    rng = np.random.default_rng(0)
    return Volume(rng.integers(-200, 700, shape).astype(np.int16), Grid(shape, spacing, (0, 0, 0), np.eye(3)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.7, 3.27), (2.0, 0.93, 0.93), (0.3, 0.3, 0.6)])
def test_a_block_keeps_its_place_in_millimetres(spacing):
    shape = (48, 60, 72)
    hu = np.full(shape, -100, np.int16)
    block = (slice(10, 30), slice(20, 44), slice(33, 60))
    hu[block] = 500
    grid = Grid(shape, spacing, (0, 0, 0), np.eye(3))
    image = to_working_grid(Volume(hu, grid))[0, 0].numpy()
    extent_mm = np.array(shape) * spacing[::-1]
    voxel_mm = extent_mm / image.shape
    assert np.all(np.abs(voxel_mm - 1) < 0.06)
    centre = [
        (np.indices(image.shape)[a] * image).sum() / image.sum() * voxel_mm[a] + voxel_mm[a] / 2 for a in range(3)
    ]
    wanted = [(s.start + s.stop) / 2 * spacing[2 - a] for a, s in enumerate(block)]
    assert np.allclose(centre, wanted, atol=0.1)
    volume_mm3 = image.sum() * voxel_mm.prod()
    assert volume_mm3 == pytest.approx(
        np.prod([(s.stop - s.start) * spacing[2 - a] for a, s in enumerate(block)]), rel=0.02
    )


def test_probability_returns_to_the_voxels_it_came_from():
    ct = crop(spacing=(1.0, 1.0, 1.0))
    probability = Runner(Local(), "cpu").probability(ct)
    wanted = 1 / (1 + np.exp(-8 * (np.clip((ct.voxels + 100) / 600, 0, 1) - 0.5)))
    assert to_shape(probability, ct.grid.shape) == pytest.approx(wanted, abs=0.02)  # bfloat16 has 8 bits


def test_windows_do_not_show(monkeypatch):
    ct = crop((90, 40, 40), (1.0, 1.0, 1.0))
    whole = Runner(Local(), "cpu").probability(ct)
    monkeypatch.setattr(inference, "WINDOWS", ((32, 32, 32),))
    pieces = Runner(Local(), "cpu").probability(ct)
    assert np.abs(whole - pieces).max() < 0.01


def test_what_is_done_is_told_and_ends_at_one(monkeypatch):
    monkeypatch.setattr(inference, "WINDOWS", ((32, 32, 32),))
    told = []
    Runner(Local(), "cpu").probability(crop((90, 40, 40), (1.0, 1.0, 1.0)), told.append)
    assert told == sorted(told) and told[0] < 0.2 and told[-1] == 1.0


def test_smaller_windows_are_tried_when_memory_runs_out_and_it_is_said():
    ct = crop((200, 100, 100), (1.0, 1.0, 1.0))
    network = Local(limit=96**3)
    runner = Runner(network, "cpu")
    probability = runner.probability(ct)
    assert max(np.prod(size) for size in network.sizes) <= 96**3
    assert probability.shape == (200, 100, 100)
    assert runner.notes and all("smaller windows" in note for note in runner.notes)


def test_when_nothing_helps_the_user_is_told():
    with pytest.raises(MemoryExhaustedError):
        Runner(Local(limit=0), "cpu").probability(crop())


def test_a_network_bound_to_its_patch_sees_windows_of_that_size_only():
    network = Local()
    network.window = (48, 32, 64)
    probability = Runner(network, "cpu").probability(crop((90, 24, 40), (1.0, 1.0, 1.0)))
    assert set(network.sizes) == {(48, 32, 64)} and probability.shape == (90, 24, 40)
    tight = Local(limit=48 * 32 * 64 - 1)
    tight.window = (48, 32, 64)
    with pytest.raises(MemoryExhaustedError):  # no smaller window would do
        Runner(tight, "cpu").probability(crop((90, 24, 40), (1.0, 1.0, 1.0)))


def test_windows_are_multiples_of_what_the_network_asks():
    network = Local()
    network.recipe = RECIPES["vnet"]
    Runner(network, "cpu").probability(crop((40, 24, 70), (1.0, 1.0, 1.0)))
    assert set(network.sizes) == {(48, 32, 80)}


def test_a_network_with_otsus_threshold_has_it_at_one_half():
    ct = crop(spacing=(1.0, 1.0, 1.0))
    ct.voxels[:] = np.where(
        ct.voxels > 400, 460, -100
    )  # logits of about 3.5 and -4: as it is, both pass 0.5 rightly
    network = Local()
    plain = Runner(network, "cpu").probability(ct)
    network.recipe = RECIPES["vnet"]
    bent = Runner(network, "cpu").probability(ct)
    from FemurSegLib.segmentation.threshold import centred, otsu

    assert otsu(plain) != pytest.approx(0.5, abs=0.01)
    assert np.abs(bent - centred(plain, otsu(plain))).max() < 1e-6


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Broken(torch.nn.Module):
        def forward(self, image):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Runner(Broken(), "cpu").probability(crop())


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda"):
            pick_device("cuda")


def test_a_gpu_too_full_for_the_network_gives_way_to_the_cpu_and_it_is_said():
    class Full(Local):
        def to(self, device, **options):
            if device.type != "cpu":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().to(device, **options)

    runner = Runner(Full(), "cuda")
    assert runner.device.type == "cpu" and "cuda" in runner.notes[0]
    assert runner.probability(crop()).shape == (80, 24, 40)


@pytest.mark.parametrize(
    "shape", [(478, 171, 184), (524, 210, 118), (90, 90, 90), (60, 200, 200), (1400, 300, 300)]
)
def test_windows_take_the_shape_of_the_region(shape):
    cube = inference.WINDOWS[0]
    window = inference.shaped(cube, shape, 8)
    assert np.prod(window) <= np.prod(cube) and all(n % 8 == 0 for n in window)
    assert all(size >= min(inference.NARROWEST, n) for size, n in zip(window, shape, strict=True))

    def work(size):
        size = tuple(min(s, -(-n // 8) * 8) for s, n in zip(size, shape, strict=True))
        return np.prod(size) * inference.count_windows(shape, size)

    assert work(window) <= work(cube)
    assert work(window) < 2 * np.prod(shape)


def test_so_small_windows_stay_as_they_are():
    assert inference.shaped((64, 64, 64), (300, 300, 300), 8) == (64, 64, 64)
