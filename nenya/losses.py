"""The contrastive loss: SupCon (Khosla et al. 2020, arXiv:2004.11362) and NT-Xent (Chen et al. 2020, arXiv:2002.05709).

For an anchor i with embedding z_i among contrasts z_a, with positives p of weight w_ip (1 unless a mask says otherwise)
and the temperature T:

    s_ia = z_i . z_a / T                                              logits
    l_i  = log sum_{a != i} exp(s_ia) - sum_p w_ip s_ip / sum_p w_ip  Khosla et al. 2020, eq. 2 ("out")
    loss = T / T_base * mean of l_i over the anchors that have a positive

Without labels the only positives of a sample are its other views, and with two views this is Chen et al. 2020, eq. 1.

Two forms give the same value and gradient. The dense form keeps the whole logit matrix for autograd. The tiled form
makes a block of rows at a time, and makes it again in the backward pass, so memory grows with B and not with B^2. Which
one is used is a matter of speed, by `MAX_DENSE_LOGITS`.

Axes: B samples, V views, D embedding width, A anchors, N contrasts, R anchors of one tile, P positives of an anchor.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nenya import parallel
from nenya.errors import DataError, OptionError
from nenya.positives import MaskedPositives, OtherViews, Positives, SameLabel, WeightedPositives

CONTRAST_MODES = ("all", "one")

# Where the two forms cross, and what the size of tiles costs: benchmarks/RESULTS.md, "Loss". 2^18 logits are B = 256
# with two views: about level there. Tiles of fewer than 64 rows are slower; from there on their size hardly matters, so
# they are small: 2^20 logits are 4 MiB.
MAX_DENSE_LOGITS = 2**18
TILE_LOGITS = 2**20
MIN_TILE_ROWS = 64


def anchor_losses(anchors: Tensor, contrasts: Tensor, own: Tensor, positives: Positives, temperature: float) -> Tensor:
    """Return l_i of each anchor: the log partition over all others minus the mean logit of its positives.

    Anchors and contrasts are apart so that anchors can be a part of them: one view, or one process's share of a batch.
    The positives fix the weights, and no gradient flows to them. Choose the form by `MAX_DENSE_LOGITS`.

    Args:
        anchors: embeddings [A, D], float32 or float64.
        contrasts: embeddings [N, D] of the same dtype, N >= 2.
        own: position of each anchor in the contrasts [A], int64: an anchor is not its own negative.
        positives: the positives of each anchor.
        temperature: T > 0.

    Returns:
        l [A]; where an anchor has no positive, the log partition alone.
    """
    if len(anchors) * len(contrasts) <= MAX_DENSE_LOGITS:
        return _rows_of_losses(anchors, contrasts, own, positives, temperature, slice(None))[0]
    losses = _TiledLosses.apply(anchors, contrasts, own, positives, temperature)  # type: ignore[no-untyped-call]
    return cast(Tensor, losses)


def _logits(anchors: Tensor, contrasts: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Return s [R, N], with -inf for each anchor itself, which takes it out of its softmax."""
    logits = (anchors / temperature) @ contrasts.T  # T divides the smaller factor
    return logits.scatter_(1, own[:, None], -torch.inf)


def _rows_of_losses(
    anchors: Tensor, contrasts: Tensor, own: Tensor, positives: Positives, temperature: float, rows: slice
) -> tuple[Tensor, Tensor]:
    """Return l [R] and the log partition [R] of the anchors `rows`."""
    logits = _logits(anchors[rows], contrasts, own[rows], temperature)
    log_partition = logits.logsumexp(dim=1)
    return log_partition - positives.mean_logit(logits, rows), log_partition


class _TiledLosses(torch.autograd.Function):
    """`anchor_losses` in tiles of anchors, whose logits are made again in the backward pass.

    The gradient of l_i by s_ia is softmax_ia - share_ia, so with g_i = d(loss)/d(l_i):

        d(loss)/d(anchor_i)   = 1/T sum_a g_i (softmax_ia - share_ia) contrast_a
        d(loss)/d(contrast_a) = 1/T sum_i g_i (softmax_ia - share_ia) anchor_i
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch gives the context no narrower type
        anchors: Tensor,
        contrasts: Tensor,
        own: Tensor,
        positives: Positives,
        temperature: float,
    ) -> Tensor:
        """Return l [A]."""
        losses, log_partition = anchors.new_empty(len(anchors)), anchors.new_empty(len(anchors))
        for rows in _tiles(len(anchors), len(contrasts)):
            losses[rows], log_partition[rows] = _rows_of_losses(anchors, contrasts, own, positives, temperature, rows)
        ctx.save_for_backward(anchors, contrasts, own, log_partition)
        ctx.positives, ctx.temperature = positives, temperature
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of anchors [A, D] and contrasts [N, D]."""
        anchors, contrasts, own, log_partition = ctx.saved_tensors
        grad_anchors, grad_contrasts = torch.empty_like(anchors), torch.zeros_like(contrasts)
        scale = (grad / ctx.temperature)[:, None]  # [A, 1]
        with _full_precision(anchors):
            for rows in _tiles(len(anchors), len(contrasts)):
                logits = _logits(anchors[rows], contrasts, own[rows], ctx.temperature)
                residual = logits.sub_(log_partition[rows, None]).exp_()  # softmax [R, N]
                ctx.positives.subtract_from(residual, rows)
                residual *= scale[rows]
                grad_anchors[rows] = residual @ contrasts
                grad_contrasts.addmm_(residual.T, anchors[rows])
        return grad_anchors, grad_contrasts, None, None, None


