"""Method with one parameter that is chosen on validation recordings."""

from collections.abc import Callable, Sequence

from deepesi.core.contracts import Assumptions, InverseModel
from deepesi.physics.head_inputs import HeadInput

#: Function that returns the method for a value of the parameter.
Make = Callable[..., InverseModel]


class Tuned:
    """Method and candidate values of one of its parameters.

    This is not a model: `deepesi.evaluation.tuning` chooses, per scenario, the value with the
    smallest mean localization error on validation recordings. Networks are chosen on validation
    recordings as well, so the comparison would be unfair to a method that is not tuned.

    Args:
        model: Function that returns the method, without the parameter (``_partial_: true`` in a
            config).
        parameter: Name of the parameter, an argument of the method.
        values: Candidate values, in order.
        n_examples: Number of validation recordings per test set (level and SNR) of a scenario.

    Raises:
        ValueError: There are fewer than two values, a value occurs twice, or `n_examples` is
            below 1.

    """

    def __init__(
        self, model: Make, parameter: str, values: Sequence[float | int], n_examples: int = 100
    ) -> None:
        if len(set(values)) < max(2, len(values)) or n_examples < 1:
            raise ValueError(
                f"Tuned: needs two or more different values of {parameter!r} and at least one "
                f"validation recording, got {list(values)} and n_examples={n_examples}."
            )
        self.parameter, self.n_examples = parameter, n_examples
        self.values = tuple(map(float, values))
        self._make = model
        self.candidates = tuple(self.at(value) for value in self.values)

    def at(self, value: float) -> InverseModel:
        """Return the method with this value of the parameter."""
        return self._make(**{self.parameter: value})

    @property
    def head_inputs(self) -> tuple[HeadInput, ...]:
        """Head inputs of all candidates."""
        declared = (d for candidate in self.candidates for d in candidate.head_inputs)
        return tuple(dict.fromkeys(declared))

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return self.candidates[0].assumptions
