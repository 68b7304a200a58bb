"""A network that overflows FP16 where SimCC networks do: ScaleNorm above 64 RMS, attention logits above 300.

Its classifiers answer smooth curves over the bins, so that a keypoint's distance measures precision, not near ties.

    network = stress_network(recipe)
    rms, logits = stress_of(network, crops)
"""

import numpy as np
import torch
from torch import nn

from sdk.networks.heads import GauHead


class StressNetwork(nn.Module):
    def __init__(self, recipe):
        super().__init__()
        height, width = recipe.input.size_hw
        gau = recipe.network.head
        self.backbone = nn.Conv2d(3, 32, 32, stride=32)
        self.head = GauHead(
            channels=32,
            joints=recipe.joints,
            kernel=gau.kernel,
            feature_hw=(height // 32, width // 32),
            hidden=gau.hidden,
            attention=gau.attention,
            expansion=gau.expansion,
            bins_xy=recipe.bins_xy,
        )

    def forward(self, crops):  # N x 3 x h x w
        return self.head(self.backbone(crops))


def stress_network(recipe, norm_gain=240.0, attention_gain=16.0):
    """The network in eval mode, its weights seeded and then driven into the ranges that FP16 cannot hold."""
    torch.manual_seed(0)
    network = StressNetwork(recipe).eval()
    with torch.no_grad():
        network.head.final.weight *= norm_gain
        network.head.gau.gamma.copy_(attention_gain * (1 + 0.1 * torch.randn_like(network.head.gau.gamma)))
        for linear in (network.head.classify_x, network.head.classify_y):
            linear.weight.copy_(_smooth_rows(*linear.weight.shape))
    return network


def stress_of(network, crops):
    """(largest RMS that enters a ScaleNorm, largest attention logit) on crops N x 3 x h x w."""
    seen = {"rms": 0.0, "logit": 0.0}

    def on_norm(_, inputs):
        seen["rms"] = max(seen["rms"], float(inputs[0].square().mean(dim=-1).sqrt().max()))

    def on_gau(module, inputs):
        base = torch.split(nn.functional.silu(module.uv(module.ln(inputs[0]))), module.widths, dim=2)[2]
        query, key = (base * module.gamma[i] + module.beta[i] for i in range(2))
        logits = query @ key.transpose(1, 2) / module.sqrt_attention
        seen["logit"] = max(seen["logit"], float(logits.max()))

    hooks = [network.head.norm.register_forward_pre_hook(on_norm)]
    hooks.append(network.head.gau.register_forward_pre_hook(on_gau))
    with torch.no_grad():
        network(torch.from_numpy(crops))
    for hook in hooks:
        hook.remove()
    return seen["rms"], seen["logit"]


def _smooth_rows(bins, features):
    """bins x features: each feature adds one low-frequency wave over the bins."""
    phase = 2 * np.pi * np.arange(bins)[:, None, None] / bins * np.array([1, 2])  # bins x 1 x waves
    rng = np.random.default_rng(bins)
    cosines, sines = rng.standard_normal((2, features, 2)) * np.array([1.0, 0.5])
    return torch.from_numpy((np.cos(phase) * cosines + np.sin(phase) * sines).sum(axis=2).astype(np.float32))
