"""Metrics: worked examples, brute force, identities, and errors for bad input."""

import json
import math
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpt_jax import metrics
from mpt_jax.metrics import MEANINGS, class_growth_metrics, flip_metrics, sequence_metrics

# image    0  1  2  3  4  5  6  7  8  9
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
OLD = [0, 0, 0, 1, 1, 1, 0, 1, 2, 0]  # right: 0 1 2 4 5 8
NEW = [0, 0, 1, 0, 1, 0, 2, 1, 2, 0]  # right: 0 1 3 4 8
# both right 0 1 4 8; negative flips 2 5; positive flip 3; both wrong 6 (differently) 7 9 (alike); differ on 2 3 5 6


def test_worked_example():
    assert flip_metrics(OLD, NEW, LABELS) == pytest.approx(
        {
            "count": 10,
            "both_right": 4,
            "negative_flips": 2,
            "positive_flips": 1,
            "both_wrong": 3,
            "accuracy_old": 0.6,
            "accuracy_new": 0.5,
            "error_old": 0.4,
            "error_new": 0.5,
            "nfr": 0.2,
            "relative_nfr": 2 / 3,  # 0.2 / (0.6 * 0.5)
            "pfr": 0.1,
            "nfi": 0.4,  # 2 of 5 errors
            "pfi": 0.2,  # 1 of 5 correct predictions
            "churn": 0.4,
            "nfr_mc": 0.3,  # images 2, 5, 6
            "btc": 4 / 6,
            "bec": 3 / 5,
            "bec_old": 3 / 4,
        },
        abs=1e-15,
    )


def test_worked_example_of_class_growth():
    # class 2 is new: images 7 8 9, which a model of classes 0 and 1 always gets wrong
    old = [0, 0, 0, 1, 1, 1, 0, 1, 0, 0]
    assert class_growth_metrics(old, NEW, LABELS, num_old_classes=2) == pytest.approx(
        {
            "accuracy": 0.5,
            "accuracy_old_classes": 4 / 7,
            "accuracy_new_classes": 1 / 3,
            "accuracy_previous": 5 / 7,
            "nfr": 2 / 7,
            "relative_nfr": (2 / 7) / (5 / 7 * 3 / 7),
            "pfr": 1 / 7,
            "nfi": 2 / 3,
            "churn": 4 / 7,
            "btc": 3 / 5,
            "nfr_all_classes": 0.2,
        },
        abs=1e-15,
    )


def test_published_relative_rates():
    # Positive-Congruent Training, ImageNet class growth, no treatment: ER_new 23.65 %, NFR 8.05 %, relative NFR 41.90 %
    # on 100,000 images; the old model's accuracy follows from the three numbers.
    count, wrong_new, negative = 100_000, 23_650, 8_050
    right_old = round(0.0805 / (0.4190 * 0.2365) * count)
    old = np.where(np.arange(count) < right_old, 0, 1)
    new = np.zeros(count, int)
    new[:negative] = 1
    new[count - (wrong_new - negative) :] = 1
    assert flip_metrics(old, new, np.zeros(count, int))["relative_nfr"] == pytest.approx(0.4190, abs=1e-5)


@st.composite
def comparisons(draw, classes=4):
    count = draw(st.integers(1, 40))
    column = st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)
    return tuple(np.array(draw(column)) for _ in range(3))


