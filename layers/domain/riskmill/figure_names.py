"""Names of figures that a model gives and a table shows, once for both, in the order of the table's columns."""

#: Figures of each peril by itself (measure).
PERIL_FIGURES = (
    "aal",
    "aal_se",
    "sd",
    "prob_loss",
    "co_tvar",
    "sd_se",
    "prob_loss_low",
    "prob_loss_high",
    "tvar",
    "tvar_se",
    "co_tvar_se",
    "marginal_tvar",
    "marginal_tvar_se",
)

#: Figures of each threshold of a fitted tail (fit_tail).
TAIL_FIGURES = (
    "threshold",
    "excesses",
    "shape",
    "shape_low",
    "shape_high",
    "scale",
    "scale_low",
    "scale_high",
    "ks",
    "ks_p",
    "ad",
    "ad_p",
    "failed_share",
)
