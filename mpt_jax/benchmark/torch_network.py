"""A network in PyTorch as a program of its own: the peer of `python -m mpt_jax.benchmark network`."""

from mpt_jax import models
from mpt_jax.models import registry, twins

WORKS = ("forward", "step")

_MEASURE = """
import json, statistics, time
images = torch.randn({batch}, 3, {image_size}, {image_size})
labels = torch.randint(0, {classes}, ({batch},))
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

def forward():
    with torch.inference_mode():
        {logits}

def step():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy({logits}, labels).backward()
    optimizer.step()

net.train({training})
{work}()
milliseconds = []
while len(milliseconds) < 3 or sum(milliseconds) < {seconds} * 1e3:
    started = time.perf_counter()
    {work}()
    milliseconds.append(1e3 * (time.perf_counter() - started))
print(json.dumps(dict(median_ms=statistics.median(milliseconds), ms=milliseconds)))
"""


def script(
    work: str, *, model: str, names: str, batch: int, image_size: int, classes: int, seconds: float = 4.0
) -> str:
    """Return Python that measures a network of a PyTorch package and prints one line of JSON.

    Args:
      work: "forward" is inference, "step" is a step of AdamW on the cross-entropy.
      model: a network of `models.NETWORKS`.
      names: the package that has it.
      batch: images per call.
      image_size: side of an image in pixels.
      classes: number of logits.
      seconds: how long calls are measured after the first one, at least three.
    """
    twin = registry.NETWORKS[model].twins[names]
    code = twins.code(twin, models.build(model, classes), (image_size, image_size, 3))
    measured = _MEASURE.format(
        **{"work": work, "training": work == "step", "logits": twin.logits, "seconds": seconds},
        **{"batch": batch, "image_size": image_size, "classes": classes},
    )
    return f"import torch\n{code}\n{measured}"
