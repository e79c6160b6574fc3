"""PyTorch's DataLoader on image files: the peer of `python -m mpt_jax.benchmark input`. Prints one line of JSON.

Each image is opened and cropped with PIL as in ImageNet training, and becomes a normalised float32 tensor.
"""

import argparse
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mpt_jax.benchmark.torch_loader", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="folder of JPEG files")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=1, help="worker processes; 0: none")
    arguments = parser.parse_args(argv)
    milliseconds = measure(**vars(arguments))
    print(json.dumps({"median_ms": statistics.median(milliseconds), "ms": milliseconds, "batch": arguments.batch}))
    return 0


def measure(folder: pathlib.Path, *, batch: int, batches: int, image_size: int, workers: int) -> list[float]:
    """Measure three epochs after a first one; return the mean milliseconds per batch of each."""
    import torch
    import torch.utils.data

    torch.set_num_threads(1)
    data = _files(sorted(folder.rglob("*.jpg")), batch * batches, image_size, torch)
    loader = torch.utils.data.DataLoader(
        data, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=True
    )
    milliseconds = []
    for epoch in range(4):
        started = time.perf_counter()
        for images, _ in loader:
            assert images.shape == (batch, 3, image_size, image_size)
        if epoch:  # the first epoch starts the workers and fills the page cache
            milliseconds.append(1e3 * (time.perf_counter() - started) / batches)
    return milliseconds


class _Files:
    """A data set that repeats the files up to a number of items, each a tensor ``[3, size, size]`` and a label."""

    def __init__(self, paths, number, size, mean, std):
        self.paths, self.number, self.size, self.mean, self.std = paths, number, size, mean, std

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        import torch
        from PIL import Image

        with Image.open(self.paths[index % len(self.paths)]) as image:
            image = image.convert("RGB")
        image = image.crop(_box(*image.size, torch)).resize((self.size, self.size), Image.Resampling.BILINEAR)
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(self.size, self.size, 3)
        return pixels.permute(2, 0, 1).contiguous().float().div_(255).sub_(self.mean).div_(self.std), 0


def _files(paths, number, size, torch):
    return _Files(paths, number, size, *(torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD)))


def _box(width, height, torch):
    for _ in range(10):
        area = width * height * torch.empty(()).uniform_(*AREA).item()
        aspect = math.exp(torch.empty(()).uniform_(math.log(RATIO[0]), math.log(RATIO[1])).item())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(torch.randint(0, width - w + 1, ()))
            top = int(torch.randint(0, height - h + 1, ()))
            return left, top, left + w, top + h
    return 0, 0, width, height


if __name__ == "__main__":
    sys.exit(main())
