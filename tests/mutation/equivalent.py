"""Changes that no test can notice, since nothing that the code promises depends on them; with the reason."""

ANY = "*"  # whatever the line is changed to

_SPEED = "it decides what is fast, not what comes out"
_EQUAL = "both sides have one length by construction"
_UNUSED = "only shape and type of the argument are used"
_FIRST = "there is one, so that the first is the last"

#: (module, line as it stands, line as changed) -> why it cannot show.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("nenya/losses.py", "MAX_DENSE_LOGITS = 2**18", ANY): _SPEED,
    ("nenya/losses.py", "TILE_LOGITS = 2**20", ANY): _SPEED,
    ("nenya/losses.py", "", "def forward("): "autograd calls it by the class",
    (
        "nenya/losses.py",
        "counted = self._count_anchors(positives, certain=V >= 2 and mask is None)",
        "counted = self._count_anchors(positives, certain=V >= 3 and mask is None)",
    ): "what is certain is counted nevertheless, with the same result",
    (
        "nenya/losses.py",
        'if not 0 < value < float("inf"):',
        'if not 0 < value != float("inf"):',
    ): "no number is above infinity",
    ("nenya/losses.py", "elif num_views == 1:", "elif num_views <= 1:"): "features without views are refused before",
    ("nenya/positives.py", "", "def mean_logit(self, logits: Tensor, rows: slice) -> Tensor:"): "marks for readers",
    ("nenya/positives.py", "", "def subtract_from(self, probabilities: Tensor, rows: slice) -> None:"): "the same",
    ("nenya/positives.py", "", "def weights(self, rows: slice) -> Tensor:"): "the same",
    (
        "nenya/positives.py",
        "return torch.where(total > 0, total, 1)",
        "return torch.where(total > 0, total, 2)",
    ): "the dividend is 0 there",
    (
        "nenya/positives.py",
        "finite = torch.where(weights > 0, logits, 0)  # 0 times the anchor's own -inf would be NaN",
        "finite = torch.where(weights > 0, logits, -1)  # 0 times the anchor's own -inf would be NaN",
    ): "it is multiplied by 0 there",
    (
        "nenya/positives.py",
        "return (weights * finite).sum(dim=1) / divisor[:, 0]",
        "return (weights * finite).sum(dim=1) / divisor[:, -1]",
    ): _FIRST,
    (
        "nenya/training/gradient_cache.py",
        "for number, (part, gradient) in enumerate(zip(parts, by_part, strict=True), start=1):",
        "for number, (part, gradient) in enumerate(zip(parts, by_part, strict=False), start=1):",
    ): _EQUAL,
    (
        "nenya/training/gradient_cache.py",
        "return [Batch(*part) for part in zip(*columns, strict=True)]",
        "return [Batch(*part) for part in zip(*columns, strict=False)]",
    ): _EQUAL,
    (
        "nenya/data/order.py",
        "yield parts[0] if len(parts) == 1 else np.concatenate(parts)",
        "yield parts[ -1] if len(parts) == 1 else np.concatenate(parts)",
    ): _FIRST,
    (
        "nenya/data/augment.py",
        "crop=self.crop and dataclasses.replace(self.crop, max_trim=0, max_shift=0),",
        "crop=self.crop and dataclasses.replace(self.crop, max_trim= -1, max_shift=0),",
    ): "a trim is drawn below max_trim + 1, and 0 times a draw is 0 as well",
    (
        "nenya/data/augment.py",
        "angle = 360.0 * draws[:, 2] if self.rotate else torch.zeros_like(draws[:, 2])",
        "angle = 360.0 * draws[:, 2] if self.rotate else torch.zeros_like(draws[:, 3])",
    ): _UNUSED,
    (
        "nenya/data/augment.py",
        "return F.avg_pool2d(warped, samples) if samples > 1 else warped",
        "return F.avg_pool2d(warped, samples) if samples > 0 else warped",
    ): "the mean of one is itself",
    (
        "nenya/data/augment.py",
        "return torch.stack((torch.full_like(like[0, 0], y), torch.full_like(like[0, 0], x)))",
        "return torch.stack((torch.full_like(like[0, 0], y), torch.full_like(like[ -1, 0], x)))",
    ): _UNUSED,
    (
        "nenya/files.py",
        "except ImportError:  # Windows has no flock: there the folder is not guarded",
        ANY,
    ): "it is reached only where there is no fcntl",
    (
        "nenya/files.py",
        "_MOST_SEALED = 2**29  # bytes of a file that is read into memory; curves of a million steps have 24 MB",
        "_MOST_SEALED = 2** 28  # bytes of a file that is read into memory; curves of a million steps have 24 MB",
    ): "no curves come near either bound",
    ("nenya/files.py", "mask = os.umask(0)", "mask = os.umask( 1)"): "the next line sets it back",
    (
        "nenya/files.py",
        'flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)',
        'flags = os.O_RDWR | os.O_APPEND ^ os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)',
    ): "of flags without a bit in common the two are the same",
    (
        "nenya/training/checkpoint.py",
        "for group, current in zip(optimizer.param_groups, settings, strict=True):",
        "for group, current in zip(optimizer.param_groups, settings, strict=False):",
    ): _EQUAL,
    (
        "nenya/training/checkpoint.py",
        "return (epoch if isinstance(epoch, int) else -1, len(losses) if isinstance(losses, list) else 0)",
        "return (epoch if isinstance(epoch, int) else -1, len(losses) if isinstance(losses, list) else 1)",
    ): "at the border of an epoch, a state without the list is as good as one with an empty list",
}