@given(comparisons())
def test_identities(comparison):
    old, new, labels = comparison
    m = flip_metrics(*comparison)
    assert m["count"] == m["both_right"] + m["negative_flips"] + m["positive_flips"] + m["both_wrong"] == labels.size
    close = pytest.approx
    assert m["error_new"] - m["error_old"] == close(m["nfr"] - m["pfr"], abs=1e-12)
    assert m["accuracy_old"] + m["error_old"] == close(1, abs=1e-12)
    assert m["accuracy_new"] + m["error_new"] == close(1, abs=1e-12)
    assert m["nfr"] <= m["error_new"] and m["nfr"] <= 1 - m["error_old"] + 1e-12
    assert m["pfr"] <= m["error_old"] and m["pfr"] <= m["accuracy_new"]
    assert m["nfr"] + m["pfr"] <= m["churn"] + 1e-12  # a flip is a change
    assert m["churn"] <= 1 - m["both_right"] / m["count"] + 1e-12
    assert m["nfr"] <= m["nfr_mc"] <= min(m["churn"], m["error_new"])
    assert m["churn"] == close(m["nfr_mc"] + m["pfr"], abs=1e-12)  # a change is wrong now, or was wrong before
    assert m["nfi"] * m["error_new"] == close(m["nfr"], abs=1e-12)
    assert m["pfi"] * m["accuracy_new"] == close(m["pfr"], abs=1e-12)
    assert m["relative_nfr"] * m["accuracy_old"] * m["error_new"] == close(m["nfr"], abs=1e-12)
    assert (1 - m["btc"]) * m["accuracy_old"] == close(m["nfr"], abs=1e-12)
    assert m["bec"] * m["error_new"] == close(m["bec_old"] * m["error_old"], abs=1e-12)
    if m["error_new"]:
        assert m["nfi"] + m["bec"] == close(1, abs=1e-12)
    assert all(0 <= value <= 1 for key, value in m.items() if key != "relative_nfr" and isinstance(value, float))
    assert m["churn"] == sum(int(a) != int(b) for a, b in zip(old, new, strict=True)) / labels.size


@given(comparisons())
def test_a_model_against_itself(comparison):
    old, _, labels = comparison
    m = flip_metrics(old, old, labels)
    assert m["nfr"] == m["pfr"] == m["churn"] == m["nfr_mc"] == m["relative_nfr"] == 0
    assert m["btc"] == (m["accuracy_old"] > 0)


@given(comparisons())
def test_swapping_the_models_swaps_the_flips(comparison):
    old, new, labels = comparison
    forward, backward = flip_metrics(old, new, labels), flip_metrics(new, old, labels)
    for there, back in (("nfr", "pfr"), ("accuracy_old", "accuracy_new"), ("bec", "bec_old"), ("churn", "churn")):
        assert forward[there] == backward[back]


@given(comparisons(), st.randoms(use_true_random=False))
def test_order_of_images_and_names_of_classes_do_not_matter(comparison, random):
    order = list(range(comparison[2].size))
    random.shuffle(order)
    names = random.sample(range(100), 4)
    changed = [np.array(names)[column][order] for column in comparison]
    assert flip_metrics(*changed) == flip_metrics(*comparison)


@given(comparisons())
def test_class_growth_is_composed_of_flips(comparison):
    old, new, labels = comparison
    old, labels = old % 2, np.append(labels[1:], 0)  # an old model of two classes, and at least one old image
    row = class_growth_metrics(old, new, labels, num_old_classes=2)
    on_old = flip_metrics(old[labels < 2], new[labels < 2], labels[labels < 2])
    on_all = flip_metrics(old, new, labels)
    for key in ("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc"):
        assert row[key] == on_old[key]
    assert row["accuracy_old_classes"] == on_old["accuracy_new"]
    assert row["accuracy_previous"] == on_old["accuracy_old"]
    assert row["accuracy"] == on_all["accuracy_new"]
    share_old = (labels < 2).mean()  # new classes cannot flip negatively
    assert row["nfr_all_classes"] == pytest.approx(row["nfr"] * share_old, abs=1e-12)
    by_group = share_old * row["accuracy_old_classes"] + (1 - share_old) * (row["accuracy_new_classes"] or 0)
    assert row["accuracy"] == pytest.approx(by_group, abs=1e-12)


