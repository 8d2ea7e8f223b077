"""Muon: convolutions are updated by orthogonal matrices, all other parameters by SGD.

SGD moves a weight matrix most along the few directions in which gradients are large. Muon (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/) gives all directions of the momentum about the same length: the update is
the momentum with its singular values brought near 1 by a few Newton-Schulz steps. A batch-norm follows every
convolution, so that the length of its weights has no effect on what the network computes, only on how far an update
turns them: kept at one norm, they turn by the learning rate (airbench94_muon in
https://github.com/KellerJordan/cifar10-airbench).

Newer versions of torch have a Muon, which is not used: it takes matrices only, so that a convolution would have to be
a second parameter over the same memory, which neither the model nor a checkpoint knows. It also computes in bfloat16
where that is slower, keeps no norm, and every process would repeat all of it. The tests compare the two.

Axes: a convolution's weights [K, C, k, k] are a matrix [K, k k C], a row for each output channel, with the columns in
the order in which weights of layout channels-last lie in memory; no result depends on that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from nenya import parallel

#: Of the quintic, chosen for a steep slope at 0: singular values end in a band about 1 instead of at 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

#: More columns than this many rows, and the steps are cheaper on the rows' products than on the matrix itself.
_WIDE = 1.5

#: Steps on the products, in types of half the width: with more, their rounding grows beyond the values.
_MOST_HALF_STEPS = 3


def orthogonalise(matrix: Tensor, steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring all singular values near 1 and keep the singular vectors, by Newton-Schulz steps.

    With the matrix divided by its Frobenius norm, each step is X <- a X + b (X X^T) X + c (X X^T)^2 X, which acts on
    each singular value by itself: s <- a s + b s^3 + c s^5. All steps are polynomials in X X^T and commute, so that for
    a wide matrix their product is formed there, and applied to the matrix once.

    Args:
        matrix: [K, N], not changed.
        steps: At most 5: beyond, rounding in X X^T would grow to the size of its values. Five bring singular values
            above 0.01 of the norm to 0.68 ... 1.14 (measured on the polynomial); three raise small ones 41 times.
        dtype: To compute the steps in, whatever autocast says: float32 (float64 for a float64 matrix), or bfloat16. In
            bfloat16 rounding is raised like small singular values: to a tenth of the large ones by three steps, to a
            third by five (measured on matrices of rank one, the worst of those tried).

    Returns:
        [K, N], in the type that was computed in. The same for any positive multiple of `matrix`; zeros for zeros.
    """
    x = matrix.detach().to(torch.promote_types(matrix.dtype, torch.float32))
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    tiny = torch.finfo(x.dtype).tiny
    x = x / torch.stack(x.aminmax()).abs().amax().clamp_min(tiny)  # else squares of small numbers are zeros
    x /= torch.linalg.vector_norm(x).clamp_min(tiny)
    half = dtype.itemsize < torch.float32.itemsize
    x = x.to(dtype) if half else x
    through_products = x.shape[1] > _WIDE * x.shape[0] and not (half and steps > _MOST_HALF_STEPS)
    with torch.autocast(x.device.type, enabled=False):
        x = _through_products(x, steps) if through_products else _directly(x, steps)
    return x.T if tall else x


def _directly(x: Tensor, steps: int) -> Tensor:
    """The steps as they are written: [M, N], M <= N."""
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        products = x @ x.T
        x = torch.addmm(x, torch.addmm(products, products, products, beta=b, alpha=c), x, beta=a)
    return x


def _through_products(x: Tensor, steps: int) -> Tensor:
    """The same, with the steps' factors multiplied among themselves [M, M] before they meet the matrix [M, N]."""
    a, b, c = COEFFICIENTS
    products = x @ x.T
    whole: Tensor | None = None
    for step in range(steps):
        factor = torch.addmm(products, products, products, beta=b, alpha=c)
        factor.diagonal().add_(a)
        whole = factor if whole is None else factor @ whole
        if step + 1 < steps:
            products = factor @ products @ factor
    return x if whole is None else whole @ x


