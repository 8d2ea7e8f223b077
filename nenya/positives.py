"""Which pairs a contrastive loss pulls together: the other views of a sample, a common label, or a mask.

Axes as in `nenya.losses`: A anchors, N contrasts, R anchors of one tile, P positives of an anchor, B samples.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Positives(ABC):
    """Which contrasts are the positives of which anchor, and with what share of the anchor's weight.

    The shares of one anchor's positives, w_ip / sum_p w_ip, add up to 1; an anchor without positives has all zeros, and
    an anchor is never a positive of its own.
    """

    @abstractmethod
    def mean_logit(self, logits: Tensor, rows: slice) -> Tensor:
        """Return the share-weighted mean [R] over the positives of the logits [R, N] of the anchors `rows`.

        An anchor's own logit is -inf.
        """

    @abstractmethod
    def subtract_from(self, probabilities: Tensor, rows: slice) -> None:
        """Subtract the shares of the anchors `rows` from `probabilities` [R, N] in place."""


class OtherViews(Positives):
    """The positives of a sample are its other views, known by their positions: nothing of size N is made.

    Args:
        index: positions of each anchor's positives in the contrasts [A, P], int64, P >= 1.
    """

    def __init__(self, index: Tensor) -> None:
        self.index = index

    def mean_logit(self, logits: Tensor, rows: slice) -> Tensor:
        """See `Positives`."""
        return logits.gather(1, self.index[rows]).mean(dim=1)

    def subtract_from(self, probabilities: Tensor, rows: slice) -> None:
        """See `Positives`."""
        index = self.index[rows]
        share = probabilities.new_full((1, 1), -1.0 / index.shape[1])
        probabilities.scatter_add_(1, index, share.expand_as(index))


class WeightedPositives(Positives):
    """Positives that need a weight for every pair, made a tile at a time.

    Args:
        own: position of each anchor in the contrasts [A], int64.
        total: weight of all positives of each anchor [A], >= 0.
    """

    def __init__(self, own: Tensor, total: Tensor) -> None:
        self.own = own
        self.total = total

    @abstractmethod
    def weights(self, rows: slice) -> Tensor:
        """Return the weights [R, N] of all contrasts as positives of the anchors `rows`, themselves included."""

    def weights_of_others(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Return w of the anchors `rows`: [R, N], zero for the anchor itself."""
        return self.weights(rows).to(dtype).scatter_(1, self.own[rows, None], 0)

    def divisor(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Return sum_p w_ip [R, 1], or 1 where it is 0, since all w are 0 there."""
        total = self.total[rows, None].to(dtype)
        return torch.where(total > 0, total, 1)

    def mean_logit(self, logits: Tensor, rows: slice) -> Tensor:
        """See `Positives`."""
        weights, divisor = self.weights_of_others(rows, logits.dtype), self.divisor(rows, logits.dtype)
        finite = torch.where(weights > 0, logits, 0)  # 0 times the anchor's own -inf would be NaN
        return (weights * finite).sum(dim=1) / divisor[:, 0]

    def subtract_from(self, probabilities: Tensor, rows: slice) -> None:
        """See `Positives`."""
        weights, divisor = self.weights_of_others(rows, probabilities.dtype), self.divisor(rows, probabilities.dtype)
        probabilities.addcdiv_(weights, divisor, value=-1)


class SameLabel(WeightedPositives):
    """The positives of an anchor are all other contrasts with its label.

    Args:
        own: position of each anchor in the contrasts [A], int64.
        labels: label of each contrast [N], integers.
    """

    def __init__(self, own: Tensor, labels: Tensor) -> None:
        self.anchor_labels = labels[own]
        self.labels = labels
        # Counted between two searches in the sorted labels: needs neither an [A, N] comparison nor the class values.
        ordered = labels.sort().values
        upper = torch.searchsorted(ordered, self.anchor_labels, right=True)
        lower = torch.searchsorted(ordered, self.anchor_labels)
        super().__init__(own, upper - lower - 1)

    def weights(self, rows: slice) -> Tensor:
        """See `WeightedPositives`."""
        return self.anchor_labels[rows, None] == self.labels


class MaskedPositives(WeightedPositives):
    """The positives of an anchor are all other contrasts whose sample has a weight in the anchor's row of a mask.

    Args:
        own: position of each anchor in the contrasts [A], int64.
        mask: weight of sample j as a positive of sample i [B, B], >= 0, floating point.
        num_views: V; the contrasts are all samples of the first view, then all of the second, and so on: N = V B.
    """

    def __init__(self, own: Tensor, mask: Tensor, num_views: int) -> None:
        samples = torch.arange(len(mask), device=mask.device).repeat(num_views)
        self.anchor_samples = samples[own]
        self.samples = samples
        self.mask = mask
        # Apart from the diagonal, so that a tiny weight beside a large one is not lost in a difference of sums.
        others = mask.clone().fill_diagonal_(0).sum(dim=1)
        total = num_views * others + (num_views - 1) * mask.diagonal()
        super().__init__(own, total[self.anchor_samples])

    def weights(self, rows: slice) -> Tensor:
        """See `WeightedPositives`."""
        return self.mask[self.anchor_samples[rows, None], self.samples]
