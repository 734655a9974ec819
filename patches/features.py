"""Scores rule `fitted`: numbers of every visual token whose weighted sum is its score, apart from the heads' levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .errors import LostattnError
from .plan import Plan

# Below this part of the largest number, a standard deviation is rounding: a constant image has no complexity to compare.
CONSTANT = 1e-5
Make = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# How each of `plan.FEATURES` is made of an image's prior (n,) and of the places of its tokens (n, 2).
_MAKERS: dict[str, Make] = {
    "fewness": lambda w, place: torch.full_like(w, -math.log(max(len(w), 1))),
    "prior": lambda w, place: w,
    "row": lambda w, place: place[:, 0],
    "column": lambda w, place: place[:, 1],
    "row_squared": lambda w, place: (3 * place[:, 0] ** 2 - 1) / 2,
    "column_squared": lambda w, place: (3 * place[:, 1] ** 2 - 1) / 2,
}


def image_features(w: torch.Tensor, place: torch.Tensor | None, plan: Plan) -> torch.Tensor:
    """What a plan of scores rule `fitted` sums up for one image.

    `fewness` is minus the logarithm of the number of visual tokens (weight 1: the visual mass does not grow with them),
    `prior` what is given as `w`, `row` and `column` the place in the image, the last two their second Legendre polynomials.

    Args:
        w: the mode's numbers, standardised (`standardised`), float32 (n,).
        place: (row, column) of every token within [-1, 1], float32 (n, 2); None if nobody knows.

    Returns:
        (n, 1 + F) float32: 0, then one column per feature of the plan. The first column is where exact scores stand.

    Raises:
        LostattnError: the plan needs places, and there are none.
    """
    if place is None:
        raise LostattnError(
            "scores rule 'fitted' needs to know where visual tokens lie in their image, and inputs_embeds do not say: give "
            "pixel_values, or the scores themselves with use_prior(model, priors, kind='scores')"
        )
    place = place.to(w)
    return torch.stack([torch.zeros_like(w), *(_MAKERS[name](w, place) for name in plan.features)], 1)


def exact_scores(p: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Scores p (n,) that are to be injected as they are, in the shape of `image_features`."""
    return torch.nn.functional.pad(p[:, None], (0, len(plan.features)))


def standardised(w: torch.Tensor) -> torch.Tensor:
    """w (n,) less its mean, divided by its population standard deviation; zeros where all are equal."""
    centred = w - w.mean()
    spread = centred.square().mean().sqrt()
    constant = spread <= CONSTANT * w.abs().amax()
    return torch.where(constant, torch.zeros_like(w), centred / torch.where(constant, torch.ones_like(spread), spread))
