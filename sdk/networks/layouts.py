"""The key names of other code's checkpoints, as renaming tables: the one place that knows them.

Our modules use one naming (layout `sdk`): `backbone.*`, `neck.*` and `head.*`. A table is a list of (regular
expression, its replacement), tried in order; the first that matches the start of a key renames it.

    sdk_key("head.mlp.1.weight", "mmpose")            # 'head.reduce.weight'
"""

from __future__ import annotations

import re

__all__ = ["sdk_key"]

Table = tuple[tuple[str, str], ...]

LAYOUTS: dict[str, Table] = {
    # leeyegy/SimCC: bare names; the same for its heatmap baselines
    "simcc": (
        (r"deconv_layers\.", "head.deconv."),
        (r"final_layer\.", "head.final."),
        (r"mlp_head_(x|y)\.", r"head.classify_\1."),
        (r"", "backbone."),
    ),
    # leeyegy/TokenPose
    "tokenpose": (
        (r"features\.mlp_head\.", "head.layers."),
        (r"features\.mlp_head_(x|y)\.", r"head.classify_\1."),
        (r"features\.transformer\.layers\.(\d+)\.0\.fn\.norm\.", r"backbone.layers.\1.attention_norm."),
        (r"features\.transformer\.layers\.(\d+)\.0\.fn\.fn\.to_qkv\.", r"backbone.layers.\1.to_qkv."),
        (r"features\.transformer\.layers\.(\d+)\.0\.fn\.fn\.to_out\.0\.", r"backbone.layers.\1.to_out."),
        (r"features\.transformer\.layers\.(\d+)\.1\.fn\.norm\.", r"backbone.layers.\1.mlp_norm."),
        (r"features\.transformer\.layers\.(\d+)\.1\.fn\.fn\.net\.0\.", r"backbone.layers.\1.mlp_in."),
        (r"features\.transformer\.layers\.(\d+)\.1\.fn\.fn\.net\.3\.", r"backbone.layers.\1.mlp_out."),
        (r"features\.", "backbone."),
    ),
    # open-mmlab/mmpose 1.x
    "mmpose": (
        (r"head\.deconv_head\.deconv_layers\.", "head.deconv."),
        (r"head\.deconv_layers\.", "head.deconv."),
        (r"head\.(deconv_head\.)?final_layer\.", "head.final."),
        (r"head\.(?:mlp_head|cls)_(x|y|z)\.", r"head.classify_\1."),
        (r"head\.final_layer2\.", "head.final_fine."),
        (r"head\.conv_dec\.", "head.carry."),
        (r"head\.mlp2\.0\.", "head.norm_fine."),
        (r"head\.mlp2\.1\.", "head.reduce_fine."),
        (r"head\.mlp\.0\.", "head.norm."),
        (r"head\.mlp\.1\.", "head.reduce."),
    ),
    "sdk": (),
}


def sdk_key(key: str, layout: str) -> str:
    """Our name of a checkpoint's key."""
    for pattern, replacement in LAYOUTS[layout]:
        renamed, count = re.subn(f"^{pattern}", replacement, key, count=1)
        if count:
            return renamed
    return key