def test_a_ratio_without_denominator_is_0():
    right, wrong = [1, 1], [0, 0]
    perfect = flip_metrics(right, right, right)
    assert perfect["relative_nfr"] == perfect["nfi"] == perfect["bec"] == perfect["bec_old"] == 0
    hopeless = flip_metrics(wrong, wrong, right)
    assert hopeless["relative_nfr"] == hopeless["pfi"] == hopeless["btc"] == 0


def test_no_images_of_new_classes():
    assert class_growth_metrics([0, 1], [0, 1], [0, 1], num_old_classes=2)["accuracy_new_classes"] is None


def test_results_are_json_and_any_integer_dtype_works():
    expected = flip_metrics(OLD, NEW, LABELS)
    assert {type(value) for value in expected.values()} == {int, float}
    row = class_growth_metrics([0, 1, 0], [0, 0, 2], [0, 1, 2], num_old_classes=2)
    assert {type(value) for value in row.values()} == {float}
    assert json.loads(json.dumps([expected, row])) == [expected, row]
    kinds = (np.uint8, np.int64, jnp.int32)
    for a, b, c in (kinds, kinds[::-1]):
        arrays = (jnp.asarray(OLD, a) if a is jnp.int32 else np.asarray(OLD, a), np.asarray(NEW, b))
        assert flip_metrics(*arrays, np.asarray(LABELS, c)) == expected


def test_every_key_has_a_meaning():
    keys = flip_metrics(OLD, NEW, LABELS).keys() | class_growth_metrics([0], [0], [0], num_old_classes=1).keys()
    lineage = sequence_metrics([[0]], [0], schedule=[1]).keys()
    assert keys | lineage == MEANINGS.keys() and not keys & lineage
    assert all(f"`{key}`" in sequence_metrics.__doc__ for key in lineage)
    assert all(f"`{key}`" in flip_metrics.__doc__ for key in flip_metrics(OLD, NEW, LABELS))
    assert all(meaning.endswith(".") for meaning in MEANINGS.values())


def test_large_counts_stay_exact():
    count = 200_000  # products of counts exceed 2**31
    labels = np.zeros(count, np.int32)
    old, new = labels.copy(), labels.copy()
    old[:1], new[1:] = 1, 1
    assert flip_metrics(old, new, labels)["relative_nfr"] == count / (count - 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.0, 1.0], [0, 1], [0, 1]), TypeError, "old_predictions have dtype float64; expected integers"),
        (([0, 1], [True, False], [0, 1]), TypeError, "new_predictions have dtype bool"),
        (([0, 1], [0, 1], [0.1, 0.9]), TypeError, "labels"),
        (([0, 1], [0], [0, 1]), ValueError, "shapes do not fit"),
        (([[0, 1]], [[0, 1]], [[0, 1]]), ValueError, "shapes do not fit"),
        (([], [], []), ValueError, "no images"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        flip_metrics(*arguments)


def test_bad_input_of_class_growth():
    with pytest.raises(ValueError, match="hold class 2; expected the old classes 0 to 1"):
        class_growth_metrics([0, 2], [0, 1], [0, 1], num_old_classes=2)
    with pytest.raises(ValueError, match="no image of an old class"):
        class_growth_metrics([0, 1], [2, 3], [2, 3], num_old_classes=2)
    with pytest.raises(TypeError, match="expected integers"):
        class_growth_metrics([0, 1], [0.5, 1.0], [0, 1], num_old_classes=2)


@given(comparisons())
def test_per_class_flips_are_the_flips_of_each_class(comparison):
    old, new, labels = comparison
    flips = metrics.per_class_flips(*comparison, num_classes=5)
    for key, counts in flips.items():
        assert counts.shape == (5,) and np.issubdtype(counts.dtype, np.integer)
        for k in range(5):
            here = labels == k
            expected = flip_metrics(old[here], new[here], labels[here])[key] if here.any() else 0
            assert counts[k] == expected
    with pytest.raises(ValueError, match="expected classes 0 to 1"):
        metrics.per_class_flips([0], [0], [2], num_classes=2)


def test_margins_one_image_at_a_time():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    expected = [z[y] - max(z[k] for k in range(4) if k != y) for z, y in zip(logits, labels, strict=True)]
    for given_logits in (logits, jnp.asarray(logits)):
        found = metrics.margins(given_logits, labels)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found > 0, logits.argmax(-1) == labels)
    for bad in ([0] * 49, [4] * 50, [-1] * 50):
        with pytest.raises(ValueError, match="expected"):
            metrics.margins(logits, np.array(bad))


