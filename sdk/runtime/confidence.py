"""What a joint's score means, by score rule: from where a joint counts, and from where it is certain.

The rules do not share a scale. `min_logit` and `mean_logit` are about 0.3 for a fair and 1 for a sure joint of an
RTMPose, and may be negative or above 1. `min_softmax` is a probability of one bin: the label's own width bounds it
far below 1 (a Gaussian of sigma 6 bins peaks at 0.066), and a flat guess is 1 / bins. A heatmap peaks at 1.

    scale_from_recipe(recipe)         # ScoreScale(fair=0.3, sure=0.8)
"""

from __future__ import annotations

from sdk.poses import ScoreScale
from sdk.recipe import Recipe

__all__ = ["scale_from_recipe"]

FAIR_LOGIT, SURE_LOGIT = 0.3, 0.8  # mmpose draws joints above 0.3
FAIR_MEAN_LOGIT, SURE_MEAN_LOGIT = 0.4, 0.9  # the mean of two maxima lies above their minimum
FAIR_PEAK, SURE_PEAK = 0.2, 0.8  # heatmaps; the paper's evaluation drops joints below 0.2
FAIR_GUESSES, SURE_GUESSES = 5.0, 12.0  # softmax, in multiples of a flat guess: measured, a third and 4 of 5 hit


def scale_from_recipe(recipe: Recipe) -> ScoreScale:
    """The scale of the scores that an engine of `recipe` gives."""
    rule = recipe.output.score
    if rule == "min_logit":
        return ScoreScale(FAIR_LOGIT, SURE_LOGIT)
    if rule == "mean_logit":
        return ScoreScale(FAIR_MEAN_LOGIT, SURE_MEAN_LOGIT)
    if rule == "min_softmax":
        guess = 1.0 / max(recipe.bins_xy)
        return ScoreScale(FAIR_GUESSES * guess, SURE_GUESSES * guess)
    return ScoreScale(FAIR_PEAK, SURE_PEAK)
