"""The measures of a sequence of three releases, for tests of tables and figures."""

LINEAGE = {
    "accuracy_of_release": [0.9, 0.8, 0.7],
    "nfr_against_previous": [None, 0.125, 0.25],
    "cumulative_nfr": [None, 0.125, 0.375],
    "forgetting": [None, 0.05, 0.06],
    "average_incremental_accuracy": 0.8,
}