def test_margin_histograms_hold_every_image_of_an_old_class():
    rng = np.random.default_rng(0)
    old, new, labels = rng.normal(size=(60, 2)), rng.normal(size=(60, 5)), rng.integers(0, 5, 60)
    found = metrics.margin_histograms(old, new, labels, num_old_classes=2, bins=7)
    assert found["edges"].shape == (8,)
    for key, logits in (("before", old), ("after", new)):
        margins = metrics.margins(logits[labels < 2], labels[labels < 2])
        assert found[key].sum() == (labels < 2).sum() and found[key].shape == (7,)
        for b, (low, high) in enumerate(zip(found["edges"][:-1], found["edges"][1:], strict=True)):
            assert found[key][b] == sum(low <= m and (m < high or b == 6) for m in margins)
    with pytest.raises(ValueError, match="no image of an old class"):
        metrics.margin_histograms(old, new, labels + 2, num_old_classes=2)


def test_worked_example_of_a_sequence():
    #          image  0  1  2  3  4  5
    labels = [0, 0, 1, 1, 2, 3]
    releases = [
        [0, 0, 1, 0, 0, 1],  # right: 0 1 2
        [0, 2, 0, 1, 2, 2],  # right: 0 3 4; lost 1 2
        [1, 0, 1, 0, 2, 3],  # right: 1 2 4 5; lost 0 (right in both), 3 (right in release 1)
    ]
    lineage = sequence_metrics(releases, labels, schedule=[2, 3, 4])
    assert lineage.pop("task_accuracy") == [[0.75], [0.5, 1.0], [0.5, 1.0, 1.0]]
    assert lineage.pop("forgetting") == pytest.approx([None, 0.25, (0.25 + 0) / 2])
    assert lineage == {
        "accuracy_of_release": [3 / 4, 3 / 5, 4 / 6],
        "nfr_against_previous": [None, 2 / 4, 2 / 5],
        "flips_against": [[], [2], [1, 2]],
        "cumulative_flips": [None, 2, 2],
        "cumulative_nfr": [None, 2 / 4, 2 / 5],
        "average_incremental_accuracy": pytest.approx((3 / 4 + 3 / 5 + 4 / 6) / 3),
    }


@st.composite
def lineages(draw):
    steps = draw(st.lists(st.integers(0, 2), max_size=4))
    schedule = np.cumsum([2, *steps]).tolist()
    count = draw(st.integers(1, 20))
    column = lambda classes: st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)  # noqa: E731
    labels = draw(column(schedule[-1]))
    labels[0] %= 2
    return [draw(column(classes)) for classes in schedule], labels, schedule


