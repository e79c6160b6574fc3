import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load_dataset import load

from mpt_jax import data
from mpt_jax.data import Policy, herding, kept_counts, parse_policy, remember
from mpt_jax.errors import InputError

POLICIES = st.one_of(
    st.sampled_from([Policy("all"), Policy("none")]),
    st.builds(Policy, st.sampled_from(["per_class", "total"]), st.integers(1, 60)),
)
COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(lambda counts: counts[-1])


def release(counts, first=0):
    """Return shuffled rows and labels of classes first, first + 1, ... with these counts; rows start at 1000."""
    labels = np.repeat(np.arange(len(counts)), counts) + first
    order = np.random.default_rng(0).permutation(len(labels))
    return (1000 * (first + 1) + np.arange(len(labels)))[order], labels[order]


def lists(memory):
    return [rows.tolist() for rows in memory]


# Policies


@given(POLICIES)
def test_policies_are_parsed_from_their_text(policy):
    assert parse_policy(str(policy)) == policy == parse_policy(f" {policy} ")


@pytest.mark.parametrize(
    "text",
    [
        *("", "some", "per_class", "per_class:", "per_class:0", "total:-5", "total:2.5", "total:1e3", "total:²"),
        *("all:3", "none:", "per_class:3:4", "Total:3", 20, None),
    ],
)
def test_other_texts_are_refused_with_what_would_work(text):
    with pytest.raises(InputError, match=r"^update\.memory=.*expected.*'none'") as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^dataset\.kept="):
        parse_policy(text, "dataset.kept")


@given(POLICIES, COUNTS)
def test_kept_counts(policy, counts):
    kept = kept_counts(policy, counts).tolist()
    assert all(0 <= k <= n for k, n in zip(kept, counts, strict=True))
    if policy.kind == "total":
        assert sum(kept) <= policy.number
        if min(counts) * len(counts) >= policy.number + len(counts):  # enough images of every class
            assert sum(kept) == policy.number and sorted(kept, reverse=True) == kept and kept[0] - kept[-1] <= 1
        more = kept_counts(policy, [*counts, 5]).tolist()
        assert all(late <= early for late, early in zip(more, kept, strict=False))
    else:
        number = {"all": 10**6, "none": 0}.get(policy.kind, policy.number)
        assert kept == [min(n, number) for n in counts]


# Memory


@given(POLICIES, COUNTS, st.integers(0, 5))
def test_a_random_memory_is_nested_and_independent_of_other_classes(policy, counts, seed):
    rows, labels = release(counts)
    memory = remember(policy, [], rows, labels, seed=seed)
    label_of = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    assert [len(kept) for kept in memory] == kept_counts(policy, counts).tolist()
    assert all({label_of[row] for row in kept} <= {label} for label, kept in enumerate(lists(memory)))
    assert all(len(set(kept)) == len(kept) for kept in lists(memory))
    whole = remember(Policy("all"), [], rows, labels, seed=seed)
    for label, kept in enumerate(memory):
        np.testing.assert_array_equal(kept, whole[label][: len(kept)])
    other = remember(
        Policy("all"), [], *(np.concatenate(x) for x in zip(release(counts), release([9], 50), strict=True)), seed=seed
    )
    assert lists(other)[: len(whole)] == lists(whole)


def test_the_random_order_depends_on_the_seed_and_the_class():
    rows, labels = release([30, 30])
    orders = [remember(Policy("all"), [], np.sort(rows), np.sort(labels), seed=seed) for seed in (1, 1, 2)]
    assert lists(orders[0]) == lists(orders[1]) != lists(orders[2])
    assert (orders[0][0] - 1000).tolist() != (orders[0][1] - 1030).tolist()


@given(POLICIES, st.lists(COUNTS, min_size=2, max_size=5), st.booleans())
def test_dropped_images_never_return(policy, releases, herded):
    random = np.random.default_rng(1)
    memory, seen, first = [], [], 0
    for counts in releases:
        counts = [n + 1 for n in counts]
        rows, labels = release(counts, first)
        features = random.normal(size=(len(rows), 3)) if herded else None
        visible = {row for kept in memory for row in kept.tolist()} | set(rows.tolist())
        later = remember(policy, memory, rows, labels, seed=7, features=features)
        assert {row for kept in later for row in kept.tolist()} <= visible
        assert lists(later)[: len(memory)] == [
            kept[: len(new)] for kept, new in zip(lists(memory), lists(later), strict=False)
        ]
        first += len(counts)
        seen += counts
        assert [len(kept) for kept in later] == kept_counts(
            policy, seen
        ).tolist()  # as if all classes had been added together
        memory = later


def test_memories_with_features_are_selected_by_herding():
    rows, labels = release([8, 1, 9])
    features = np.random.default_rng(3).normal(size=(len(rows), 4)).astype(np.float32)
    memory = remember(Policy("per_class", 4), [], rows, labels, features=features)
    for label, kept in enumerate(memory):
        members = np.flatnonzero(labels == label)
        np.testing.assert_array_equal(kept, rows[members][greedy(features[members], 4)])
    total = Policy("total", 30)  # keeps all images now, so their order matters later
    memory = remember(total, remember(total, [], rows, labels, features=features), *release([6, 6, 6], 3))
    for label, number in enumerate((5, 1, 5)):
        members = np.flatnonzero(labels == label)
        np.testing.assert_array_equal(memory[label], rows[members][greedy(features[members], number)])
    for policy in (Policy("all"), Policy("none")):  # features are ignored
        without = remember(policy, [], rows, labels, seed=3)
        assert lists(remember(policy, [], rows, labels, seed=3, features=np.full((18, 1), np.nan))) == lists(without)


