"""Deep ensembles: networks with different initial weights, combined as a mixture."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional

from deepesi.core.batch import Batch
from deepesi.core.contracts import Estimate, InverseModel, Objective
from deepesi.core.traced_members import (
    alike,
    is_tracing_members,
    of_members,
    outputs_of,
    trace_side_by_side,
)
from deepesi.runtime.window_needs import WindowNeeds


def mixture(estimates: Sequence[Estimate]) -> Estimate:
    r"""Mean and standard deviation of a mixture with equal weights (law of total variance).

    ``ĵ = 1/M Σ ĵ_m``,  ``σ² = 1/M Σ σ_m² + 1/M Σ (ĵ_m − ĵ)²``: mean variance of the members plus
    variance between members. The latter belongs to the mixture itself and is not an estimate from
    a sample, so it is divided by ``M``, not ``M − 1``. Members without a standard deviation add 0
    to the first term. Probabilities of the number of sources are the mean over the members.

    Args:
        estimates: One estimate per member, ``(B, D, T)``, A m.

    Raises:
        ValueError: The numbers of dipoles differ.

    """
    # During tracing, sizes are symbols that must not be compared.
    if not torch.compiler.is_compiling():
        sizes = [estimate.mean.shape[1] for estimate in estimates]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"ensemble: members of different source spaces: they estimate {sizes} dipoles. "
                "Combine networks that were trained with the same head."
            )
    means = torch.stack([estimate.mean for estimate in estimates])
    variance = means.var(dim=0, correction=0)
    for estimate in estimates:
        if estimate.std is not None:
            variance = variance + estimate.std.square() / len(estimates)
    equal = means.new_full((len(estimates),), 1 / len(estimates))
    counts = mean_source_counts(estimates, equal)
    return Estimate(means.mean(dim=0), variance.sqrt(), source_counts=counts)


def mean_source_counts(
    estimates: Sequence[Estimate], weights: Float[Tensor, " M"]
) -> Float[Tensor, "B K"] | None:
    """Weighted mean of the members' probabilities of 1 to ``K`` sources.

    ``K`` is the largest number of any member. None if a member gives no probabilities.
    """
    counts = [e.source_counts for e in estimates if e.source_counts is not None]
    if len(counts) < len(estimates):
        return None
    most = max(own.shape[1] for own in counts)
    padded = [functional.pad(own, (0, most - own.shape[1])) for own in counts]
    return torch.einsum("m,mbk->bk", weights, torch.stack(padded))


class DeepEnsemble(InverseModel):
    """Several inverse models, of any class, with the same source space, as one model.

    Args:
        members: At least two models, trained separately
            (`deepesi.training.weights.load_ensemble`) or together, each with its own loss.

    Raises:
        ValueError: There are fewer than two members, or estimates differ in size (in `forward`).
        TypeError: A member is not an inverse model.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474. Differences: members may be of
    different classes and have no standard deviation; no adversarial examples in training.

    """

    def __init__(self, members: Sequence[InverseModel]) -> None:
        super().__init__()
        check_members("DeepEnsemble", members)
        self.members = nn.ModuleList(members)
        self.head_inputs = tuple(dict.fromkeys(d for m in members for d in m.head_inputs))
        self.bound_to_space = any(m.bound_to_space for m in members)
        self.window_needs = WindowNeeds.joined(m.window_needs for m in members)

    def member_estimates(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> list[Estimate]:
        """Estimate of each member."""
        if is_tracing_members() and alike(list(self.members)):
            states = [dict(m.named_parameters()) | dict(m.named_buffers()) for m in self.members]
            tensors = {name: torch.stack([state[name] for state in states]) for name in states[0]}
            return trace_side_by_side(cast("InverseModel", self.members[0]), tensors, data, inputs)
        return [member(data, inputs) for member in self._members()]

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard deviation of the mixture of the members."""
        return mixture(self.member_estimates(data, inputs))

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Loss of each member ``(M,)``."""
        return _stacked([m.training_loss(batch, objective, rng) for m in self._members()])

    def _members(self) -> list[InverseModel]:
        return [cast("InverseModel", member) for member in self.members]

    def compile(self, dynamic: bool | None = None) -> None:
        """Compile the members, which training calls."""
        for member in self.members:
            member.compile(dynamic=dynamic)

    def clip_gradients(self, max_norm: float) -> Float[Tensor, " M"]:
        """Clip the gradient norm of each member; returns the norms before clipping."""
        return torch.stack([member.clip_gradients(max_norm) for member in self._members()])


class StackedEnsemble(InverseModel):
    """Members of one architecture in one process, computed in parallel.

    Each parameter and buffer of the architecture is stored once, with a leading axis of members.
    Optimizer, averaged weights, checkpoints and processes need no code for members.

    Args:
        member: Function that returns a network with random initial weights; in a configuration,
            a network with ``_partial_: true``.
        n_members: Number of members, at least 2.

    Raises:
        ValueError: There are fewer than two members, or members have no weights or a training
            loss of their own.
        TypeError: `member` does not return inverse models.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474. Differences: all members receive the
    same batches in the same order, and differ only in initial weights and random layers; no
    adversarial examples in training.

    """

    def __init__(self, member: Callable[[], InverseModel], n_members: int = 5) -> None:
        super().__init__()
        if isinstance(member, nn.Module) or not callable(member):
            raise TypeError(
                "StackedEnsemble: member must be a function that returns a new network, got "
                f"{type(member).__name__}. In a configuration, set member._partial_=true."
            )
        members = [member() for _ in range(n_members)]
        check_members("StackedEnsemble", members)
        if not any(True for _ in members[0].parameters()):
            raise ValueError(
                f"StackedEnsemble: {type(members[0]).__name__} has no weights, so all members "
                "would be equal. Choose a network."
            )
        if type(members[0]).training_loss is not InverseModel.training_loss:
            raise ValueError(
                f"StackedEnsemble: {type(members[0]).__name__} has a training loss of its own, "
                "which cannot be computed for all members at once. Train members one by one "
                "with different seeds: python train.py -m seed=1,2,3,4,5"
            )
        self.n_members = n_members
        self.head_inputs, self.bound_to_space = members[0].head_inputs, members[0].bound_to_space
        self.window_needs = members[0].window_needs
        self.stack = _Stack(members)

    def member_estimates(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> list[Estimate]:
        """Estimate of each member."""
        if is_tracing_members():
            return trace_side_by_side(self.stack.member, self.stack.tensors(), data, inputs)
        return of_members(self.stack(data, inputs))

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard deviation of the mixture of the members."""
        return mixture(self.member_estimates(data, inputs))

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Loss of each member ``(M,)``."""
        estimates = self.member_estimates(batch.data, batch.inputs)
        losses = [objective(estimate, batch) for estimate in estimates]
        return _stacked([{"loss": loss, **terms} for loss, terms in losses])

    def compile(self, dynamic: bool | None = None) -> None:
        """Compile the stacked members, which training calls."""
        self.stack.compile(dynamic=dynamic)

    def clip_gradients(self, max_norm: float) -> Float[Tensor, " M"]:
        """Clip the gradient norm of each member; returns the norms before clipping."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)
        scales = (max_norm / (norms + 1e-6)).clamp(max=1)  # as torch's clip_grad_norm_
        for gradient in gradients:
            gradient.mul_(scales.reshape(-1, *[1] * (gradient.ndim - 1)))
        return norms

    def unstacked(self) -> DeepEnsemble:
        """Return the members as separate networks, with copies of the weights."""
        tensors = self.stack.tensors()
        return DeepEnsemble(
            [
                _holding(self.stack.member, {k: v[m].detach().clone() for k, v in tensors.items()})
                for m in range(self.n_members)
            ]
        )