@given(lineages())
def test_a_sequence_image_by_image(lineage):
    releases, labels, schedule = lineage
    found = sequence_metrics(releases, labels, schedule=schedule)
    images = range(len(labels))
    right = [{i for i in images if predictions[i] == labels[i]} for predictions in releases]
    known = [{i for i in images if labels[i] < classes} for classes in schedule]
    tasks = [known[0], *(known[j] - known[j - 1] for j in range(1, len(schedule)))]

    def share(r, j):
        return len(right[r] & tasks[j]) / len(tasks[j])

    for r in range(len(schedule)):
        assert found["accuracy_of_release"][r] == len(right[r]) / len(known[r])
        assert found["flips_against"][r] == [len(right[a] - right[r]) for a in range(r)]
        assert found["task_accuracy"][r] == [share(r, j) if tasks[j] else None for j in range(r + 1)]
        if r == 0:
            continue
        pair = [np.array(column)[sorted(known[r - 1])] for column in (releases[r - 1], releases[r], labels)]
        assert found["nfr_against_previous"][r] == flip_metrics(*pair)["nfr"]
        lost = set().union(*right[:r]) - right[r]
        assert found["cumulative_flips"][r] == len(lost) and found["cumulative_nfr"][r] == len(lost) / len(known[r - 1])
        assert max(found["flips_against"][r]) <= len(lost) <= sum(found["flips_against"][r])
        falls = [max(share(a, j) for a in range(j, r)) - share(r, j) for j in range(r) if tasks[j]]
        assert found["forgetting"][r] == pytest.approx(np.mean(falls), abs=1e-12)
    assert found["average_incremental_accuracy"] == pytest.approx(np.mean(found["accuracy_of_release"]), abs=1e-12)
    assert json.loads(json.dumps(found)) == found


def test_a_sequence_of_two_is_class_growth():
    rng = np.random.default_rng(0)
    labels, old, new = rng.integers(0, 4, 200), rng.integers(0, 2, 200), rng.integers(0, 4, 200)
    row = class_growth_metrics(old, new, labels, num_old_classes=2)
    lineage = sequence_metrics([old, new], labels, schedule=[2, 4])
    assert lineage["accuracy_of_release"] == [row["accuracy_previous"], row["accuracy"]]
    assert lineage["nfr_against_previous"][1] == lineage["cumulative_nfr"][1] == row["nfr"]
    # one task: forgetting is the error growth of the old classes, ER_new - ER_old = NFR - PFR
    assert lineage["forgetting"][1] == pytest.approx(row["nfr"] - row["pfr"], abs=1e-12)


@pytest.mark.parametrize(
    ("releases", "labels", "schedule", "error", "message"),
    [
        ([[0], [0]], [0], [1], ValueError, "2 releases and a schedule of 1; expected equal lengths"),
        ([], [0], [], ValueError, "0 releases"),
        ([[0], [0]], [0], [2, 1], ValueError, "decreases"),
        ([[1], [0]], [0], [1, 2], ValueError, "release 0 predicts class 1"),
        ([[0], [0]], [2], [1, 2], ValueError, "labels hold class 2"),
        ([[0], [0]], [1], [1, 2], ValueError, "no image of the first release"),
        ([[0], [0, 0]], [0], [1, 2], ValueError, "shapes do not fit"),
        ([[0.5]], [0], [1], TypeError, "expected integers"),
    ],
)
def test_bad_input_of_a_sequence(releases, labels, schedule, error, message):
    with pytest.raises(error, match=message):
        sequence_metrics(releases, labels, schedule=schedule)


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(points)
def test_no_point_dominates_the_front(tried):
    accuracy, nfr = (np.array([point[i] / 8 for point in tried]) for i in range(2))
    front = metrics.pareto_front(accuracy, nfr).tolist()

    def beaten(i):
        at_least = [j for j, (a, n) in enumerate(tried) if a >= tried[i][0] and n <= tried[i][1]]
        return any(tried[j] != tried[i] or j < i for j in at_least)

    assert sorted(front) == [i for i in range(len(tried)) if not beaten(i)]
    assert np.all(np.diff(accuracy[front]) > 0) and np.all(np.diff(nfr[front]) > 0)