class Muon(Optimizer):
    """Muon for convolutions, torch's SGD for all other parameters, as one optimizer with one state.

    ``param_groups[0]`` is SGD's and ``param_groups[1]`` Muon's; both have a ``momentum_buffer`` for each parameter.
    With several processes, whose gradients must be the same, each computes a share of the matrices and sends the new
    weights: less work, and the same bits everywhere though processors may round differently.

    Args:
        convolutions: Weights [K, C, k, k], for Muon.
        others: The other parameters, for SGD.
        lr: Learning rate of SGD.
        momentum: Of SGD.
        weight_decay: Of SGD; of the convolutions too (``weights *= 1 - muon_lr * weight_decay``) where `keep_norm` is
            false.
        nesterov: Whether SGD's momentum is Nesterov's. Muon's always is.
        fused: As for torch's SGD.
        muon_lr: Learning rate of Muon. With `keep_norm`, the length of an update beside that of the weights.
        muon_momentum: Of Muon.
        steps: Of Newton and Schulz, see `orthogonalise`.
        keep_norm: Set the weights' norm to sqrt(K) before each update, so that a row has length 1 in the mean.
        dtype: Type that the steps of Newton and Schulz are computed in, float32 or bfloat16; weights and momentum are
            of their own type.
    """

    def __init__(
        self,
        convolutions: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
        fused: bool | None,
        muon_lr: float,
        muon_momentum: float,
        steps: int,
        keep_norm: bool,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._dtype = dtype
        self._sgd = SGD(others, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
        muon = {
            "params": list(convolutions),
            "lr": muon_lr,
            "relative_rate": muon_lr / lr,
            "momentum": muon_momentum,
            "weight_decay": weight_decay,
            "newton_schulz_steps": steps,
            "keep_norm": keep_norm,
        }
        super().__init__([*self._sgd.param_groups, muon], defaults={})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Update all parameters that have a gradient.

        Args:
            closure: As for torch's optimizers: computes the loss and its gradient.

        Returns:
            What `closure` returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sgd, muon = self.param_groups
        self._step_convolutions(muon)
        self._sgd.param_groups, self._sgd.state = [sgd], self.state  # a loaded state is another object
        self._sgd.step()
        return loss

    def _step_convolutions(self, group: dict[str, Any]) -> None:
        ranks = parallel.current()
        weights = [parameter for parameter in group["params"] if parameter.grad is not None]
        shares = _shares([parameter.shape for parameter in weights], ranks.size)
        for parameter, share in zip(weights, shares, strict=True):
            direction = self._direction(parameter, group["momentum"])  # in every process, since each has the momentum
            if share == ranks.rank:
                self._move(parameter, direction, group)
            else:
                parameter.zero_()
        if ranks.size > 1:
            # zeros but for this process's share: the sum is the new weights
            parts = [_as_matrix(parameter).flatten() for parameter in weights]
            together = parallel.all_reduce_sum(torch.cat(parts))
            for parameter, moved in zip(weights, torch.split(together, [len(part) for part in parts]), strict=True):
                parameter.copy_(_as_weights(moved, parameter.shape))

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """The gradient and, by Nesterov's form, the momentum of this step [K, C, k, k]; the momentum is kept."""
        gradient = parameter.grad
        assert gradient is not None
        if not momentum:
            return gradient
        state = self.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum_buffer"]
        average.mul_(momentum).add_(gradient)
        return gradient.add(average, alpha=momentum)

    def _move(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        if group["keep_norm"]:
            length = torch.linalg.vector_norm(_as_matrix(parameter)).clamp_min(torch.finfo(parameter.dtype).tiny)
            parameter.mul_(math.sqrt(len(parameter)) / length)
        else:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        # orthogonal rows or columns have the norm sqrt(min(K, k k C)): brought to sqrt(K), the weights'
        update = orthogonalise(_as_matrix(direction), group["newton_schulz_steps"], self._dtype)
        scale = math.sqrt(max(1.0, update.shape[0] / update.shape[1]))
        parameter.add_(_as_weights(update, parameter.shape), alpha=-group["lr"] * scale)


def _as_matrix(weights: Tensor) -> Tensor:
    """[K, C, k, k] -> [K, k k C]: without a copy for the layout channels-last, in which networks are trained."""
    return weights.permute(0, 2, 3, 1).flatten(1)


def _as_weights(matrix: Tensor, shape: torch.Size) -> Tensor:
    """Undo `_as_matrix`: as many numbers in any shape -> [K, C, k, k]."""
    rows, channels, *kernel = shape
    return matrix.reshape(rows, *kernel, channels).permute(0, 3, 1, 2)


def _shares(shapes: Sequence[torch.Size], num_processes: int) -> list[int]:
    """Which process computes each matrix: the costly ones first, each to the one with the least to do so far."""
    costs = [_cost(shape) for shape in shapes]
    owners, load = [0] * len(costs), [0] * num_processes
    for number in sorted(range(len(costs)), key=lambda place: -costs[place]):
        owners[number] = load.index(min(load))
        load[owners[number]] += costs[number]
    return owners


def _cost(shape: torch.Size) -> int:
    """About how much a matrix's steps take: its products with itself."""
    rows, columns = shape[0], math.prod(shape[1:])
    return min(rows, columns) ** 2 * max(rows, columns)
