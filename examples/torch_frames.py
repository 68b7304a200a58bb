"""Frames that torch made in device memory: the crop reads them there, nothing goes through the host. Needs a CUDA GPU.

python examples/torch_frames.py ENGINE                        # an engine folder with a plan for this GPU
"""

import sys

import torch

from sdk import PoseEstimator


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA GPU; on a CPU give numpy frames")
    with PoseEstimator(arguments[0], device="cuda") as estimate:
        for _ in range(3):
            decoded = torch.randint(0, 256, (3, 1080, 1920), dtype=torch.uint8, device="cuda")  # as a decoder gives it
            frame = decoded.permute(1, 2, 0).contiguous()  # H x W x 3 uint8, still on the device
            poses = estimate(frame, [[400, 100, 700, 900], [1000, 150, 1300, 950]])
            print(poses, f"{poses.timings_ms['total']:.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