@given(points, st.integers(0, 48))
def test_the_rate_at_an_accuracy_lies_on_the_front(tried, sixty_fourths):
    accuracies, nfrs, accuracy = [a / 8 for a, _ in tried], [n / 8 for _, n in tried], sixty_fourths / 64
    front = metrics.pareto_front(accuracies, nfrs)
    found = metrics.nfr_at_accuracy(accuracies, nfrs, accuracy)
    held = metrics.nfr_at_accuracy(accuracies, nfrs, accuracy, hold_below=True)
    below = [(accuracies[i], nfrs[i]) for i in front if accuracies[i] <= accuracy]
    above = [(accuracies[i], nfrs[i]) for i in front if accuracies[i] >= accuracy]
    if below and above:
        (a, n), (b, m) = below[-1], above[0]
        assert found == held == pytest.approx(n if a == b else n + (m - n) * (accuracy - a) / (b - a), abs=1e-12)
    else:
        assert found is None
        assert held == (min(nfrs) if above else None)


def test_bad_input_of_a_front():
    with pytest.raises(ValueError, match="one number per candidate"):
        metrics.pareto_front([0.5], [0.1, 0.2])
    with pytest.raises(ValueError, match="NaN"):
        metrics.pareto_front([0.5], [np.nan])


@pytest.mark.parametrize(
    ("successes", "count", "confidence"), [(3, 40, 0.95), (0, 10, 0.95), (10, 10, 0.9), (5, 9, 0.5)]
)
def test_wilson_ends_are_where_the_score_test_turns(successes, count, confidence):
    z = {0.95: 1.959963984540054, 0.9: 1.6448536269514722, 0.5: 0.6744897501960817}[confidence]
    rate = np.linspace(0, 1, 200_001)
    kept = rate[np.abs(successes / count - rate) <= z * np.sqrt(rate * (1 - rate) / count) + 1e-12]
    low, high = metrics.wilson_interval(successes, count, confidence=confidence)
    assert (low, high) == pytest.approx((kept[0], kept[-1]), abs=1e-5)


def test_bad_confidence_and_resamples():
    for confidence in (-1, 0, 1, 95):
        with pytest.raises(ValueError, match="expected a number between 0 and 1"):
            metrics.wilson_interval(1, 2, confidence=confidence)
        with pytest.raises(ValueError, match="expected a number between 0 and 1"):
            metrics.bootstrap_nfr_difference([0], [0], [1], [0], seed=0, confidence=confidence)
    with pytest.raises(ValueError, match="expected 1 or more"):
        metrics.bootstrap_nfr_difference([0], [0], [1], [0], seed=0, resamples=0)
    assert metrics.mcnemar_exact(np.uint8(200), np.uint8(100)) == metrics.mcnemar_exact(200, 100)


@settings(deadline=None)  # the first call imports scipy.stats
@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_a_fair_coin_test(first, second):
    count, fewer = first + second, min(first, second)
    expected = min(1, 2 * sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count)
    assert metrics.mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)


def test_bad_counts():
    for counts in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="images"):
            metrics.wilson_interval(*counts)
    with pytest.raises(ValueError, match="0 or more"):
        metrics.mcnemar_exact(-1, 2)


def test_the_bootstrap_equals_drawing_images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    old, first, second = (np.where(rng.random(300) < p, labels, (labels + 1) % 3) for p in (0.8, 0.7, 0.85))
    found = metrics.bootstrap_nfr_difference(old, first, second, labels, seed=1, resamples=20_000, confidence=0.9)
    nfr = [flip_metrics(old, new, labels)["nfr"] for new in (first, second)]
    assert found["nfr_difference"] == pytest.approx(nfr[0] - nfr[1], abs=1e-12)
    flips = np.array([(old == labels) & (new != labels) for new in (first, second)])
    drawn = rng.integers(0, 300, (20_000, 300))
    differences = flips[0][drawn].mean(1) - flips[1][drawn].mean(1)
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(differences, [0.05, 0.95]), abs=1.01 / 300)
    again = metrics.bootstrap_nfr_difference(old, first, second, labels, seed=1, resamples=20_000, confidence=0.9)
    assert again == found
    swapped = metrics.bootstrap_nfr_difference(old, second, first, labels, seed=1, resamples=20_000, confidence=0.9)
    assert swapped["nfr_difference"] == -found["nfr_difference"]
    alike = metrics.bootstrap_nfr_difference(old, first, first, labels, seed=1)
    assert set(alike.values()) == {0}


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 5))
def test_ranked_flips_are_the_negative_flips_by_falling_confidence(seed, images, classes):
    rng = np.random.default_rng(seed)
    old, new = (rng.normal(size=(images, classes)).astype(np.float32) * 3 for _ in range(2))
    labels = rng.integers(0, classes, images)
    found = metrics.ranked_flips(old, new, labels)
    flipped = [i for i in range(images) if old[i].argmax() == labels[i] != new[i].argmax()]
    assert sorted(found.tolist()) == flipped
    softmax = np.exp(new.astype(float)) / np.exp(new.astype(float)).sum(-1, keepdims=True)
    np.testing.assert_allclose(metrics.confidences(new), softmax.max(-1), rtol=1e-12)
    assert (np.diff(softmax.max(-1)[found]) <= 0).all()


