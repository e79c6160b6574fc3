"""Tests of rates against plain sums and other libraries, and what the verdicts promise, by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import multitest

from mpt_jax.compare import evidence
from mpt_jax.compare.evidence import PASS, REGRESSION, UNDECIDED

COUNTS = st.integers(1, 60).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows)))


def at_least(count, rows, rate):
    return math.fsum(math.comb(rows, k) * rate**k * (1 - rate) ** (rows - k) for k in range(count, rows + 1))


@given(COUNTS, st.floats(0.01, 0.99))
def test_a_share_is_tested_by_exact_binomial_tails(counted, limit):
    count, rows = counted
    found = evidence.share(count, rows, limit)
    assert found.value == count / rows
    assert found.p_limit == pytest.approx(at_least(count, rows, limit), abs=1e-12)
    assert found.p_twice == pytest.approx(1 - at_least(count + 1, rows, min(2 * limit, 1)), abs=1e-9)
    assert found.p_limit == pytest.approx(stats.binomtest(count, rows, limit, "greater").pvalue, abs=1e-12)


@given(COUNTS, st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_fractions_of_rows_lie_between_whole_ones(counted, limit, part):
    count, rows = counted
    low, middle, high = (evidence.share(count + more, rows + 1, limit).p_limit for more in (0, 1 / (1 + part), 1))
    assert high - 1e-12 <= middle <= low + 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_holm_rejects_what_its_definition_does(p_values, level):
    rejected, left = [False] * len(p_values), sorted(range(len(p_values)), key=lambda i: p_values[i])
    for done, place in enumerate(left):
        if p_values[place] > level / (len(p_values) - done):
            break
        rejected[place] = True
    assert evidence.holm(p_values, level) == rejected


def test_holm_agrees_with_statsmodels():
    random = np.random.default_rng(0)
    for size in (1, 2, 10, 100):
        p_values = random.beta(0.3, 3, size)
        assert evidence.holm(p_values) == multitest.multipletests(p_values, evidence.LEVEL, "holm")[0].tolist()


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 60))
def test_a_loss_of_zero_is_mcnemars_exact_test(negative, positive, others):
    found = evidence.difference(negative, positive, negative + positive + others, 0.0)
    flips = negative + positive
    expected = stats.binomtest(negative, flips, 0.5, "greater").pvalue if flips else 1.0
    assert found.p_limit == pytest.approx(expected, abs=1e-12)


def likelihood(loss, negative, positive, rows):
    """Return the greatest log-likelihood of paired counts with a difference of shares, by a fine search."""
    least = max(0.0, -loss)
    shares = np.linspace(least, (1 - loss) / 2, 200_001)[1:-1]  # of positive flips
    with np.errstate(divide="ignore"):
        values = negative * np.log(shares + loss) + positive * np.log(shares)
        values = values + (rows - negative - positive) * np.log1p(-2 * shares - loss)
    return shares[np.argmax(values)]


@pytest.mark.parametrize(("negative", "positive", "rows"), [(20, 5, 1000), (3, 9, 40), (7, 1, 60)])
@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
def test_the_score_uses_the_most_likely_share_of_positive_flips(negative, positive, rows, loss):
    share = likelihood(loss, negative, positive, rows)
    variance = rows * (2 * share + loss * (1 - loss))
    expected = (negative - positive - rows * loss) / math.sqrt(variance)
    assert evidence.score(negative, positive, rows, loss) == pytest.approx(expected, abs=1e-3)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 60), st.sampled_from([0.8, 0.95]))
def test_the_interval_of_a_loss_ends_where_the_test_rejects(negative, positive, others, confidence):
    rows = negative + positive + others
    low, high = evidence.difference_interval(negative, positive, rows, confidence)
    quantile = stats.norm.isf((1 - confidence) / 2)
    assert -1 <= low <= (negative - positive) / rows <= high <= 1
    assert evidence.score(negative, positive, rows, low) == pytest.approx(quantile, abs=1e-6)
    assert evidence.score(negative, positive, rows, high) == pytest.approx(-quantile, abs=1e-6)


def verdicts(counts, rows, limit, **options):
    groups = [evidence.share(count, rows, limit) for count in counts]
    judged = evidence.judge(groups, [each.value <= limit for each in groups], **options)
    return [each.verdict for each in judged]


def test_a_single_rate():
    assert [verdicts([count], 200, 0.01)[0] for count in (2, 3, 9)] == [PASS, UNDECIDED, REGRESSION]
    assert verdicts([0], 3, 0.0) == [PASS] and verdicts([1], 3, 0.0) == [REGRESSION]


def test_a_pass_that_cannot_exclude_twice_the_limit_says_how_many_rows_can():
    assert evidence.judge([evidence.share(0, 113, 0.01)], [True])[0].more_rows > 0  # 0.98^113 > 0.1
    assert evidence.judge([evidence.share(0, 114, 0.01)], [True])[0].more_rows is None


def test_among_many_groups_chance_explains_a_rate_above_the_limit():
    many = [60] + [20] * 99
    assert verdicts(many, 1000, 0.05, family=True) == [PASS] * 100  # 6 %, and twice the limit is excluded
    assert verdicts([60], 1000, 0.05) == [UNDECIDED]
    # Twice the limit is excluded, but chance does not explain 8.5 %.
    assert evidence.share(85, 1000, 0.05).p_twice < evidence.MISSED
    assert verdicts([85] + [20] * 99, 1000, 0.05, family=True)[0] == REGRESSION
    assert verdicts([110] + [20] * 99, 1000, 0.05, family=True)[0] == REGRESSION


def test_with_confident_the_bound_decides():
    found = evidence.share(5, 1000, 0.01)
    judged = evidence.judge([found], [False], bound=0.025)[0]
    assert judged.verdict == UNDECIDED and judged.more_rows > 500
    assert evidence.judge([found], [True], bound=0.025)[0] == (PASS, None)


@pytest.mark.parametrize("groups", [1, 10, 100])
def test_two_models_from_one_distribution_are_rarely_a_regression(groups):
    """At a true rate equal to the limit, the worst case, at most 5 % of comparisons are a regression."""
    random, trials, limit = np.random.default_rng(groups), 500, 0.05
    counts = random.binomial(100, limit, (trials, groups))
    failed = sum(REGRESSION in verdicts(row, 100, limit, family=groups > 1) for row in counts)
    assert failed <= stats.binom.isf(1e-4, trials, evidence.LEVEL)
    counts = random.binomial(100, 0.02, (trials, groups))
    assert sum(REGRESSION in verdicts(row, 100, limit, family=groups > 1) for row in counts) <= 3


@pytest.mark.parametrize("groups", [1, 10, 100])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.2])
def test_at_the_rows_that_are_asked_for_twice_the_limit_is_found(groups, limit):
    few = [evidence.share(0, 1, limit)] * groups
    asked = evidence.judge(few, [True] * groups, family=groups > 1)[0].more_rows
    rows, trials = 1 + asked, 500
    random = np.random.default_rng(groups)
    counts = random.binomial(rows, limit / 2, (trials, groups))
    counts[:, 0] = random.binomial(rows, 2 * limit, trials)
    found = sum(verdicts(row, rows, limit, family=groups > 1)[0] == REGRESSION for row in counts)
    assert found >= stats.binom.ppf(1e-4, trials, 1 - evidence.MISSED)
    # Neither verdict is left open there, so that asking for rows comes to an end.
    if groups > 1:
        assert all(UNDECIDED not in verdicts(row, rows, limit, family=True) for row in counts[:50])


@given(st.floats(0.001, 0.6), st.floats(0.001, 0.999), st.sampled_from([0.05, 0.0005]))
def test_the_rows_to_find_a_rate_have_the_power_that_they_promise(limit, rate, level):
    rows = evidence.share(0, 1, limit).rows_to_find(rate, level)
    if rows is not None:
        low = rate < limit
        null, true = (1 - limit, 1 - rate) if low else (limit, rate)
        fewest = stats.binom.isf(level, rows, null) + 1
        assert stats.binom.sf(fewest - 1, rows, true) >= 1 - evidence.MISSED


def test_an_estimate_is_tested_by_the_normal_distribution():
    found = evidence.estimate(0.03, 0.01, 1000, 0.01)
    assert found.p_limit == pytest.approx(stats.norm.sf(2)) and found.p_twice == pytest.approx(stats.norm.cdf(1))
    assert evidence.estimate(0.0, 0.0, 1000, 0.01).p_twice == 0.0
    needed = found.rows_to_find(0.02, 0.05)
    assert needed == pytest.approx(1000 * (stats.norm.isf(0.05) + stats.norm.isf(0.1)) ** 2, abs=1)


def test_intervals_of_many_groups_are_those_of_each():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 200, 50)
    negative = rng.integers(0, rows + 1)
    positive = rng.integers(0, rows - negative + 1)
    low, high = evidence.difference_interval(negative, positive, rows, 0.9)
    for place, counts in enumerate(zip(negative.tolist(), positive.tolist(), rows.tolist(), strict=True)):
        assert np.allclose([low[place], high[place]], evidence.difference_interval(*counts, 0.9), rtol=0, atol=1e-12)
    assert ((low <= high) & (low >= -1) & (high <= 1)).all()


@pytest.mark.filterwarnings("error")
def test_no_number_of_rows_finds_a_rate_that_differs_from_the_limit_by_rounding_alone():
    for limit in (0.1, 0.3, 0.05, 0.95):
        rate = float(np.nextafter(limit, 0))  # 1 - rate may be 1 - limit
        assert evidence.share(1, 10, limit).rows_to_find(rate, 0.05) is None