def test_inputs_that_do_not_fit():
    rows, labels = release([3, 3])
    for bad in ((rows[1:], labels), (rows[:, None], labels[:, None])):
        with pytest.raises(ValueError, match="expected one of each per image"):
            remember(Policy("all"), [], *bad)
    with pytest.raises(ValueError, match="expected one of each per image"):
        remember(Policy("per_class", 1), [], rows, labels, features=np.zeros((5, 2)))
    memory = remember(Policy("all"), [], rows, labels)
    with pytest.raises(ValueError, match="label 1, a class of the memory; expected labels from 2 on"):
        remember(Policy("all"), memory, *release([2], 1))


@settings(max_examples=25)
@given(POLICIES, st.sampled_from([(2, 5), (4, 7, 10), (1, 3, 5, 9)]), st.integers(0, 3))
def test_test_and_validation_images_are_never_selected(digits, policy, schedule, seed):
    memory, start = [], 0
    for num_classes in schedule:
        stop = data.count(digits.train, num_classes)
        known = data.take(digits.train, np.concatenate([*memory, np.arange(start, stop)]))
        assert data.class_counts(known, num_classes).sum() == len(known)
        assert set(known.ids).isdisjoint(digits.test.ids) and set(known.ids).isdisjoint(digits.validation.ids)
        features = digits.train.images[start:stop].reshape(stop - start, -1)
        chosen = {"features": features} if seed % 2 else {"seed": seed}
        memory = remember(policy, memory, np.arange(start, stop), digits.train.labels[start:stop], **chosen)
        assert [set(digits.train.labels[kept]) - {label} for label, kept in enumerate(memory)] == [set()] * num_classes
        start = stop


@pytest.fixture(scope="module")
def digits(digits_dir):
    return load(data_dir=digits_dir, class_order="seed:3", validation_per_class=12)


# Herding


def greedy(features, num):
    """Try every image at every step with the distance as written in the papers, in float64."""
    units = [np.asarray(x, np.float64) / (np.linalg.norm(np.asarray(x, np.float64)) or 1.0) for x in features]
    mean, chosen = np.mean(units, 0), []
    for k in range(1, min(num, len(units)) + 1):
        left = [i for i in range(len(units)) if i not in chosen]
        distances = [
            np.linalg.norm(mean - sum((units[j] for j in [*chosen, i]), np.zeros_like(mean)) / k) for i in left
        ]
        chosen.append(left[int(np.argmin(distances))])
    return chosen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("number", "size", "seed"), [(1, 1, 0), (7, 2, 1), (30, 5, 2), (60, 64, 3)])
def test_herding_is_the_greedy_search(number, size, seed, dtype):
    features = np.random.default_rng(seed).normal(0.3, 1, (number, size)).astype(dtype)
    features[::7] *= 100  # the length must not matter
    order = herding(features)
    assert order.tolist() == greedy(features, number) and order.dtype == np.int64
    for num in (0, 1, number // 2, number + 3):
        assert herding(features, num).tolist() == order[:num].tolist()


# Vectors of rational length, so that the greedy search is exact.
PYTHAGOREAN = st.sampled_from([(1, 0), (0, 2), (-1, 0), (0, -1), (3, 4), (4, 3), (-3, 4), (6, -8), (5, 12), (0, 0)])


@given(st.lists(PYTHAGOREAN, min_size=1, max_size=9))
def test_ties_go_to_the_first_image(vectors):
    length = {v: Fraction(np.sqrt(v[0] ** 2 + v[1] ** 2)) or Fraction(1) for v in vectors}
    units = [tuple(x / length[v] for x in v) for v in vectors]
    mean = [sum(column) / Fraction(len(units)) for column in zip(*units, strict=True)]
    chosen = []
    for k in range(1, len(units) + 1):

        def distance(i, k=k):
            sums = [sum((units[j][axis] for j in [*chosen, i]), Fraction(0)) for axis in range(2)]
            return sum((m - s / k) ** 2 for m, s in zip(mean, sums, strict=True)), i

        chosen.append(min((i for i in range(len(units)) if i not in chosen), key=distance))
    assert herding(np.array(vectors, float)).tolist() == chosen


@given(st.permutations(range(8)), st.integers(0, 3))
def test_the_order_of_the_images_does_not_matter(permutation, seed):
    features = np.random.default_rng(seed).normal(size=(8, 3))
    order = herding(features[np.array(permutation)])
    assert [permutation[i] for i in order] == herding(features).tolist()


def test_herding_approximates_the_mean_better_than_random_images():
    features = np.random.default_rng(0).normal(0.2, 1, (200, 16))
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = lambda rows: np.linalg.norm(units[rows].mean(0) - units.mean(0))  # noqa: E731
    herded = [distance(herding(features, k)) for k in (5, 20, 80)]
    best_random = [
        min(distance(np.random.default_rng(i).permutation(200)[:k]) for i in range(100)) for k in (5, 20, 80)
    ]
    assert all(a < b for a, b in zip(herded, best_random, strict=True))
    assert all(a > b for a, b in itertools.pairwise(herded))
    assert distance(herding(features)) < 1e-12


def test_invalid_features():
    for features in (np.zeros(3), np.array([[1.0, np.nan]]), np.array([[np.inf, 0.0]])):
        with pytest.raises(ValueError, match="expected finite numbers"):
            herding(features)
    assert herding(np.zeros((0, 4))).tolist() == []
    assert herding(np.zeros((3, 4))).tolist() == [0, 1, 2]
