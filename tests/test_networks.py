"""Networks from recipes: every width follows from the recipe, and what does not fit together is refused."""

import subprocess
import sys

import pytest

from sdk.errors import MissingDependencyError, RecipeError
from sdk.networks import build, cost_of, network_from_recipe, random_weights
from sdk.recipe import catalogue, recipe_by_name
from sdk.recipe_networks import (
    CSPNeXt,
    GauHead,
    HeatmapHead,
    HRNet,
    LinearSimccHead,
    MobileNetV2,
    ResNet,
    RtmwHead,
    TokenHeatmapHead,
    TokenPose,
    TokenSimccHead,
)
from tests.support.networks import recipe_of

pytestmark = pytest.mark.torch

R18, R34 = ResNet("resnet", 18), ResNet("resnet", 34)
TINY = CSPNeXt("cspnext", 0.167, 0.375)
DECONV = LinearSimccHead("simcc", (64, 64, 64), 1)
UPFREE = LinearSimccHead("simcc", (), 4)
GAU = GauHead("gau", 7, 256, 128, 2)
TOKENS = TokenPose("tokenpose", (2, 2), 64, 2, 8, 3)

# backbone, head, size, joints, split ratio
SHAPES = {
    "resnet18-deconv": (R18, DECONV, (64, 64), 17, 2.0),
    "resnet34-upfree-k3": (R34, UPFREE, (64, 64), 14, 3.0),
    "resnet18-one-deconv-k1.5": (R18, LinearSimccHead("simcc", (32,), 2), (96, 64), 16, 1.5),
    "resnet18-heatmap": (R18, HeatmapHead("heatmap", (64, 64, 64)), (128, 96), 26, None),
    "hrnet-w18": (HRNet("hrnet", 18), LinearSimccHead("simcc", (), 1), (64, 96), 17, 2.0),
    "hrnet-w18-heatmap": (HRNet("hrnet", 18), HeatmapHead("heatmap", ()), (64, 64), 16, None),
    "cspnext-gau": (TINY, GAU, (96, 64), 14, 2.0),
    "cspnext-gau-k3-133-joints": (TINY, GAU, (64, 64), 133, 3.0),
    "cspnext-gau-other-widths": (TINY, GauHead("gau", 5, 64, 32, 3), (64, 64), 17, 2.0),
    "mobilenetv2": (MobileNetV2("mobilenetv2", 1.0), LinearSimccHead("simcc", (), 1), (96, 64), 17, 2.0),
    "mobilenetv2-wide": (MobileNetV2("mobilenetv2", 1.4), DECONV, (64, 64), 17, 2.0),
    "tokenpose-simcc": (TOKENS, TokenSimccHead("token-simcc"), (64, 48), 17, 2.0),
    "tokenpose-heatmap": (TOKENS, TokenHeatmapHead("token-heatmap", 128), (64, 64), 14, None),
    "tokenpose-heatmap-one-layer": (TOKENS, TokenHeatmapHead("token-heatmap", 0), (64, 64), 17, None),
    "odd-size-resnet": (R18, UPFREE, (72, 40), 17, 2.0),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_output_shapes_follow_from_the_recipe(case, batch):
    import torch

    backbone, head, (height, width), joints, ratio = SHAPES[case]
    recipe = recipe_of(backbone, head, (height, width), joints=joints, split_ratio=ratio)
    network = network_from_recipe(recipe)
    assert not network.training
    with torch.inference_mode():
        result = network(torch.zeros(batch, 3, height, width))
    if ratio is None:
        assert result.shape == (batch, joints, height // 4, width // 4)
    else:
        assert [tuple(o.shape) for o in result] == [
            (batch, joints, int(width * ratio)),
            (batch, joints, int(height * ratio)),
        ]


REFUSED = {
    "token head on a map": (
        (R18, TokenSimccHead("token-simcc"), (64, 64)),
        "head 'token-simcc' does not fit backbone 'resnet'",
    ),
    "map head on tokens": (
        (TOKENS, DECONV, (64, 64)),
        "head 'simcc' does not fit backbone 'tokenpose'",
    ),
    "two strides of one": (
        (TINY, RtmwHead("rtmw", 7, 256, 128, 2), (64, 64)),
        "backbone 'cspnext', neck 'none' and head 'rtmw' do not fit; neck pafpn goes between backbone cspnext and",
    ),
    "a third axis of two": (
        (TINY, GAU, (64, 64), {"bins_z": 128}),
        "head 'gau' has two axes and output.depth asks for a third; head rtmw has it",
    ),
    "unknown depth": (
        (ResNet("resnet", 20), DECONV, (64, 64)),
        "network.backbone.depth must be one of [18, 34, 50, 101, 152] (got 20)",
    ),
    "patches that do not tile": (
        (TOKENS, TokenSimccHead("token-simcc"), (60, 64)),
        "network.backbone.patch_hw must divide the input at stride 4 (got patches of 2x2 for 60x64)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused(case):
    parts, message = REFUSED[case]
    with pytest.raises(RecipeError) as caught:
        network_from_recipe(recipe_of(*parts[:3], **(parts[3] if len(parts) > 3 else {})))
    assert message in str(caught.value)


# Published: millions of parameters and GFLOPs, from the SimCC repository's tables and mmpose's model zoo. Where GFLOPs
# are None, the table counts another way (transposed convolutions four times, HRNet's without its exchange units).
PUBLISHED = {
    "simba-r50-deconv-64x64": ("34.1", None),
    "simba-r50-deconv-128x128": ("34.8", None),
    "simba-r50-deconv-256x192": ("36.8", None),
    "simba-r101-deconv-64x64": ("53.1", None),
    "simba-r50-heatmap-256x192": ("34.0", None),
    "hrnet-w32-64x64": ("28.6", None),
    "hrnet-w32-128x128": ("29.1", None),
    "hrnet-w32-256x192": ("31.3", None),
    "hrnet-w48-64x64": ("63.7", None),
    "hrnet-w48-128x128": ("64.1", None),
    "hrnet-w48-256x192": ("66.3", None),
    "hrnet-w32-heatmap-256x192": ("28.5", None),
    "tokenpose-s-64x64": ("4.9", None),
    "tokenpose-s-128x128": ("5.1", 1.6),
    "tokenpose-s-256x192": ("5.5", None),
    "tokenpose-s-v1-heatmap-256x192": ("6.6", None),
    "rtmpose-t-256x192": ("3.34", 0.36),
    "rtmpose-s-256x192": ("5.47", 0.68),
    "rtmpose-m-256x192": ("13.59", 1.93),
    "rtmpose-l-256x192": ("27.66", 4.16),
    "rtmpose-m-384x288": ("13.72", 4.33),
    "rtmpose-l-384x288": ("27.79", 9.35),
    "rtmpose-x-body7-384x288": ("49.43", 17.22),
    "rtmpose-t-halpe26-256x192": ("3.51", 0.37),
    "rtmpose-m-halpe26-256x192": ("13.93", 1.95),
    "rtmpose-x-halpe26-384x288": ("50.00", 17.29),
    "rtmpose-m-wholebody-256x192": (None, 2.22),
    "rtmpose-x-wholebody-384x288": (None, 18.1),
    "rtmw-m-256x192": (None, 4.3),
    "rtmw-l-256x192": (None, 7.9),
    "rtmw-x-384x288": (None, 29.3),
    "rtmpose-m-hand5-256x256": (None, 2.581),
    "rtmpose-m-face6-256x256": (None, 2.852),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name):
    parameters_m, gflops = PUBLISHED[name]
    cost = cost_of(recipe_by_name(name))
    if parameters_m is not None:
        last_digit = 0.1 ** len(parameters_m.partition(".")[2])
        assert cost.parameters / 1e6 == pytest.approx(float(parameters_m), abs=0.51 * last_digit)
    if gflops is not None:
        assert cost.macs / 1e9 == pytest.approx(gflops, rel=0.02)


# Parameters of the classifiers these backbones were first published as, without their last linear layer.
BACKBONES = {
    "resnet18": (ResNet("resnet", 18), 11_176_512),
    "resnet34": (ResNet("resnet", 34), 21_284_672),
    "resnet50": (ResNet("resnet", 50), 23_508_032),
    "resnet101": (ResNet("resnet", 101), 42_500_160),
    "resnet152": (ResNet("resnet", 152), 58_143_808),
    "mobilenetv2": (MobileNetV2("mobilenetv2", 1.0), 2_223_872),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_their_published_sizes(name):
    import torch

    backbone, count = BACKBONES[name]
    with torch.device("meta"):
        network = network_from_recipe(recipe_of(backbone, HeatmapHead("heatmap", ()), (64, 64), split_ratio=None))
    assert sum(p.numel() for p in network.backbone.parameters()) == count


def test_costs_count_by_hand():
    """One convolution after another, of the smallest ResNet: the stem and the head by their formulas."""
    recipe = recipe_of(R18, LinearSimccHead("simcc", (), 1), (64, 64), joints=14, split_ratio=2.0)
    bare = recipe_of(R18, HeatmapHead("heatmap", ()), (64, 64), joints=14, split_ratio=None)
    classifiers = 2 * 4 * 128  # weights: 2x2 cells to 128 bins, for x and for y
    assert cost_of(recipe).parameters - cost_of(bare).parameters == classifiers + 2 * 128
    assert cost_of(recipe).macs - cost_of(bare).macs == 14 * classifiers
    deconv = recipe_of(R18, HeatmapHead("heatmap", (8,)), (64, 64), joints=14, split_ratio=None)
    per_place = 512 * 8 * 16  # 4x4 kernels, each value of the 2x2 input spread once
    assert cost_of(deconv).macs - cost_of(bare).macs == 4 * per_place + 16 * 8 * 14 - 4 * 512 * 14


@pytest.mark.parametrize("case", ["resnet18-deconv", "hrnet-w18", "cspnext-gau", "mobilenetv2", "tokenpose-simcc"])
def test_random_weights_behave_like_trained_ones(case):
    """Outputs are finite, within FP16 with room to spare, and depend on the crop."""
    import torch

    backbone, head, size_hw, joints, ratio = SHAPES[case]
    network = network_from_recipe(recipe_of(backbone, head, size_hw, joints=joints, split_ratio=ratio))
    random_weights(network, seed=0)
    assert not any(module.training for module in network.modules())
    magnitudes = []
    for module in network.modules():
        module.register_forward_hook(
            lambda m, i, o: magnitudes.append(float(o.abs().max())) if isinstance(o, torch.Tensor) else None
        )
    with torch.inference_mode():
        crops = torch.randn(4, 3, *size_hw, generator=torch.Generator().manual_seed(1))
        simcc_x, _ = network(crops)
    assert max(magnitudes) < 6e3
    assert 0.05 < float(simcc_x.std()) < 500
    assert float((simcc_x - simcc_x.mean(0)).std()) > 0.01 * float(simcc_x.std())


def test_random_weights_follow_from_the_seed():
    import torch

    networks = [network_from_recipe(recipe_of(TINY, GAU, (64, 64))) for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        random_weights(network, seed)
    first, same, other = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], same[key]) for key in first)
    differing = [key for key in first if not torch.equal(first[key], other[key])]
    assert set(first) - set(differing) == {key for key in first if key.endswith("num_batches_tracked")}


def test_random_weights_leave_threads_and_momentum_alone():
    import torch

    network = network_from_recipe(recipe_of(R18, UPFREE, (64, 64)))
    threads = torch.get_num_threads()
    random_weights(network, 0)
    assert torch.get_num_threads() == threads
    assert network.backbone.bn1.momentum == 0.1


def test_an_old_torch_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(MissingDependencyError, match=r"networks need torch 2\.6 or later, .* \(got 2\.5\.1\+cu124\)"):
        build.check_torch()


def test_an_absent_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="networks need torch, which is not installed; pip install"):
        build.check_torch()


def test_importing_the_package_imports_no_torch():
    code = "import sys, sdk.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "family", sorted({r.network.backbone.kind + "/" + r.network.head.kind for r in catalogue().values()})
)
def test_one_recipe_of_every_family_runs(family):
    """The smallest network of each pair of backbone and head, on a crop of its size."""
    import torch

    members = [r for r in catalogue().values() if r.network.backbone.kind + "/" + r.network.head.kind == family]
    recipe = min(members, key=lambda r: r.input.height * r.input.width)
    with torch.inference_mode():
        result = network_from_recipe(recipe)(torch.zeros(1, 3, *recipe.input.size_hw))
    if recipe.output.kind == "simcc":
        assert [o.shape[-1] for o in result] == list(recipe.bins)
    else:
        assert result.shape[1] == recipe.joints
