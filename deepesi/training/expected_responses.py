"""ExpectedResponses: responses of real recordings with expected areas, as weak labels."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from deepesi.core.contracts import as_tensors
from deepesi.core.unlabelled import Unlabelled
from deepesi.data_gen.curriculum import OPEN
from deepesi.data_gen.keys import key_entropy
from deepesi.physics.head import HeadModel
from deepesi.physics.head_inputs import HeadInput, prepare
from deepesi.physics.template import Template


class Response(Protocol):
    """One response with the area where its sources are expected, as from `weak_cases`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def head(self) -> HeadModel: ...  # noqa: D102
    @property
    def data(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def sfreq(self) -> float: ...  # noqa: D102
    @property
    def expected_area(self) -> NDArray[np.bool_]: ...  # noqa: D102


class ExpectedResponses:
    """Stream of batches of single samples of one response each, with its expected area.

    Args:
        cases: Function from the head to the responses, such as
            `deepesi.validation.weak_labels.weak_cases` with its paths.
        nominal_head: Head of the analyst.
        declarations: Head inputs to prepare.
        heads: Not used; simulated recordings have it.
        batch_size: Samples per batch, drawn from the window of the response.
        seed: First part of the random key.
        split: ``"train"``: weak labels never validate or test.
        device: Device of the batches.

    Raises:
        ValueError: Another split; or as in `weak_cases`.

    """

    curriculum = OPEN

    def __init__(
        self,
        cases: Callable[[Template], Sequence[Response]],
        nominal_head: Template,
        declarations: Sequence[HeadInput] = (),
        heads: Sequence[Template] = (),
        batch_size: int = 16,
        seed: int = 0,
        split: str = "train",
        device: torch.device | str = "cpu",
    ) -> None:
        if split != "train":
            raise ValueError(
                f"ExpectedResponses: the split is {split!r}, expected 'train'. Weak labels must "
                "not decide what is validated or tested."
            )
        self.responses = cases(nominal_head)
        self.inputs = [as_tensors(prepare(declarations, r.head), device) for r in self.responses]
        self.batch_size, self.seed, self.split, self.device = batch_size, seed, split, device
        self.limits: list[str] = []
        self.sfreq = self.responses[0].sfreq

    def batch(self, step: int, rank: int = 0) -> Unlabelled:
        """Samples of one response; the responses take turns."""
        key = (self.seed, self.split, rank, step)
        number = (step + rank) % len(self.responses)
        response = self.responses[number]
        rng = np.random.default_rng([*key_entropy(*key), 7])
        times = rng.integers(response.data.shape[1], size=self.batch_size)
        data = response.head.sensors.reference(response.data)[:, times].T[:, :, None]
        expected_area = torch.as_tensor(response.expected_area, device=self.device)
        return Unlabelled(
            data=torch.as_tensor(data, dtype=torch.float32, device=self.device),
            head=response.head,
            inputs=self.inputs[number],
            sfreq=response.sfreq,
            origin=response.name,
            starts=torch.as_tensor(times),
            key=key,
            regions=expected_area.expand(self.batch_size, -1),
        )
