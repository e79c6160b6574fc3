"""Work directories of crafted cards and predictions, for tests of the report."""

import json

import numpy as np

from mpt_jax import config as configs
from mpt_jax.files.predictions import released
from mpt_jax.files.sealed import sealed
from mpt_jax.report.build import RATES
from mpt_jax.update import workdir
from mpt_jax.update.lineage import release_name

STARTED_ON = {"platform": "cpu", "kind": "cpu", "count": 1, "processor": "Neoverse-N1", "cores": 4}
STARTED_WITH = {"device": STARTED_ON, "versions": {"jax": "0"}, "git_revision": "first"}
RESUMED_ON = {"platform": "cpu", "kind": "cpu", "count": 1}
RESUMED_WITH = {"device": RESUMED_ON, "versions": {"jax": "1"}, "git_revision": "later"}
HOSTILE = [  # class names that try to break a page
    '<script>alert("x")</script>',
    "a|b`c` $x_{ [l](http://evil.test) ![i](http://evil.test/i.png)",
    "'\"><img src=http://evil.test/x onerror=alert(1)>\n# heading\u202e{{ 7*7 }} " + "long" * 20,
]
TIMES = {"steps": 10, "seconds": 2.0, "examples_per_second": 50.0}


def make_workdir(folder, methods=("no_treatment", "mpt_kl"), seeds=(0, 7), nfr=0.04, new_classes=True):
    """Make a finished run of crafted cards, in which `mpt_kl` has half the flips of the others."""
    config = configs.to_dict(configs.Config(seeds=seeds))
    config["dataset"]["name"] = "made|up"
    config["update"] |= {"methods": list(methods), "schedule": [2, 3]}
    facts = {
        "config": config,
        "images": {"train": 9, "validation": 6, "test": 12},
        **STARTED_WITH,
        "sessions": [{"started": "2026-01-01T00:00:00+00:00", "command": "again", **RESUMED_WITH}],
        "command": "python -m mpt_jax.train",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(sealed(facts)))
    for method in ("old", "independent", *methods):
        for i, seed in enumerate(seeds):
            rates = dict.fromkeys(RATES, 0.5)
            rates["nfr"] = nfr * (0.5 if method == "mpt_kl" else 1) + 0.01 * i
            if not new_classes:
                rates["accuracy_new_classes"] = None
            choice = {"validation_images": 6, "required_accuracy": 0.8}
            card = {
                **{"schema": 2, "release": int(method != "old"), "method": method, "seed": seed, **TIMES},
                **{
                    "objective": {"bias": 2.0 if method == "mpt_kl" else 0.0},
                    "classes": ["a", "b", "c"][: 2 if method == "old" else 3],
                },
                **{
                    "name": release_name(int(method != "old"), method, seed),
                    "dataset": "made|up",
                    "digest": "0",
                    "architecture": {},
                    "normalization": {},
                },
                **{"parents": {}, "files": {}, "image_shape": [8, 8, 1]},
                "metrics": rates,
                "made_with": RESUMED_WITH if method == "mpt_kl" else STARTED_WITH,
            }
            if method == "mpt_kl":
                tried = [{"numbers": {"bias": b}, "accuracy": 0.9 - b / 20, "nfr": 0.1 - b / 50} for b in (0.0, 2.0)]
                card["selection"] = {**choice, "candidates": tried, "chosen": 1}
            if method == "no_treatment":
                tried = [{"numbers": {}, "accuracy": 0.85, "nfr": 0.1}]
                card["selection"] = {**choice, "candidates": tried, "chosen": 0}
            path = folder / "releases" / release_name(card["release"], method, seed)
            path.mkdir(parents=True)
            (path / "card.json").write_text(json.dumps(sealed(card)))
    return folder


def make_workdir_with_predictions(folder, *, classes=HOSTILE, seeds=(0, 7, 8), gallery=True, channels=1, **options):
    """Make a finished run with predictions and thumbnails, with fewer flips of `mpt_kl` than of the others."""
    make_workdir(folder, seeds=seeds, **options)
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 20)
    ids = np.array([f"{i} <b>&{'|`$' if i % 2 else ''}.png" for i in range(60)])
    (folder / "predictions").mkdir()
    for path in (folder / "releases").iterdir():
        card = json.loads((path / "card.json").read_text())
        known = 2 if card["release"] == 0 else 3
        (path / "card.json").write_text(json.dumps(sealed({**card, "classes": list(classes)[:known]})))
        logits = rng.normal(size=(60, known)).astype(np.float32)
        wrong = rng.random(60) < {"old": 0.05, "mpt_kl": 0.2}.get(card["method"], 0.4)
        logits[np.arange(60), np.where(wrong, (labels + 1) % known, np.minimum(labels, known - 1))] += 6
        released.write(folder / f"predictions/{path.name}.npz", labels=labels, logits=logits, ids=ids)
    if gallery:
        workdir.write_gallery(folder, images=rng.integers(0, 256, (60, 8, 8, channels), np.uint8), ids=ids)
    return folder
