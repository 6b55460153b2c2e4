"""Features of a named layer of a network, read by a forward hook."""

from types import TracebackType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from deepesi.core.contracts import Estimate, InverseModel


class LayerFeatures(nn.Module):
    """Estimate of a network and the features of one of its layers, one vector per example.

    Features are averaged over all axes but those of examples and features. If a layer is used
    several times in a forward pass, the last output counts; if the output is a tuple, its first
    entry.

    Args:
        layer: Name of the layer as in ``model.named_modules()``, such as ``cross``.
        batch_axis: Axis of the examples in its output.
        feature_axis: Axis of the features.

    """

    def __init__(self, layer: str, batch_axis: int, feature_axis: int) -> None:
        super().__init__()
        self.layer, self.batch_axis, self.feature_axis = layer, batch_axis, feature_axis

    def forward(
        self, model: InverseModel, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> tuple[Estimate, Float[Tensor, "B F"]]:
        """Run the network once.

        Raises:
            ValueError: It has no such layer, or the axis of examples has another length.

        """
        with _Hook(named_layer(model, self.layer, "task", "task.features.layer")) as hook:
            estimate = model(data, inputs)
        output = hook.output
        if output is None or output.shape[self.batch_axis] != len(data):
            raise ValueError(
                f"task: the layer {self.layer!r} gives the shape "
                f"{None if output is None else tuple(output.shape)}, whose axis {self.batch_axis} "
                f"is not that of the {len(data)} examples. Correct task.features.batch_axis."
            )
        ordered = output.movedim((self.batch_axis, self.feature_axis), (0, 1))
        return estimate, ordered.flatten(2).mean(2) if ordered.ndim > 2 else ordered


def named_layer(model: nn.Module, name: str, caller: str, setting: str) -> nn.Module:
    """The layer of a network with this name.

    Args:
        model: The network.
        name: Name of the layer.
        caller: Name of the caller, for the error.
        setting: Where the name was given, for the error.

    Raises:
        ValueError: It has no such layer.

    """
    layers = dict(model.named_modules())
    if name not in layers:
        raise ValueError(
            f"{caller}: {type(model).__name__} has no layer {name!r}. Choose one of "
            f"{[own for own in layers if own]} ({setting})."
        )
    return layers[name]


class _Hook:
    """Keeps the last output of a layer while it is open."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.output: Tensor | None = None

    def __enter__(self) -> "_Hook":
        def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
            self.output = output[0] if isinstance(output, tuple) else output

        self._handle = self.layer.register_forward_hook(keep)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.remove()
