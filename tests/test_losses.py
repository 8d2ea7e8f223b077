"""The loss against a plain loop, closed forms and symmetries; the tiled form against the dense one."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode

from nenya import losses
from nenya.errors import DataError, OptionError
from nenya.losses import SupConLoss
from nenya.positives import OtherViews

FORMS = ("dense", "tiled")


def use_form(patch, form, tile_rows=3):
    patch.setattr(losses, "MAX_DENSE_LOGITS", 0 if form == "tiled" else 2**60)
    patch.setattr(losses, "MIN_TILE_ROWS", tile_rows)
    patch.setattr(losses, "TILE_LOGITS", 0)


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    use_form(monkeypatch, request.param)
    return request.param


def unit_features(num_samples, num_views, dim=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num_samples, num_views, dim, generator=generator, dtype=dtype), dim=2)


def loop_loss(features, weight, mode="all", temperature=0.07, base_temperature=0.07):
    """Khosla et al. 2020, eq. 2, a pair at a time in Python floats; weight(i, j) of sample j as a positive of i."""
    z = features.double().tolist()
    everyone = [(b, v) for v in range(len(z[0])) for b in range(len(z))]
    per_anchor = []
    for i, v in everyone:
        if mode == "one" and v > 0:
            continue
        others = [other for other in everyone if other != (i, v)]
        logit = {(j, u): sum(a * c for a, c in zip(z[i][v], z[j][u], strict=True)) / temperature for j, u in others}
        top = max(logit.values())
        log_partition = top + math.log(math.fsum(math.exp(value - top) for value in logit.values()))
        total = math.fsum(weight(i, j) for j, _ in others)
        if total > 0:
            log_ratios = math.fsum(weight(i, j) * (logit[j, u] - log_partition) for j, u in others)
            per_anchor.append(-log_ratios / total)
    return temperature / base_temperature * math.fsum(per_anchor) / len(per_anchor)


def same_sample(i, j):
    return float(i == j)


def random_mask(num_samples, seed):
    """Asymmetric weights, most of them 0; sample 0 has no positive at all and sample 1 only its other views."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_samples, num_samples, generator=generator, dtype=torch.float64)
    mask[mask < 0.5] = 0
    mask[0] = 0
    mask[1] = 0
    mask[1, 1] = 0.3
    mask[2, 3] = 0.9
    return mask


# --- against the loop


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("num_views", [2, 3])
def test_without_labels_it_is_the_loop(form, mode, num_views):
    features = unit_features(5, num_views)
    found = SupConLoss(0.2, contrast_mode=mode)(features)
    assert found.item() == pytest.approx(loop_loss(features, same_sample, mode, 0.2), rel=1e-12)


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_with_labels_it_is_the_loop(form, mode, num_views):
    features, labels = unit_features(7, num_views, seed=1), torch.tensor([4, -2, 4, 9, 9, 4, 7])
    expected = loop_loss(features, lambda i, j: float(labels[i] == labels[j]), mode, 0.1, 0.3)
    criterion = SupConLoss(temperature=0.1, contrast_mode=mode, base_temperature=0.3)
    assert criterion(features, labels).item() == pytest.approx(expected, rel=1e-12)
    assert criterion.num_without_positive == (2 if num_views == 1 else 0)  # the labels -2 and 7 stand alone


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_with_an_asymmetric_weighted_mask_it_is_the_loop(form, mode, num_views):
    features, mask = unit_features(7, num_views, seed=2), random_mask(7, seed=3)
    criterion = SupConLoss(temperature=0.15, contrast_mode=mode)
    expected = loop_loss(features, lambda i, j: float(mask[i, j]), mode, 0.15)
    assert criterion(features, mask=mask).item() == pytest.approx(expected, rel=1e-12)
    without = {1: 2, 2: 1, 3: 1}[num_views]  # sample 1 has only its other views, and there are none if V = 1
    assert criterion.num_without_positive == without * (num_views if mode == "all" else 1)


def test_two_views_without_labels_are_nt_xent():
    # Chen et al. 2020, eq. 1, as cross entropy over the other 2B - 1 embeddings
    features, temperature = unit_features(6, 2), 0.3
    z = torch.cat([features[:, 0], features[:, 1]])
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(logits, torch.arange(12).roll(6))
    torch.testing.assert_close(SupConLoss(temperature, base_temperature=temperature)(features), expected)


def test_labels_all_different_equal_no_labels(form):
    features = unit_features(5, 2)
    torch.testing.assert_close(SupConLoss()(features, torch.arange(5)), SupConLoss()(features))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16])
