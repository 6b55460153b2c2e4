"""Cohorts: the template and warped heads, split for training, validation and testing."""

from collections.abc import Sequence
from dataclasses import dataclass

from deepesi.physics.head_names import head_name
from deepesi.physics.template import Template, load_template

SPLITS = ("train", "validation", "test")


def split_of(warp_seed: int) -> str:
    """Split of a warped head, by the last digit of its seed: 0-7 train, 8 validation, 9 test.

    Raises:
        ValueError: A negative seed.

    """
    if warp_seed < 0:
        raise ValueError(f"split_of: a warp seed is 0 or more, got {warp_seed}.")
    return {8: "validation", 9: "test"}.get(warp_seed % 10, "train")


@dataclass(frozen=True)
class Cohort:
    """Heads of one source space, each in its split.

    Attributes:
        template: Head for an analyst without individual anatomy; also used where one head
            represents all (sizes of a network, export).
        train: Heads to train on.
        validation: Heads to validate on.
        test: Heads to test on.

    """

    template: Template
    train: tuple[Template, ...]
    validation: tuple[Template, ...]
    test: tuple[Template, ...]

    @classmethod
    def single(cls, template: Template) -> "Cohort":
        """One head: in every split, or a warped one in its own split only."""
        own = None if template.warp_seed is None else split_of(template.warp_seed)
        heads = {split: (template,) if own in (None, split) else () for split in SPLITS}
        return cls(template, **heads)

    def of(self, split: str) -> tuple[Template, ...]:
        """The heads of ``"train"``, ``"validation"`` or ``"test"``."""
        return dict(zip(SPLITS, (self.train, self.validation, self.test), strict=True))[split]


def load_cohort(
    train: Sequence[int | None],
    validation: Sequence[int | None],
    test: Sequence[int | None] = (9, 19, 29),
    spacing: str = "ico3",
    n_orient: int = 1,
) -> Cohort:
    """Load the template and warped heads built before.

    Args:
        train: Warp seeds; None (null) is the template.
        validation: Warp seeds.
        test: Warp seeds; those of the default are packaged at ico-3, as are 8, 18 and 28.
        spacing: Spacing of the sources, such as ``ico3``.
        n_orient: 1 (fixed) or 3 (free).

    Raises:
        FileNotFoundError: A head was not built yet; the message says how.
        ValueError: A seed belongs to another split.

    """

    def load(seeds: Sequence[int | None], split: str) -> tuple[Template, ...]:
        wrong = [s for s in seeds if s is not None and split_of(s) != split]
        if wrong:
            raise ValueError(
                f"load_cohort: the warp seeds {wrong} do not belong to {split!r}: last digits 0-7 "
                "are train, 8 validation, 9 test, and they must never mix."
            )
        return tuple(load_template(head_name(seed, spacing, n_orient)) for seed in seeds)

    return Cohort(
        load_template(head_name(None, spacing, n_orient)),
        load(train, "train"),
        load(validation, "validation"),
        load(test, "test"),
    )
