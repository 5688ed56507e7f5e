"""Names of columns that mean the same in every table.

A mean with its interval is `value`, `low`, `high`; `n` counts what it is over (prompts, pairs), `seeds`
the training runs; `p` is corrected for what was searched.
"""

FAMILY, MEMBER, STAGE, SEED = "family", "member", "stage", "seed"
ESTIMATOR, SITE, MEASURE = "estimator", "site", "measure"
VALUE, LOW, HIGH, N, SEEDS, P = "value", "low", "high", "n", "seeds", "p"
INTERVAL = (VALUE, LOW, HIGH)