def _tiles(num_anchors: int, num_contrasts: int) -> list[slice]:
    step = max(MIN_TILE_ROWS, TILE_LOGITS // num_contrasts)
    return [slice(start, start + step) for start in range(0, num_anchors, step)]


def _full_precision(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)


class SupConLoss(nn.Module):
    """Supervised contrastive loss, and NT-Xent where there are neither labels nor a mask.

    Khosla et al. 2020, eq. 2, times `temperature / base_temperature`; without labels, Chen et al. 2020, eq. 1.

    Args:
        temperature: T > 0; a lower one weighs the hardest negatives more.
        contrast_mode: "all", every view is an anchor; "one", only the first is. The contrasts are all views either way.
        base_temperature: T_base > 0, the temperature at which the loss has its plain scale.

    Attributes:
        num_without_positive: how many anchors of the last `forward` had no positive and were left out of the mean, an
            int. With two views or more and no mask it must be 0, and the device is not waited for to tell.

    Raises:
        OptionError: a temperature that is not positive, or an unknown `contrast_mode`.
    """

    def __init__(self, temperature: float = 0.07, contrast_mode: str = "all", base_temperature: float = 0.07) -> None:
        super().__init__()
        _check_positive("temperature", temperature)
        _check_positive("base_temperature", base_temperature)
        if contrast_mode not in CONTRAST_MODES:
            raise OptionError(f"contrast_mode is {contrast_mode!r}, expected 'all' or 'one': 'all' is usual")
        self.temperature = temperature
        self.contrast_mode = contrast_mode
        self.base_temperature = base_temperature
        self.num_without_positive = 0

    def forward(self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the mean loss over the anchors that have a positive.

        Logits and all that follows are float32 (float64 for float64 features), whatever autocast says.

        Args:
            features: embeddings [B, V, ...] of unit length, floating point; axes after the second are flattened to D.
            labels: class of each sample [B], integers: samples of one class are positives of each other.
            mask: [B, B], bool or >= 0: `mask[i, j]` is the weight of sample j as a positive of sample i. Need not be
                symmetric. The diagonal stands for the sample's other views. No gradient flows to it.

        Returns:
            The loss, a scalar, finite for finite features.

        Raises:
            DataError: features, labels or mask of the wrong shape or kind, both labels and mask, or no anchor with a
                positive.
        """
        embeddings = _flatten_features(features)  # [B, V, D]
        B, V, _ = embeddings.shape
        _check_positives_given(B, V, labels, mask)
        num_anchors = B if self.contrast_mode == "one" else V * B
        own = torch.arange(num_anchors, device=embeddings.device)  # the anchors are the first of the contrasts
        with _full_precision(embeddings):
            positives = _choose_positives(own, B, V, labels, mask, embeddings.dtype)
            counted = self._count_anchors(positives, certain=V >= 2 and mask is None)
            return self._scaled(_losses_of(embeddings, own, positives, self.temperature)[counted].mean())

    def share(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return this process's part of the loss of the whole batch, spread over the processes of a run.

        The parts add up to what `forward` gives for the joined batch. The contrasts are all processes' embeddings, the
        anchors this one's own, so that the work is shared and no process makes another's rows; the gradients that the
        other processes' anchors send to these embeddings arrive in the backward pass. With one process it is `forward`.

        Args:
            features: this process's embeddings [b, V, ...], V >= 2, of one shape in every process.
            labels: class of each of its samples [b], integers; in all processes or in none.

        Returns:
            A scalar: the sum over its anchors divided by the number of all anchors.

        Raises:
            DataError: as for `forward`, or a single view.
        """
        ranks = parallel.current()
        if ranks.size == 1:
            return self.forward(features, labels)
        embeddings = _flatten_features(features)  # [b, V, D]
        b, V, _ = embeddings.shape
        _check_positives_given(b, V, labels, mask=None)
        if V < 2:
            raise DataError("one view in a run of several processes, expected two at least: give two views")
        B = b * ranks.size
        num_anchor_views = 1 if self.contrast_mode == "one" else V
        first = ranks.rank * b + B * torch.arange(num_anchor_views, device=embeddings.device)
        own = (first[:, None] + torch.arange(b, device=embeddings.device)).flatten()  # [A], view by view
        with _full_precision(embeddings):
            everyone = parallel.all_gather(embeddings)  # [B, V, D]
            all_labels = None if labels is None else parallel.all_gather(labels.to(embeddings.device))
            positives = _choose_positives(own, B, V, all_labels, None, embeddings.dtype)
            losses = _losses_of(everyone, own, positives, self.temperature)
            return self._scaled(losses.sum() / (num_anchor_views * B))

    def _scaled(self, loss: Tensor) -> Tensor:
        return self.temperature / self.base_temperature * loss

    def _count_anchors(self, positives: Positives, certain: bool) -> Tensor | slice:
        """Return an index of the anchors that have a positive; `certain`, if all must, spares a wait for the device."""
        self.num_without_positive = 0
        if certain or not isinstance(positives, WeightedPositives):
            return slice(None)
        has_positive = positives.total > 0  # [A]
        self.num_without_positive = len(has_positive) - int(has_positive.sum())
        if self.num_without_positive == len(has_positive):
            raise DataError(
                f"none of the {len(has_positive)} anchors has a positive, expected one at least: give two views of "
                "each sample, or labels or a mask that join samples of this batch"
            )
        return has_positive


def _losses_of(embeddings: Tensor, own: Tensor, positives: Positives, temperature: float) -> Tensor:
    """Return l [A] of the anchors at the positions `own` among the contrasts of `embeddings` [B, V, D]."""
    contrasts = embeddings.transpose(0, 1).flatten(0, 1)  # [N = V B, D], view by view
    return anchor_losses(contrasts.index_select(0, own), contrasts, own, positives, temperature)


def _choose_positives(
    own: Tensor, num_samples: int, num_views: int, labels: Tensor | None, mask: Tensor | None, dtype: torch.dtype
) -> Positives:
    if mask is not None:
        return MaskedPositives(own, mask.detach().to(own.device, dtype), num_views)
    if labels is not None:
        return SameLabel(own, labels.to(own.device).repeat(num_views))
    to_other_views = num_samples * torch.arange(1, num_views, device=own.device)  # [V - 1]
    return OtherViews((own[:, None] + to_other_views) % (num_samples * num_views))


def _flatten_features(features: Tensor) -> Tensor:
    """Return features as [B, V, D] in float32, or in float64 if they are."""
    if features.ndim < 3 or 0 in features.shape:
        raise DataError(
            f"features have shape {list(features.shape)}, expected [B, V, D] with none of them 0: "
            "join the views with torch.stack([z1, z2], dim=1)"
        )
    if not features.is_floating_point():
        raise DataError(f"features are {features.dtype}, expected floating point: give the model's output z")
    return features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))


