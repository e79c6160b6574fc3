"""Work directories of crafted cards, for tests of the report."""

import json

from mpt_jax import config as configs
from mpt_jax.files.sealed import sealed
from mpt_jax.report.build import RATES
from mpt_jax.update.lineage import release_name

BEGUN_ON = {"platform": "cpu", "kind": "cpu", "count": 1, "processor": "Neoverse-N1", "cores": 4}
LATER = {"device": {"platform": "cpu", "kind": "cpu", "count": 1}, "git_revision": "later"}  # of an earlier version
TIMES = {"steps": 10, "seconds": 2.0, "examples_per_second": 50.0}


def make_workdir(folder, methods=("no_treatment", "mpt_kl"), seeds=(0, 7), nfr=0.04, new_classes=True):
    """A finished run with made-up cards: `mpt_kl` has half the flips of the others."""
    config = configs.to_dict(configs.Config(seeds=seeds))
    config["dataset"]["name"] = "made|up"
    config["update"] |= {"methods": list(methods), "schedule": [2, 3]}
    facts = {
        "config": config,
        "images": {"train": 9, "validation": 6, "test": 12},
        "device": BEGUN_ON,
        "versions": {"jax": "0"},
        "git_revision": "first",
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
                **{"objective": {"bias": 2.0 if method == "mpt_kl" else 0.0}, "classes": ["a", "b", "c"]},
                **{"name": method, "dataset": "made|up", "digest": "0", "architecture": {}, "normalization": {}},
                **{"parents": {}, "files": {}, "image_shape": [8, 8, 1]},
                "metrics": rates,
                "made_with": LATER if method == "mpt_kl" else {"device": BEGUN_ON, "git_revision": "first"},
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
