"""What users give as `--data`, read for any command; the demo's questions are known here."""

from __future__ import annotations

from ..patches.errors import LostattnError
from ..serving.data import Example, example_of, read_examples, read_question_rows
from ..serving.reading.place import RANKING_SEED, Place, find_place
from .demo import builtin  # noqa: F401 - makes the demo's questions known

__all__ = ["Example", "Place", "example_of", "find_place", "refuse_ranking", "read_examples", "read_question_rows"]


def refuse_ranking(place: Place, seed: int = 0) -> None:
    """Refuse to judge models on the questions on which their heads are ranked.

    Args:
        seed: of the questions if the place names none.

    Raises:
        LostattnError: these are those questions.
    """
    if place.builtin and (seed if place.seed is None else place.seed) == RANKING_SEED:
        named = "--data digits@0" if place.seed is not None else "another --seed"
        raise LostattnError(f"seed {RANKING_SEED} draws the questions that heads are ranked on: take {named}")