def _check_positives_given(num_samples: int, num_views: int, labels: Tensor | None, mask: Tensor | None) -> None:
    """Raise a DataError unless there are labels [B], a mask [B, B], or, with two views or more, neither."""
    if labels is not None and mask is not None:
        raise DataError("both labels and mask given, expected one at most: a mask already says what the labels say")
    if labels is not None:
        _check_labels(num_samples, labels)
    elif mask is not None:
        _check_mask(num_samples, mask)
    elif num_views == 1:
        raise DataError("one view and neither labels nor mask, so no anchor has a positive: give two views or labels")


def _check_labels(num_samples: int, labels: Tensor) -> None:
    if labels.shape != (num_samples,):
        raise DataError(
            f"labels have shape {list(labels.shape)}, expected [{num_samples}]: give one label for each sample"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"labels are {labels.dtype}, expected integers: number the classes")


def _check_mask(num_samples: int, mask: Tensor) -> None:
    if mask.shape != (num_samples, num_samples):
        raise DataError(
            f"mask has shape {list(mask.shape)}, expected [{num_samples}, {num_samples}]: "
            "give a row and a column for each sample, not for each view"
        )
    if not bool(((mask >= 0) & (mask < torch.inf)).all()):
        raise DataError("mask has negative, infinite or NaN weights, expected 0 or more: 0 marks what is no positive")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise OptionError(f"{name} is {value}, expected a positive number: 0.07 is usual")
