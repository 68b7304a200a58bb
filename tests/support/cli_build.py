"""What tests of `sdk build-engine` have in common: the recipe of the small graph as a file, and the words of a build.

status, out, err = run(*SMALL_BUILD, "--precision", "fp16")        # in the folder of the fixture `build_folder`
"""

from sdk import trt

COMPILER = "none" if trt.flavour("tensorrt-rtx").problem else "tensorrt-rtx"
RECIPE = """
format = 1
[recipes."small-64x48"]
description = "test network"
source = "tests"
licence = "Apache-2.0"
skeleton = "crowdpose14"
network.backbone = {kind = "cspnext", deepen = 0.167, widen = 0.375}
network.head = {kind = "simcc", deconv = [], maps_per_joint = 1}
output = {kind = "simcc", split_ratio = 2, score = "min_logit"}
protocol = {flip_test = false, flip_shift = false}
[recipes."small-64x48".input]
height = 64
width = 48
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
colour = "rgb"
box_padding = 1.25
"""
SMALL_BUILD = ["build-engine", "--recipe-file", "small.toml", "--onnx", "small.onnx", "--compiler", COMPILER]


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("small.onnx", "small.toml"))
