"""Methods: the predictions that are scored, each a row of the tables and a line of the plots."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """A prediction: how tables, legends and plots show it.

    title       in tables and legends; ``{n}`` stands for the number of samples
    meaning     explanation for a reader
    title_of_1  title where there is one sample, if it differs
    line        line style of matplotlib; empty: that of its run
    marker      marker of matplotlib
    is_grey     drawn in grey: the same for all runs
    is_shaded   of several runs in a darker shade of the run's colour
    overlaid    drawn where several runs are
    compared    compared between runs with intervals and p-values
    """

    title: str
    meaning: str
    title_of_1: str = ""
    line: Any = ""
    marker: str = "o"
    is_grey: bool = False
    is_shaded: bool = False
    overlaid: bool = False
    compared: bool = False

    def name(self, n_sample: int) -> str:
        """Return the title for this number of samples."""
        title = self.title_of_1 if n_sample == 1 and self.title_of_1 else self.title
        return title.format(n=n_sample)


METHODS = {
    "copy": Method(
        "copy the last frame", "the last given frame, held", line=":", is_grey=True, overlaid=True
    ),
    "rec": Method(
        "rec (posterior)",
        "reconstruction: latents at the mean of the posterior, which sees the true frames",
        line="--", compared=True,
    ),
    "pred": Method(
        "pred (mean latent)", "prediction: latents at the mean of the prior", overlaid=True, compared=True
    ),
    "pred_best": Method(
        "pred (best of {n})", "best of the futures sampled from the prior, chosen as the protocol says",
        line="-.", marker="^", is_shaded=True, overlaid=True, compared=True,
    ),
    "pred_mean": Method(
        "pred (mean over {n})", "mean over the scores of the sampled futures",
        title_of_1="pred (one sample)", line=(0, (1, 1)), compared=True,
    ),
    "pred_sample": Method("pred (one sample)", "the first sampled future alone"),
    "pred_other": Method(
        "pred, another's conditions",
        "as pred, with the conditions of another sequence from the last given frame on",
        line=(0, (4, 2)),
    ),
    "pred_swap": Method(
        "pred, another's actions alone",
        "as pred, with the actions of another sequence and the sequence's own end-effector positions",
        line=(0, (4, 1, 1, 1)),
    ),
    "pred_zero": Method(
        "pred, zero actions",
        "as pred, with actions of zero and the end effector where it was last observed",
        line=(0, (2, 2)),
    ),
    "truth": Method(
        "true frames", "the true frames, in scores of objects alone: what the judge gets wrong",
        line=(0, (3, 1)), marker="s", is_grey=True,
    ),
}  # fmt: skip
"""All methods by their names in files, in the order of tables."""


def method_names(n_sample: int) -> dict[str, str]:
    """Return the methods as they are written in tables and legends."""
    return {key: method.name(n_sample) for key, method in METHODS.items()}
