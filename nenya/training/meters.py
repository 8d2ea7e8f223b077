"""Running averages."""


class AverageMeter:
    """Keep the latest value and the weighted average of a quantity.

    Attributes:
        val: The latest value.
        avg: The average of all values so far, weighted by their counts; 0 before the first.
        sum: The weighted sum.
        count: The sum of the counts.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.val = 0.0
        self.avg = 0.0
        self.sum = 0.0
        self.count = 0

    def update(self, val: float, n: int = 1) -> None:
        """Take in a value.

        Args:
            val: The value, e.g. the mean loss of a batch.
            n: How many samples it stands for.
        """
        self.val = float(val)
        self.sum += self.val * n
        self.count += n
        self.avg = self.sum / self.count if self.count else 0.0
