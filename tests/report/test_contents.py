"""The sections of a report, and those without data."""

import re

import pytest
from workdirs import make_workdir, make_workdir_with_predictions

from mpt_jax import report


def test_sections_come_in_the_order_of_the_questions(written):
    questions = [
        "Which method should I ship?",
        "How do the methods compare?",
        "Which images flip?",
        "Why do they flip?",
        "How was this run made?",
    ]
    for name, pattern in (("report.html", r"<h2>(.*?)</h2>"), ("report.md", r"(?m)^## (.*)$")):
        assert re.findall(pattern, (written[0] / name).read_text()) == questions


@pytest.mark.parametrize("options", [{"gallery": False}, {"seeds": (3,)}])
def test_a_report_needs_neither_gallery_nor_several_seeds(options, tmp_path):
    folder = make_workdir_with_predictions(tmp_path / "run", **options)
    result = report.write(folder)
    page = (folder / "report.html").read_text()
    assert (folder / "plots/gallery.png").exists() == options.get("gallery", True)
    images = next(iter(result["flips"].values()))["images"]
    assert images and images[0]["id"].split()[0] in page  # without thumbnails they are listed nevertheless
    if "seeds" in options:
        assert result["comparison"]["interval_over"] == "images" and "significance needs at least three seeds" in page


def test_without_predictions_there_are_no_sections_on_images(tmp_path):
    result = report.write(make_workdir(tmp_path))
    assert result["flips"] == {}
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "images flip?" not in text and "they flip?" not in text and "Which method should I ship?" in text
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"tradeoff", "fronts"}
