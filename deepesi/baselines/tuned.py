"""A method with one constant, which is to be chosen on validation recordings."""

from collections.abc import Callable, Sequence

from deepesi.core.contracts import Assumptions, InverseModel
from deepesi.physics.head_inputs import HeadInput

#: Gives a method for the value of its constant.
Make = Callable[..., InverseModel]


class Tuned:
    """A method and the values of one of its constants to choose from.

    Not a model yet: `deepesi.evaluation.tuning` chooses the value with the least mean localization
    error on validation recordings of a scenario, one value per scenario. Networks are chosen on
    validation recordings, too, so a classical method with a constant that nobody chose is at a
    disadvantage.

    Args:
        model: Makes the method, all but its constant given (``_partial_: true`` in a config).
        knob: Name of the constant, an argument of the method.
        values: To choose from, in order.
        n_examples: Validation recordings of every test set (level and SNR) of a scenario.

    Raises:
        ValueError: Fewer than two values, one twice, or no recording.

    """

    def __init__(
        self, model: Make, knob: str, values: Sequence[float | int], n_examples: int = 100
    ) -> None:
        if len(set(values)) < max(2, len(values)) or n_examples < 1:
            raise ValueError(
                f"Tuned: needs two or more different values of {knob!r} and at least one "
                f"validation recording, got {list(values)} and n_examples={n_examples}."
            )
        self.knob, self.values, self.n_examples = knob, tuple(map(float, values)), n_examples
        self._make = model
        self.candidates = tuple(self.at(value) for value in self.values)

    def at(self, value: float) -> InverseModel:
        """The method with a value of its constant."""
        return self._make(**{self.knob: value})

    @property
    def head_inputs(self) -> tuple[HeadInput, ...]:
        """What all candidates ask of a head."""
        declared = (d for candidate in self.candidates for d in candidate.head_inputs)
        return tuple(dict.fromkeys(declared))

    @property
    def assumptions(self) -> Assumptions:
        """As the method."""
        return self.candidates[0].assumptions
