"""A network in PyTorch: the peer of `python -m mpt_jax.benchmark network`. Prints one line of JSON."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence

FEWEST_CALLS, SECONDS = 3, 4.0
PASSES = ("forward", "step")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mpt_jax.benchmark.torch_network", description=__doc__)
    parser.add_argument("work", choices=PASSES, help="inference, or a step of AdamW on the cross-entropy")
    parser.add_argument("--model", default="efficientnet_lite0", help="a network of mpt_jax.models")
    parser.add_argument("--names", default="timm", help="the package that has it")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--classes", type=int, default=100)
    milliseconds = measure(**vars(parser.parse_args(argv)))
    print(json.dumps({"median_ms": statistics.median(milliseconds), "ms": milliseconds}))
    return 0


def measure(work: str, *, model: str, names: str, batch: int, image_size: int, classes: int) -> list[float]:
    """Measure calls for a few seconds, the first one apart; return the milliseconds of each."""
    import torch

    from mpt_jax import models
    from mpt_jax.models import registry, twins

    shape = (image_size, image_size, 3)
    scope: dict = {"torch": torch}
    twin = registry.NETWORKS[model].twins[names]
    exec(twins.code(twin, models.build(model, classes), shape), scope)
    net, images = scope["net"], torch.randn(batch, 3, image_size, image_size)
    scope["images"] = images
    labels = torch.randint(0, classes, (batch,))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def logits() -> torch.Tensor:
        return eval(twin.logits, scope)

    def forward() -> None:
        with torch.inference_mode():
            logits()

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(), labels).backward()
        optimizer.step()

    net.train(work == "step")
    call = {"forward": forward, "step": step}[work]
    call()
    milliseconds: list[float] = []
    while len(milliseconds) < FEWEST_CALLS or sum(milliseconds) < 1e3 * SECONDS:
        started = time.perf_counter()
        call()
        milliseconds.append(1e3 * (time.perf_counter() - started))
    return milliseconds


if __name__ == "__main__":
    sys.exit(main())
