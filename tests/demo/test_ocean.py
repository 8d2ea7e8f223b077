import hashlib

import h5py
import numpy as np
import pytest

from nenya.demo import flow as sea
from nenya.demo import ocean
from nenya.demo.flow import REGIMES
from nenya.demo.ocean import synthetic_ocean, write_ocean
from nenya.errors import DataError, NenyaError

CELL = sea.DOMAIN_WIDTH / sea.FLOW_CELLS


def rng(seed=0):
    return np.random.default_rng(seed)


def steady_flow(flow, time_step=0.5):
    """A flow [n, n] complex km per day that never changes."""
    zero = np.zeros_like(flow)
    return sea.Flow(zero.real, today=zero, earlier=zero, lasting=flow, time_step=time_step, eddies=None)


@pytest.fixture(scope="module")
def train():
    return synthetic_ocean(700, size=32, seed=3)


@pytest.fixture(scope="module")
def valid():
    return synthetic_ocean(200, size=32, seed=3, stream=1)


# ---------------------------------------------------------------- flow


def energy_spectrum(psi):
    """Kinetic energy in rings of one cycle per domain, from 1 up to the Nyquist wavenumber, by a complex transform."""
    n = len(psi)
    waves = np.fft.fftfreq(n, 1 / n)
    k = np.hypot(waves[:, None], waves[None, :])
    energy = (2 * np.pi * k / sea.DOMAIN_WIDTH) ** 2 * np.abs(np.fft.fft2(psi.astype(np.float64)) / n**2) ** 2
    return np.array([energy[np.round(k) == ring].sum() for ring in range(1, n // 2)])


@pytest.mark.parametrize("slope", [-5 / 3, -3.0, -4.0])
def test_flow_has_the_asked_slope_speed_and_peak(slope):
    wavelength = 80.0
    spectrum = np.mean([energy_spectrum(sea.stream_function(rng(i), slope, wavelength)) for i in range(100)], axis=0)
    k = np.arange(1, len(spectrum) + 1)
    beyond = (k >= 7) & (k <= 23)  # from twice the peak to the shortest wave
    assert np.polyfit(np.log(k[beyond]), np.log(spectrum[beyond]), 1)[0] == pytest.approx(slope, abs=0.15)
    assert np.sqrt(spectrum.sum()) == pytest.approx(1.0, rel=0.05)
    assert k[spectrum.argmax()] == pytest.approx(sea.DOMAIN_WIDTH / wavelength, abs=1.5)
    assert spectrum[k > sea.DOMAIN_WIDTH / sea.SHORTEST_WAVE + 1].max() < 1e-10


def test_flow_has_no_preferred_direction():
    flows = np.stack([sea.velocity(sea.stream_function(rng(i), -3.0, 80.0)) for i in range(200)])
    u, v = flows.real, flows.imag
    assert np.mean(u**2) == pytest.approx(np.mean(v**2), rel=0.1)
    assert np.mean(u * v) == pytest.approx(0.0, abs=0.05)


def test_velocity_has_no_divergence():
    flow = sea.velocity(sea.stream_function(rng(), -5 / 3, 80.0))
    u, v = flow.real.astype(np.float64), flow.imag.astype(np.float64)
    du_dx = (np.roll(u, -1, axis=1) - np.roll(u, 1, axis=1)) / (2 * CELL)
    dv_dy = (np.roll(v, -1, axis=0) - np.roll(v, 1, axis=0)) / (2 * CELL)
    assert np.std(du_dx) > 0.01
    assert np.abs(du_dx + dv_dy).max() < 1e-6


def test_velocity_of_a_plane_wave():
    y, x = np.mgrid[: sea.FLOW_CELLS, : sea.FLOW_CELLS] * CELL
    p, q = 2 * np.pi * 2 / sea.DOMAIN_WIDTH, 2 * np.pi * 1 / sea.DOMAIN_WIDTH
    flow = sea.velocity(np.sin(p * x + q * y).astype(np.float32))
    np.testing.assert_allclose(flow.real, -q * np.cos(p * x + q * y), atol=0.02 * p)
    np.testing.assert_allclose(flow.imag, p * np.cos(p * x + q * y), atol=0.02 * p)


def test_an_eddy_is_fastest_at_its_radius_and_turns_by_its_sign():
    radius, speed = 20.0, -15.0
    eddy = sea.Eddies(*(np.array([value], kind) for value, kind in [(0, "c8"), (radius, "f4"), (speed, "f4")]))
    r = np.linspace(1, 60, 600)
    psi = eddy.stream_function((r + 0j).astype(np.complex64)[None])[0].astype(np.float64)
    v = np.gradient(psi, r)  # on the x axis the water of an anticlockwise eddy moves along +y
    assert r[np.abs(v).argmax()] == pytest.approx(radius, abs=0.5)
    assert v[np.abs(v).argmax()] == pytest.approx(speed, rel=0.01)
    assert v[20] / r[20] == pytest.approx(np.sign(speed) * eddy.fastest_turn(), rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_eddies_stay_apart_inside_the_cutout(seed):
    eddies = sea.draw_eddies(rng(seed), 1, 4)
    assert 1 <= len(eddies.centre) <= 4
    assert max(np.abs(eddies.centre.real).max(), np.abs(eddies.centre.imag).max()) < sea.CUTOUT_WIDTH / 2
    assert np.abs(eddies.centre[0]) < 0.4 * sea.CUTOUT_WIDTH
    for i, j in zip(*np.triu_indices(len(eddies.centre), 1), strict=True):
        assert np.abs(eddies.centre[i] - eddies.centre[j]) > eddies.radius[i] + eddies.radius[j]


# ---------------------------------------------------------------- tracer


def test_sample_agrees_with_values_planes_and_periods():
    field = rng().standard_normal((8, 8)).astype(np.float32)
    cell = sea.DOMAIN_WIDTH / 8
    points = sea.plane(np.arange(8, dtype=np.float32) * cell)
    np.testing.assert_array_equal(sea.sample(field, points), field)
    np.testing.assert_array_equal(sea.sample(field, points - sea.DOMAIN_WIDTH * (3 - 2j)), field)
    quarter = sea.sample(field, points + cell / 4)
    np.testing.assert_allclose(quarter, 0.75 * field + 0.25 * np.roll(field, -1, axis=1), atol=1e-6)


def test_stirring_makes_no_new_extremes():
    tracer = rng(1).uniform(-1, 1, (64, 64)).astype(np.float32)
    flow = sea.draw_flow(rng(2), sea.RECIPES["filaments"])
    stirred = sea.sample(tracer, sea.trace_back(ocean._pixels(64), flow, days=10.0))
    assert stirred.min() >= tracer.min()
    assert stirred.max() <= tracer.max()
    assert stirred.std() > 0.5 * tracer.std()


@pytest.mark.parametrize("days", [0.3, 4.0])
def test_uniform_flow_moves_a_blob_by_speed_times_time(days):
    speed = 5.0 - 2.0j  # km per day
    here = ocean._pixels(64)
    flow = steady_flow(np.full((64, 64), speed, np.complex64))
    blob = np.exp(-(np.abs(sea.trace_back(here, flow, days)) ** 2) / (2 * 10.0**2)).astype(np.float64)
    assert np.sum(here * blob) / blob.sum() == pytest.approx(speed * days, abs=0.05)


def test_water_stays_on_its_circle_around_an_eddy():
    radius, speed = np.float32(sea.EDDY_RADIUS[0]), np.float32(sea.EDDY_SPEED[1] * sea.KM_PER_DAY)
    eddy = sea.Eddies(np.zeros(1, np.complex64), np.array([radius]), np.array([speed]))
    axis = np.fft.fftfreq(sea.FLOW_CELLS, 1 / sea.DOMAIN_WIDTH).astype(np.float32)
    flow = steady_flow(sea.velocity(eddy.stream_function(sea.plane(axis))), sea.TURN / eddy.fastest_turn())
    here = np.array([radius, 2 * radius, 3j * radius], np.complex64)
    was = sea.trace_back(here, flow, days=3.0)
    np.testing.assert_allclose(np.abs(was), np.abs(here), rtol=0.1)
    assert np.angle(sea.trace_back(here[:1], flow, days=0.1) / here[:1]) < 0  # it came from behind


def test_random_flow_changes_with_constant_energy():
    flow = sea.draw_flow(rng(4), sea.RECIPES["filaments"])
    today, later = flow.at(0.0), flow.at(sea.FLOW_MEMORY)
    assert np.abs(np.vdot(today, later)) < 0.5 * np.linalg.norm(today) * np.linalg.norm(later)
    assert np.linalg.norm(later) == pytest.approx(np.linalg.norm(today), rel=0.5)


def test_buoyancy_is_the_wavenumber_times_the_stream_function():
    y, x = np.mgrid[:64, :64] / 64 * 2 * np.pi
    psi = (np.cos(3 * x) + np.cos(5 * y)).astype(np.float32)
    fine_y, fine_x = np.mgrid[:128, :128] / 128 * 2 * np.pi
    expected = 3 * np.cos(3 * fine_x) + 5 * np.cos(5 * fine_y)
    buoyancy = ocean.surface_buoyancy(psi)
    assert np.corrcoef(buoyancy.ravel(), expected.ravel())[0, 1] > 0.9999


def test_a_front_parts_two_water_masses_and_a_gradient_is_even():
    here = ocean._pixels(64)
    front = ocean.background(rng(5), here, front=1.5)
    assert np.mean(np.abs(front) > 0.9) > 0.9
    assert front.min() == pytest.approx(-1, abs=0.01)
    assert front.max() == pytest.approx(1, abs=0.01)
    along_y, along_x = np.gradient(ocean.background(rng(5), here, front=None))
    np.testing.assert_allclose(np.hypot(along_x, along_y) * 64, 1.0, atol=1e-3)


# ---------------------------------------------------------------- sensor


def test_footprint_keeps_planes_and_takes_the_rim():
    y, x = np.mgrid[:20, :20].astype(np.float32)
    rim = ocean.FOOTPRINT_PASSES
    np.testing.assert_allclose(ocean.footprint(2 * x - y), (2 * x - y)[rim:-rim, rim:-rim], atol=1e-5)


def test_noise_has_the_asked_strength_and_leaves_the_water():
    clean, noisy = (synthetic_ocean(10, noise=noise)[0] for noise in (0.0, 0.05))
    assert np.std(noisy - clean) == pytest.approx(0.05, rel=0.02)


def test_stripes_are_constant_along_scan_lines():
    clean, striped = (synthetic_ocean(10, noise=0.0, stripes=stripes)[0] for stripes in (0.0, 0.2))
    difference = striped - clean
    assert np.ptp(difference, axis=-1).max() < 1e-5
    assert np.std(difference[..., 0]) == pytest.approx(0.2, rel=0.1)


def test_clouds_take_their_fraction_in_blobs_and_leave_the_rest():
    clear, cloudy = (synthetic_ocean(10, cloud_fraction=fraction)[0] for fraction in (0.0, 0.3))
    hidden = np.isnan(cloudy)
    np.testing.assert_array_equal(hidden.sum((1, 2, 3)), int(0.3 * 64**2))
    np.testing.assert_array_equal(cloudy[~hidden], clear[~hidden])
    edges = np.mean(hidden[..., 1:] != hidden[..., :-1])
    assert edges < 0.5 * 2 * 0.3 * 0.7  # scattered pixels would have 2 p (1 - p)


# ---------------------------------------------------------------- cutout


@pytest.mark.parametrize("size", [16, 33, 64])
def test_images_are_finite_kelvin_of_the_asked_shape(size):
    images, labels = synthetic_ocean(12, size=size)
    assert images.shape == (12, 1, size, size)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert np.isfinite(images).all()
    np.testing.assert_allclose(images.mean((1, 2, 3)), 0.0, atol=1e-5)
    assert np.abs(images).max() < 10
    assert labels.shape == (12,)
    assert labels.dtype == np.int64


def test_contrast_is_within_its_range():
    std = synthetic_ocean(100, size=32, noise=0.0)[0].std((1, 2, 3))
    low, high = ocean.CONTRAST
    assert low * 0.999 < std.min() < 1.5 * low
    assert high / 1.5 < std.max() < high * 1.001


def test_the_same_seed_gives_the_same_bytes():
    first, second = (synthetic_ocean(12, seed=7, cloud_fraction=0.2, stripes=0.1) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_a_cutout_does_not_depend_on_the_number_of_cutouts():
    few, many = synthetic_ocean(7, size=32), synthetic_ocean(23, size=32)
    np.testing.assert_array_equal(few[0], many[0][:7])
    np.testing.assert_array_equal(few[1], many[1][:7])


def test_seeds_streams_and_cutouts_differ():
    images = np.concatenate([synthetic_ocean(5, seed=seed, stream=stream)[0] for seed in (0, 1) for stream in (0, 1)])
    correlation = np.corrcoef(images.reshape(len(images), -1))
    assert np.abs(correlation - np.eye(len(images))).max() < 0.98


def test_a_smaller_size_is_a_coarser_view_of_the_same_sea():
    fine, coarse = (synthetic_ocean(10, size=size, noise=0.0)[0][:, 0] for size in (64, 32))
    binned = fine.reshape(10, 32, 2, 32, 2).mean((2, 4))
    for one, other in zip(binned, coarse, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


def test_labels_are_balanced_and_shuffled():
    labels = synthetic_ocean(62, size=16)[1]
    counts = np.bincount(labels, minlength=len(REGIMES))
    assert np.ptp(counts) <= 1
    groups = labels[:60].reshape(-1, len(REGIMES))
    assert all(sorted(group) == list(range(len(REGIMES))) for group in groups)
    assert len({tuple(group) for group in groups}) > 6


# ---------------------------------------------------------------- regimes: told by pattern, not by trivial numbers


def radial_spectrum(images):
    """Log share of the variance in rings of wavenumber, [N, rings]; a plane is taken off and the edges are tapered."""
    n = images.shape[-1]
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    plane = np.stack([np.ones(n * n), x.ravel(), y.ravel()], axis=1)
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat = flat - flat @ plane @ np.linalg.inv(plane.T @ plane) @ plane.T
    window = np.outer(np.hanning(n), np.hanning(n))
    power = np.abs(np.fft.fft2(flat.reshape(-1, n, n) * window)) ** 2
    waves = np.fft.fftfreq(n, 1 / n)
    rings = np.round(np.hypot(waves[:, None], waves[None, :])).astype(int)
    spectrum = np.stack([power[:, rings == ring].sum(1) for ring in range(1, n // 2)], axis=1)
    return np.log(spectrum / spectrum.sum(1, keepdims=True))


def steepness(images):
    """Log of gradient quantiles over the median gradient, [N, 5]."""
    gradient = np.hypot(*np.gradient(images[:, 0], axis=(1, 2))).reshape(len(images), -1)
    return np.log(np.quantile(gradient, [0.1, 0.25, 0.75, 0.9, 0.98], axis=1) / np.median(gradient, axis=1)).T


def test_small_scales_are_ordered_as_designed():
    images, labels = synthetic_ocean(150, noise=0.0, seed=1)
    share = np.exp(radial_spectrum(images)[:, 5:]).sum(1)  # waves shorter than 21 km
    median = {name: np.median(share[labels == i]) for i, name in enumerate(REGIMES)}
    assert median["quiescent"] < median["eddies"] < median["front"]
    assert median["eddies"] < median["filaments"] < median["submesoscale"]


def test_a_front_has_the_sharpest_step():
    images, labels = synthetic_ocean(100, noise=0.0, seed=1)
    sharpness = steepness(images)[:, -1]
    median = {name: np.median(sharpness[labels == i]) for i, name in enumerate(REGIMES)}
    assert max(median, key=median.get) == "front"


def nearest_mean(train, labels, valid):
    means = np.stack([train[labels == regime].mean(0) for regime in range(len(REGIMES))])
    return np.linalg.norm(valid[:, None] - means, axis=-1).argmin(1)


def five_nearest(distance, labels):
    """Majority label of the five nearest neighbours by `distance` [valid, train]."""
    neighbours = labels[np.argsort(distance, axis=1)[:, :5]]
    return np.stack([(neighbours == regime).sum(1) for regime in range(len(REGIMES))], axis=1).argmax(1)


def test_variance_does_not_tell_the_regime(train, valid):
    spread, other = (np.log(images.std((1, 2, 3)))[:, None] for images, _ in (train, valid))
    assert np.mean(nearest_mean(spread, train[1], other) == valid[1]) < 0.3
    by_regime = [spread[train[1] == regime] for regime in range(len(REGIMES))]
    assert max(values.min() for values in by_regime) < np.log(0.2)
    assert min(values.max() for values in by_regime) > np.log(0.9)


def test_pixels_do_not_tell_the_regime(train, valid):
    near, far = (images.reshape(len(images), -1) for images, _ in (train, valid))
    near, far = (flat / np.linalg.norm(flat, axis=1, keepdims=True) for flat in (near, far))
    assert np.mean(five_nearest(-far @ near.T, train[1]) == valid[1]) < 0.4


def test_the_pattern_tells_the_regime(train, valid):
    near, far = (np.hstack([radial_spectrum(images), steepness(images)]) for images, _ in (train, valid))
    distance = np.linalg.norm((far[:, None] - near) / near.std(0), axis=-1)
    assert np.mean(five_nearest(distance, train[1]) == valid[1]) > 0.85


# ---------------------------------------------------------------- file


def test_file_has_the_promised_layout(tmp_path):
    path = tmp_path / "new" / "ocean.h5"
    write_ocean(path, 20, 6, size=32, seed=5)
    with h5py.File(path) as file:
        assert set(file) == {"train", "valid", "train_labels", "valid_labels"}
        assert list(file.attrs["class_names"]) == list(REGIMES)
        assert "seed=5" in file.attrs["description"]
        for stream, (name, number) in enumerate([("train", 20), ("valid", 6)]):
            images, labels = synthetic_ocean(number, size=32, seed=5, stream=stream)
            assert file[name].dtype == np.float32
            assert file[name].chunks == (min(16, number), 1, 32, 32)
            assert file[name].compression == "gzip"
            assert file[name].attrs["units"] == "K"
            np.testing.assert_array_equal(file[name][:], images)
            np.testing.assert_array_equal(file[f"{name}_labels"][:], labels)
            assert file[f"{name}_labels"].dtype == np.int64
    assert [entry.name for entry in path.parent.iterdir()] == ["ocean.h5"]


def test_train_and_valid_share_no_field(tmp_path):
    write_ocean(tmp_path / "ocean.h5", 10, 10, size=32, noise=0.0)
    with h5py.File(tmp_path / "ocean.h5") as file:
        train, valid = (file[name][:].reshape(10, -1) for name in ("train", "valid"))
    assert np.abs(np.corrcoef(train, valid)[:10, 10:]).max() < 0.98


def test_the_same_seed_gives_the_same_file(tmp_path):
    digests = set()
    for name in ("a.h5", "b.h5"):
        write_ocean(tmp_path / name, 5, 5, size=16, cloud_fraction=0.1)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "ocean.h5"
    path.write_text("older")
    monkeypatch.setattr(ocean, "_cutout", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_ocean(path, 5, 5, size=16)
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ocean.h5"]


# ---------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_cutouts", 0),
        ("size", 15),
        ("seed", -1),
        ("stream", -1),
        ("noise", -0.1),
        ("noise", np.nan),
        ("noise", np.inf),
        ("stripes", -0.1),
        ("cloud_fraction", 1.0),
        ("cloud_fraction", -0.1),
    ],
)
def test_a_bad_argument_is_named(argument, value):
    with pytest.raises(DataError, match=f"{argument}={value}"):
        synthetic_ocean(**{"num_cutouts": 2, argument: value})


def test_all_bad_arguments_are_named_at_once():
    with pytest.raises(DataError, match=r"size=3.*seed=-2"):
        synthetic_ocean(2, size=3, seed=-2)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_both_sets_need_a_cutout(tmp_path, numbers):
    with pytest.raises(DataError, match=r"num_.*=0"):
        write_ocean(tmp_path / "ocean.h5", *numbers)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NenyaError, match="cannot write"):
        write_ocean(tmp_path / "file" / "ocean.h5", 1, 1, size=16)