def test_mask_of_equal_labels_equals_the_labels(form, dtype):
    features, labels = unit_features(6, 2), torch.tensor([0, 1, 1, 0, 2, 0])
    mask = (labels[:, None] == labels).to(dtype)
    torch.testing.assert_close(SupConLoss()(features, mask=mask), SupConLoss()(features, labels))


def test_weight_of_a_mask_row_has_no_scale(form):
    features, mask = unit_features(6, 2), random_mask(6, seed=0)
    scale = torch.tensor([1, 1e-9, 1e9, 3, 1e-30, 2.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(SupConLoss()(features, mask=scale * mask), SupConLoss()(features, mask=mask))


def test_a_tiny_weight_beside_a_large_own_one_still_counts(form):
    features = unit_features(3, 1, dtype=torch.float32)
    mask = torch.tensor([[1, 1e-9, 0], [0, 1, 0], [0, 0, 1.0]])
    criterion = SupConLoss()
    expected = loop_loss(features, lambda i, j: float((i, j) == (0, 1)))
    assert criterion(features, mask=mask).item() == pytest.approx(expected, rel=1e-5)
    assert criterion.num_without_positive == 2


def test_trailing_axes_are_one(form):
    features = unit_features(4, 2, dim=12)
    torch.testing.assert_close(SupConLoss()(features.reshape(4, 2, 3, 2, 2)), SupConLoss()(features))


# --- closed forms


@pytest.mark.parametrize("temperature", [0.07, 0.5, 0.001])
@pytest.mark.parametrize("num_samples", [2, 8, 33])
def test_identical_embeddings_give_log_of_the_number_of_others(form, temperature, num_samples):
    features = unit_features(1, 1, dtype=torch.float32).expand(num_samples, 2, -1)
    expected = temperature / 0.07 * math.log(2 * num_samples - 1)
    assert SupConLoss(temperature)(features).item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_single_pair_gives_exactly_zero(form, dtype):
    assert SupConLoss()(unit_features(1, 2, dtype=dtype)).item() == 0.0


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_orthogonal_pairs_have_their_closed_form(form, temperature):
    num_samples = 6
    features = torch.eye(num_samples, dtype=torch.float64)[:, None].expand(-1, 2, -1)
    others = 2 * num_samples - 2  # each of logit 0, beside one positive of logit 1/T
    expected = temperature / 0.07 * math.log1p(others * math.exp(-1 / temperature))
    assert SupConLoss(temperature)(features).item() == pytest.approx(expected, rel=1e-6)


def test_base_temperature_is_a_factor():
    features = unit_features(4, 2)
    ratio = SupConLoss(0.2, base_temperature=0.1)(features) / SupConLoss(0.2, base_temperature=0.4)(features)
    assert ratio.item() == pytest.approx(4)


# --- symmetries


def test_order_of_samples_does_not_matter(form):
    features, labels, order = unit_features(7, 2), torch.tensor([0, 1, 0, 2, 2, 1, 3]), torch.randperm(7)
    mask = random_mask(7, seed=1)
    torch.testing.assert_close(SupConLoss()(features[order], labels[order]), SupConLoss()(features, labels))
    torch.testing.assert_close(
        SupConLoss()(features[order], mask=mask[order][:, order]), SupConLoss()(features, mask=mask)
    )
    torch.testing.assert_close(SupConLoss()(features[order]), SupConLoss()(features))


def test_order_of_views_matters_only_to_mode_one(form):
    features = unit_features(5, 3)
    torch.testing.assert_close(SupConLoss()(features[:, [2, 0, 1]]), SupConLoss()(features))
    one = SupConLoss(contrast_mode="one")
    torch.testing.assert_close(one(features[:, [0, 2, 1]]), one(features))
    assert abs(one(features[:, [1, 0, 2]]) - one(features)) > 1e-3


def test_rotation_of_the_space_does_not_matter(form):
    features = unit_features(6, 2)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(SupConLoss()(features @ rotation), SupConLoss()(features))


def test_names_of_labels_do_not_matter(form):
    features, labels = unit_features(6, 1), torch.tensor([0, 1, 1, 0, 2, 2])
    renamed = torch.tensor([2**40, -7, 0])[labels]
    torch.testing.assert_close(SupConLoss()(features, renamed), SupConLoss()(features, labels))


# --- gradients, and the two forms


def positives_of(kind, num_samples):
    if kind == "labels":
        return {"labels": torch.arange(num_samples) % 3}
    if kind == "mask":
        return {"mask": random_mask(num_samples, seed=4)}
    return {}


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("kind", ["none", "labels", "mask"])
def test_gradient_is_the_numerical_one(form, mode, kind):
    features = unit_features(5, 2, dim=3).requires_grad_()
    criterion = SupConLoss(0.3, contrast_mode=mode)
    assert torch.autograd.gradcheck(lambda z: criterion(z, **positives_of(kind, 5)), (features,))


def test_gradients_of_anchors_and_contrasts_are_apart(form):
    # as a process's own rows against those gathered from all processes
    contrasts = unit_features(8, 1, dim=3)[:, 0].requires_grad_()
    anchors = unit_features(3, 1, dim=3, seed=1)[:, 0].requires_grad_()
    own, partner = torch.tensor([6, 1, 4]), torch.tensor([[2], [5], [0]])

    def weighted(a, c):
        each = losses.anchor_losses(a, c, own, OtherViews(partner), 0.4)
        return each @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    assert torch.autograd.gradcheck(weighted, (anchors, contrasts))


def test_before_the_first_batch_no_anchor_was_left_out():
    assert SupConLoss().num_without_positive == 0


def test_a_second_derivative_of_the_tiled_form_is_refused_and_not_wrong(monkeypatch):
    use_form(monkeypatch, "tiled", 3)
    features = unit_features(4, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(SupConLoss()(features), features, create_graph=True)
    with pytest.raises(RuntimeError, match=r"does not require grad|once_differentiable"):
        gradient.sum().backward()


@settings(max_examples=60)
@given(
    num_samples=st.integers(4, 19),
    num_views=st.integers(1, 3),
    tile_rows=st.integers(1, 17),
    mode=st.sampled_from(["all", "one"]),
    kind=st.sampled_from(["none", "labels", "mask"]),
    temperature=st.sampled_from([0.02, 0.07, 1.0]),
)
def test_tiled_equals_dense(num_samples, num_views, tile_rows, mode, kind, temperature):
    if num_views == 1 and kind == "none":
        num_views = 2
    results = []
    for form in FORMS:
        features = unit_features(num_samples, num_views).requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            use_form(patch, form, tile_rows)
            criterion = SupConLoss(temperature, contrast_mode=mode)
            loss = criterion(features, **positives_of(kind, num_samples))
            loss.backward()
        results.append((loss.detach(), features.grad, criterion.num_without_positive))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)


def test_form_is_chosen_by_the_number_of_logits(monkeypatch):
    tiled = []
    monkeypatch.setattr(losses._TiledLosses, "forward", lambda _ctx, anchors, *_: tiled.append(1) or anchors.sum(1))
    monkeypatch.setattr(losses, "MAX_DENSE_LOGITS", 144)
    SupConLoss()(unit_features(6, 2))
    assert not tiled
    SupConLoss(contrast_mode="one")(unit_features(8, 2))
    assert not tiled
    SupConLoss()(unit_features(7, 2))
    assert tiled


@pytest.mark.parametrize(
    ("num_anchors", "num_contrasts", "tile_rows"), [(1, 2, 1), (500, 600, 500), (4096, 4096, 256), (300, 2**30, 64)]
)
def test_tiles_cover_every_anchor_once_and_stay_small(num_anchors, num_contrasts, tile_rows):
    rows = [range(num_anchors)[tile] for tile in losses._tiles(num_anchors, num_contrasts)]
    assert [row for tile in rows for row in tile] == list(range(num_anchors))
    assert max(len(tile) for tile in rows) == tile_rows


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        self.numel = max([self.numel, *(x.numel() for x in made if isinstance(x, torch.Tensor))])
        return out


@pytest.mark.parametrize("kind", ["none", "labels"])
def test_tiled_memory_is_linear_in_the_batch(monkeypatch, kind):
    def largest(form, num_samples):
        use_form(monkeypatch, form, tile_rows=4)
        features = unit_features(num_samples, 2, dim=8).requires_grad_()
        with LargestTensor() as seen:
            SupConLoss()(features, **positives_of(kind, num_samples)).backward()
        return seen.numel

    assert largest("tiled", 64) == 64 * 2 * 8  # the embeddings, as wide as two tiles
    assert largest("tiled", 128) == 2 * largest("tiled", 64)
    assert largest("dense", 64) == (64 * 2) ** 2  # the probe sees a whole matrix where there is one


# --- precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_touch_the_loss(form, dtype):
    features = unit_features(16, 2, dim=32, dtype=torch.float32).requires_grad_()
    expected = SupConLoss()(features)
    (expected_grad,) = torch.autograd.grad(expected, features)
    with torch.autocast("cpu", dtype=dtype):
        found = SupConLoss()(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, features)[0], expected_grad, rtol=0, atol=0)


def test_tiled_backward_under_autocast_is_float32(monkeypatch):
    use_form(monkeypatch, "tiled")
    features = unit_features(8, 2, dim=32, dtype=torch.float32).requires_grad_()
    (expected,) = torch.autograd.grad(SupConLoss()(features), features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = torch.autograd.grad(SupConLoss()(features), features)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_computed_in_float32(form, dtype):
    features = unit_features(8, 2, dtype=torch.float32).to(dtype).requires_grad_()
    loss = SupConLoss()(features)
    loss.backward()
    assert loss.dtype == torch.float32
    assert features.grad.dtype == dtype
    torch.testing.assert_close(loss, SupConLoss()(features.float()))


@pytest.mark.parametrize("kind", ["none", "labels", "mask"])
def test_finite_at_a_tiny_temperature(form, kind):
    features = unit_features(9, 2, dtype=torch.float32).requires_grad_()
    criterion = SupConLoss(temperature=0.001)
    loss = criterion(features, **positives_of(kind, 9))
    loss.backward()
    weight = {
        "none": same_sample,
        "labels": lambda i, j: float(i % 3 == j % 3),
        "mask": lambda i, j: float(random_mask(9, seed=4)[i, j]),
    }[kind]
    assert loss.item() == pytest.approx(loop_loss(features.detach(), weight, temperature=0.001), rel=1e-4)
    assert features.grad.isfinite().all()


# --- anchors without a positive, and errors


def test_anchors_without_a_positive_get_no_gradient_as_anchors(form):
    # sample 2 has no positive and is nobody's: it acts only as a negative, as in the loop
    features, labels = unit_features(3, 1), torch.tensor([5, 5, 6])
    criterion = SupConLoss()
    expected = loop_loss(features, lambda i, j: float(labels[i] == labels[j]))
    assert criterion(features, labels).item() == pytest.approx(expected, rel=1e-12)
    assert criterion.num_without_positive == 1
    criterion(unit_features(3, 2), labels)
    assert criterion.num_without_positive == 0


def test_no_anchor_with_a_positive_is_an_error(form):
    features = unit_features(3, 1)
    with pytest.raises(DataError, match=r"none of the 3 anchors has a positive.*give two views"):
        SupConLoss()(features, torch.arange(3))
    with pytest.raises(DataError, match="none of the 3 anchors has a positive"):
        SupConLoss()(features, mask=torch.eye(3))
    with pytest.raises(DataError, match="none of the 6 anchors has a positive"):
        SupConLoss()(unit_features(3, 2), mask=torch.zeros(3, 3))
    with pytest.raises(DataError, match="one view and neither labels nor mask"):
        SupConLoss()(features)


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["temperature", "base_temperature"])
def test_temperatures_must_be_positive(name, value):
    with pytest.raises(OptionError, match=f"^{name} is {value}, expected a positive number"):
        SupConLoss(**{name: value})


def test_contrast_mode_must_be_known():
    with pytest.raises(OptionError, match="contrast_mode is 'each', expected 'all' or 'one'"):
        SupConLoss(contrast_mode="each")


@pytest.mark.parametrize("shape", [(4,), (4, 8), (0, 2, 8), (4, 0, 8), (4, 2, 0)])
def test_features_must_have_samples_views_and_a_width(shape):
    with pytest.raises(DataError, match=r"features have shape .*, expected \[B, V, D\].*torch.stack"):
        SupConLoss()(torch.zeros(shape))


def test_features_must_be_floating_point():
    with pytest.raises(DataError, match=r"features are torch\.int64"):
        SupConLoss()(torch.ones(4, 2, 3, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(3,), (8,), (4, 1), ()])
def test_labels_must_be_one_a_sample(shape):
    with pytest.raises(DataError, match=r"labels have shape .*, expected \[4\]"):
        SupConLoss()(unit_features(4, 2), torch.zeros(shape, dtype=torch.int64))


def test_labels_must_be_integers():
    with pytest.raises(DataError, match=r"labels are torch\.float32, expected integers"):
        SupConLoss()(unit_features(4, 2), torch.zeros(4))


@pytest.mark.parametrize("shape", [(4,), (8, 8), (4, 3)])
def test_mask_must_be_samples_by_samples(shape):
    with pytest.raises(DataError, match=r"mask has shape .*, expected \[4, 4\].*not for each view"):
        SupConLoss()(unit_features(4, 2), mask=torch.ones(shape))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_mask_must_hold_weights(value):
    mask = torch.eye(4)
    mask[1, 2] = value
    with pytest.raises(DataError, match="mask has negative, infinite or NaN weights"):
        SupConLoss()(unit_features(4, 2), mask=mask)


def test_labels_and_mask_exclude_each_other():
    with pytest.raises(DataError, match="both labels and mask"):
        SupConLoss()(unit_features(4, 2), torch.arange(4), torch.eye(4))
