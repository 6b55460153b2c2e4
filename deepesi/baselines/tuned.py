"""Method with parameters that are chosen on validation recordings."""

import itertools
from collections.abc import Callable, Mapping, Sequence

from deepesi.core.contracts import Assumptions, InverseModel
from deepesi.physics.head_inputs import HeadInput

#: Function that returns the method for a value of each parameter.
Make = Callable[..., InverseModel]
#: Value of the parameter; if there are further ones, a value of each.
Value = float | tuple[float, ...]


class Tuned:
    """Method and candidate values of one or more of its parameters.

    This is not a model: `deepesi.evaluation.tuning` chooses, per scenario, the value with the
    smallest mean localization error on validation recordings. Networks are chosen on validation
    recordings as well, so the comparison would be unfair to a method that is not tuned.

    Args:
        model: Function that returns the method, without the parameters (``_partial_: true`` in a
            config).
        parameter: Name of the parameter, an argument of the method.
        values: Candidate values, in order.
        n_examples: Number of validation recordings per test set (level and SNR) of a scenario.
        further: Names and candidate values of further parameters. All combinations are tried.

    Raises:
        ValueError: A parameter has fewer than two values or one value twice, a name occurs twice,
            or `n_examples` is below 1.

    """

    def __init__(
        self,
        model: Make,
        parameter: str,
        values: Sequence[float | int],
        n_examples: int = 100,
        further: Mapping[str, Sequence[float | int]] | None = None,
    ) -> None:
        further = further or {}
        if parameter in further:
            raise ValueError(f"Tuned: {parameter!r} is given twice, also in further.")
        grid = {parameter: values, **further}
        for name, tried in grid.items():
            if len(set(tried)) < max(2, len(tried)) or n_examples < 1:
                raise ValueError(
                    f"Tuned: needs two or more different values of {name!r} and at least one "
                    f"validation recording, got {list(tried)} and n_examples={n_examples}."
                )
        self._make, self.n_examples, self.parameters = model, n_examples, tuple(grid)
        combined = itertools.product(*(map(float, tried) for tried in grid.values()))
        self.values: tuple[Value, ...] = tuple(v if further else v[0] for v in combined)
        self.candidates = tuple(self.at(value) for value in self.values)

    @property
    def parameter(self) -> str:
        """Name of the parameter, or the names of several with commas."""
        return ", ".join(self.parameters)

    def at(self, value: Value) -> InverseModel:
        """Return the method with this value of the parameter, or these of several."""
        given = value if isinstance(value, tuple) else (value,)
        return self._make(**dict(zip(self.parameters, given, strict=True)))

    @property
    def head_inputs(self) -> tuple[HeadInput, ...]:
        """Head inputs of all candidates."""
        declared = (d for candidate in self.candidates for d in candidate.head_inputs)
        return tuple(dict.fromkeys(declared))

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return self.candidates[0].assumptions