class _Stack(nn.Module):
    """One network whose parameters and buffers have a leading axis of members."""

    def __init__(self, members: Sequence[InverseModel]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(members))
        self.n_members = len(members)
        self.member = _holding(members[0], parameters | buffers)

    def tensors(self) -> dict[str, Tensor]:
        """Stacked parameters and buffers, by their names in a member."""
        return dict(self.member.named_parameters()) | dict(self.member.named_buffers())

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of all members by name, with a leading axis of members."""

        def outputs(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return outputs_of(functional_call(self.member, tensors, (data, inputs)))

        tensors = self.tensors()
        # vmap supports neither dynamic sizes nor the rules of DeepLIFT (`deepesi.interpret`).
        if torch.compiler.is_exporting() or data.requires_grad:
            one_by_one = [
                outputs({name: value[m] for name, value in tensors.items()})
                for m in range(self.n_members)
            ]
            return {kind: torch.stack([own[kind] for own in one_by_one]) for kind in one_by_one[0]}
        stacked: dict[str, Tensor] = torch.vmap(outputs, randomness="different")(tensors)
        return stacked


def _holding(module: InverseModel, tensors: Mapping[str, Tensor]) -> InverseModel:
    """Copy of a module with these tensors as parameters and buffers."""
    module = copy.deepcopy(module)
    held = [*module.named_parameters(), *module.named_buffers()]
    # Replaced by identity, so that layers that share a tensor still do.
    new = {
        id(old): nn.Parameter(tensors[name], old.requires_grad)
        if isinstance(old, nn.Parameter)
        else tensors[name]
        for name, old in held
    }
    for owner in module.modules():
        own = [
            *owner.named_parameters(recurse=False, remove_duplicate=False),
            *owner.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for name, old in own:
            setattr(owner, name, new[id(old)])
    return module


def check_members(owner: str, members: Sequence[InverseModel]) -> None:
    """Refuse members that do not form an ensemble.

    Raises:
        ValueError: There are fewer than two members.
        TypeError: A member is not an inverse model.

    """
    wrong = [type(member).__name__ for member in members if not isinstance(member, InverseModel)]
    if wrong:
        raise TypeError(
            f"{owner}: members must be inverse models, got {wrong}. Use "
            "load_ensemble for checkpoints and run directories."
        )
    if len(members) < 2:
        raise ValueError(
            f"{owner}: needs 2 members or more, got {len(members)}. "
            "Train more with different seeds: python train.py -m seed=1,2,3,4,5"
        )


def _stacked(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the terms of all members to ``(M,)``.

    Raises:
        ValueError: Members have different terms.

    """
    names = [set(terms) for terms in losses]
    if any(own != names[0] for own in names):
        raise ValueError(
            f"DeepEnsemble: the training losses of the members have different terms: "
            f"{[sorted(own) for own in names]}. Train members of different classes separately."
        )
    return {name: torch.stack([terms[name] for terms in losses]) for name in losses[0]}