def test_confidences_of_large_and_of_diverged_logits():
    with warnings.catch_warnings(action="error"):
        found = metrics.confidences(np.array([[1e4, -1e4], [np.nan, 0.0], [np.inf, 0.0]]))
    assert found[0] == 1.0 and np.isnan(found[1:]).all()


# An update that splits 0 into 0 and 1, merges 1 and 2 into 2, and retires 3; 3 is new.
ALLOWED = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)


def test_predictions_of_an_old_model_whose_classes_changed():
    labels = np.array([0, 1, 1, 0, 2, 2, 2, 3, 0, 1])
    old = np.array([0, 0, 0, 1, 1, 2, 3, 0, 3, 2])
    new = np.array([0, 1, 0, 2, 2, 0, 2, 3, 2, 1])
    read = metrics.as_new(old, new, labels, ALLOWED)
    right = [True, True, True, False, True, True, False, False, False, False]
    assert (read == labels).tolist() == right
    # Image 3 stays wrong with the class that 1 became; the retired class agrees with nothing.
    assert (read == new).tolist() == [True, True, False, True, True, False, False, False, False, False]
    row = class_growth_metrics(old, new, labels, num_old_classes=3, allowed=ALLOWED)
    assert (
        row["nfr"] == pytest.approx(2 / 9)
        and row["pfr"] == pytest.approx(2 / 9)
        and row["churn"] == pytest.approx(5 / 9)
    )
    assert row["accuracy_previous"] == pytest.approx(5 / 9) and row["accuracy_new_classes"] == 1.0
    assert metrics.as_new(old, new, labels, None) is old


@given(st.data())
def test_the_identities_of_flips_hold_when_classes_change(data):
    allowed = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=3)))
    draw = lambda most: np.array(data.draw(st.lists(st.integers(0, most), min_size=9, max_size=9)))  # noqa: E731
    old, new, labels = draw(2), draw(3), draw(3)
    flips = flip_metrics(metrics.as_new(old, new, labels, allowed), new, labels)
    right = allowed[old, labels]
    assert flips["negative_flips"] == np.sum(right & (new != labels))
    assert flips["positive_flips"] == np.sum(~right & (new == labels))
    assert flips["error_new"] - flips["error_old"] == pytest.approx(flips["nfr"] - flips["pfr"])
    unchanged = (right & (new == labels)) | (~right & (new != labels) & allowed[old, new])
    assert flips["churn"] == pytest.approx(1 - np.mean(unchanged))


def test_the_most_confident_flips_of_an_update_that_changes_classes():
    old, new = 3.0 * np.eye(4)[[0, 1, 3]], np.array([1.0, 2.0, 3.0])[:, None] * np.eye(4)[[0, 0, 0]]
    assert metrics.ranked_flips(old, new, np.array([1, 2, 0]), allowed=ALLOWED).tolist() == [1, 0]
