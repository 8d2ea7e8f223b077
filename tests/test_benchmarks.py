"""The benchmarks: every part runs, and what is compared computes the same thing."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F

from benchmarks import conventional, imagery, learning, lightly, measure, parts, recipe, results
from benchmarks.__main__ import main
from benchmarks.lars import Lars, lars
from benchmarks.parts import embedding_atlas, portal
from benchmarks.parts.reading import fancy, reading_loader, reopened
from benchmarks.parts.step import options
from nenya.data.augment import Views, affine_map
from nenya.evaluation.health import view_retrieval
from nenya.kernels import FastConv2d
from nenya.losses import SupConLoss
from nenya.params import Params, complete_options
from nenya.training.build import set_model


@pytest.mark.parametrize("compressed", [True, False])
def test_all_ways_of_reading_give_the_same_pixels(tmp_path, compressed):
    file = imagery.write(tmp_path / "cutouts.h5", 150, compressed=compressed)
    with h5py.File(file) as opened:
        truth = opened["train"][...]
        rows = np.array([149, 3, 64, 63])
        np.testing.assert_array_equal(fancy(opened["train"], rows), truth[rows])
    np.testing.assert_array_equal(reopened(file, rows), truth[rows])
    seen = []
    for batch in reading_loader(options(file, 64, 50)):
        np.testing.assert_array_equal(batch.view1.numpy(), truth[batch.rows.numpy()])
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(150))


@pytest.mark.parametrize(("mirror", "angle", "shift"), [((False, True), 0, (5, -3)), ((True, False), 33, (-2, 4))])
def test_the_conventional_view_is_the_same_part_of_the_cutout(mirror, angle, shift):
    y, x = np.mgrid[0:64, 0:64] / 64
    image = (np.sin(7 * x + 2 * y) + np.cos(5 * y * x + 1)).astype(np.float32)
    theirs = conventional.make_view(image, mirror=mirror, angle=angle, shift=shift, window=40, size=64)
    views = Views(64, 64, (64, 64), crop=None, flip=False, rotate=False, noise=0, demean=True, seed=0)
    maps = affine_map(
        torch.tensor([[40.0, 40.0]], dtype=torch.float64),
        torch.tensor([shift], dtype=torch.float64),
        torch.tensor([angle], dtype=torch.float64),
        1 - 2 * torch.tensor([mirror], dtype=torch.float64),
        64,
        64,
    )
    ours = views.warp(torch.from_numpy(image)[None, None], maps)[0]
    inside = (slice(None), slice(12, 52), slice(12, 52))  # the corners look beyond the frame, each its own way
    difference = (ours - ours.mean())[inside] - torch.from_numpy(theirs)[inside]
    # interpolating three times instead of once blurs a little; the mean differs by what the corners hold
    assert (difference - difference.mean()).abs().max() < 0.01 * float(ours.std())


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 2, 2, 2]])
def test_the_textbook_loss_is_the_same_number_with_the_same_gradient(labels):
    z = F.normalize(torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(1)), dim=2)
    labels = None if labels is None else torch.tensor(labels)
    values, gradients = [], []
    for loss in (conventional.supcon_loss, SupConLoss()):
        features = z.clone().requires_grad_()
        values.append(loss(features, labels))
        values[-1].backward()
        gradients.append(features.grad)
    assert float(values[0].detach()) == pytest.approx(float(values[1].detach()), rel=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_conventional_network_is_the_same_function(tmp_path, narrow):
    file = imagery.write(tmp_path / "cutouts.h5", 8, compressed=False)
    theirs, _ = conventional.make_model("resnet18", seed=0)
    assert not any(isinstance(module, FastConv2d) for module in theirs.modules())  # torch's own
    torch.manual_seed(0)
    ours, _ = set_model(options(file, 16, 4), cuda_use=False)
    images = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(theirs(images.repeat(1, 3, 1, 1)), ours(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", parts.NAMES)
def test_every_part_gives_rows_or_says_why_not(tmp_path, narrow, part):
    page = tmp_path / "RESULTS.md"
    main([part, "--quick", "--out", str(page)])
    section = json.loads((tmp_path / "results.json").read_text())[part]
    browser = portal.find_chromium()
    left_out = {
        "cuda": not torch.cuda.is_available(),
        "portal": browser is None,
        "embedding_atlas": browser is None or embedding_atlas.find_command() is None,
    }
    assert bool(section["skipped"]) == left_out.get(part, False)
    assert section["skipped"] or all(table["rows"] for table in section["tables"])
    assert all(len(row) == len(table["columns"]) for table in section["tables"] for row in table["rows"])
    assert f"## {section['title']}\n" in page.read_text()


def test_without_names_all_run_but_those_on_demand_in_the_order_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "load", lambda name: lambda quick, folder: results.Section(name, "How.", skipped="no"))
    main(["--quick", "--out", str(tmp_path / "RESULTS.md")])
    usual = [name for name in parts.NAMES if name not in parts.ON_DEMAND]
    assert list(json.loads((tmp_path / "results.json").read_text())) == usual
    main([*reversed(parts.ON_DEMAND), "--quick", "--out", str(tmp_path / "RESULTS.md")])
    titles = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("## ")]
    assert titles == [f"## {name}" for name in parts.NAMES]


def test_a_part_that_is_skipped_leaves_what_was_measured(tmp_path):
    page = tmp_path / "RESULTS.md"
    measured = results.Section("GPU", "How.", [results.Table(["a"], [["1"]])])
    results.record(page, "cuda", results.Section("GPU", "How.", skipped="none here"), parts.NAMES)
    assert "Not measured: none here" in page.read_text()
    results.record(page, "cuda", measured, parts.NAMES)
    results.record(page, "cuda", results.Section("GPU", "How.", skipped="none here"), parts.NAMES)
    assert "| 1 |" in page.read_text()


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no part 'speed'" in capsys.readouterr().err


def test_a_bar_is_met_on_its_own_side_of_the_bound():
    assert results.Bar("speed", 2.0, 2.0).met
    assert not results.Bar("speed", 1.9, 2.0).met
    assert not results.Bar("memory", 2.1, 2.0, at_most=True).met


def test_ratios_are_formed_within_rounds():
    turns = []
    measured = measure.interleave({"a": lambda: turns.append("a") or 6.0, "b": lambda: turns.append("b") or 2.0}, 2)
    assert turns == ["a", "b", "a", "b"]
    assert measure.ratio(measured["a"], [2.0, 3.0]).values == [3.0, 2.0]


def test_a_pass_is_timed_without_its_first_step():
    assert measure.steady_rate([100.0, 102.0, 104.0], batch_size=8) == 4  # the first step may have taken any time


WORK = """
def hold(megabytes):
    b"x" * (4 * megabytes * 2**20)  # a peak before the work, which is not the work's
    return lambda: (b"x" * (megabytes * 2**20)).count(b"x")
"""


def test_a_fresh_process_sees_the_peak_of_the_work_alone(tmp_path, monkeypatch):
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert measure.fresh("work:hold", megabytes=64).added == pytest.approx(64 * 2**20, rel=0.1)


def test_a_failure_in_a_fresh_process_is_said_aloud():
    with pytest.raises(RuntimeError, match="no_such_module"):
        measure.fresh("no_such_module:work")


def test_equal_time_needs_the_rates_and_scales_the_epochs():
    cells = {cell.name: cell for cell in learning.all_cells()}
    rates = {"rates": {"32": [40.0, 20.0, 90.0], "64": [10.0, 10.0, 10.0]}}  # four, two and nine times as long
    assert learning.epochs_of(cells["sst/64/time"], rates) == 2  # of 8
    assert learning.epochs_of(cells["sst/64/epochs"], None) == 8


def test_equal_time_without_rates_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="sst/64/time asks for equal time: run --cells rates first"):
        learning.main([str(tmp_path), "--cells", "sst/64/time", "--out", str(tmp_path / "runs.jsonl")])
    assert not (tmp_path / "runs.jsonl").exists()


def test_every_size_is_measured_in_every_round(tmp_path, narrow):
    with h5py.File(tmp_path / "sst_slstr_dev.h5", "w") as file:
        file["train"] = np.random.default_rng(0).normal(size=(64, 1, 44, 44)).astype(np.float32)
        file["valid"] = file["train"][:8]
    row = learning.step_rates(tmp_path, sizes=(32, 40), rounds=2, steps=1)
    assert row["cell"] == "rates"
    assert all(len(rates) == 2 and min(rates) > 0 for rates in row["rates"].values())
    assert list(row["rates"]) == ["32", "40"]


def test_the_tables_of_what_is_learned_say_what_was_not_run():
    row = {"cell": "bt11/bf16/1", "seed": 1, "experiment": "bt11", "retrieval": 0.5, "knn": 0.75, "epochs": 12}
    sized = row | {"cell": "bt11/64/time", "retrieval_untrained": 0.25, "epochs": 4}
    rates = {"cell": "rates", "rates": {"32": [4.0], "40": [2.0], "64": [1.0]}}
    places = {"environment": {"machine": "m", "commit": "c0ffee0"}}
    page = learning.page([row | places, rates | places, sized | places])
    assert "| bt11 | bf16 | 1 | 0.500 | 0.750 | c0ffee0 |" in page
    assert "| bt11 | fp32 |  | not run | not run |  |" in page
    assert "| sst | 40 | 2.0 | not run |" in page
    # 4 epochs that take four times as long as 12 at the reference size
    assert "| bt11 | 64 | 4.0 | 0.250 | not run | not run | not run | 1.33 | 4 | 0.500 | 0.750 | c0ffee0 |" in page


def test_lightly_is_left_out_aloud_or_measured_like_the_rest(tmp_path, narrow, quick_pictures, monkeypatch, capfd):
    with h5py.File(tmp_path / "sst_slstr_dev.h5", "w") as file:
        file["train"] = np.random.default_rng(0).normal(size=(128, 1, 64, 64)).astype(np.float32)
        file["valid"] = file["train"][:20]
    monkeypatch.setattr(recipe, "COMMON", recipe.COMMON | {"on_collapse": "warn"})
    monkeypatch.setattr(lightly, "BUDGET", 1)
    rates = {f"{optimizer}/64/{size}": [1.0] for optimizer in ("sgd", "muon") for size in (32, 48)}
    row = {"cell": "recipe/rates", "question": "recipe", "rates": rates}
    out = tmp_path / "runs.jsonl"
    out.write_text(json.dumps(row | {"environment": {"machine": "m", "commit": "c"}}) + "\n")
    learning.main([str(tmp_path), "--cells", "lightly/sst/0", "--out", str(out)])
    told = "lightly/sst/0 is left out: lightly is not installed" in capfd.readouterr().err
    assert told == (not lightly.is_installed())
    rows = [json.loads(line) for line in out.read_text().splitlines()][1:]
    assert len(rows) == int(not told)
    for row in rows:
        assert list(row["sides"]) == [*lightly.ARMS, *lightly.SIDES]
        assert all(0 <= side["retrieval_h"] <= 1 for side in row["sides"].values())


def test_the_table_beside_lightly():
    side = {"seconds": 100.4, "passes": 8, "retrieval_h": 0.5, "retrieval_z": 0.4321, "effective_rank": 89.6}
    row = {"cell": "lightly/sst/0", "question": "lightly", "seed": 0, "sides": {"Nenya, defaults": side}}
    page = learning.page([row | {"environment": {"machine": "m", "commit": "c"}}])
    assert "| Nenya, defaults | 100 | 8.0 | 0.500 | 0.432 | 90 |" in page


def recipe_rates():
    """Muon's steps take 1.25 times as long, views of 48 pixels twice."""
    sgd = {"sgd/64/32": [100.0, 50.0], "sgd/64/48": [50.0, 25.0]}
    muon = {"muon/64/32": [80.0, 40.0], "muon/64/48": [40.0, 20.0], "muon/128/32": [90.0, 45.0]}
    return sgd | muon | {"muon, 5 steps/64/32": [50.0, 25.0]}


def test_an_arm_trains_for_as_long_as_the_defaults_its_own_cost_included():
    rates = recipe_rates()
    assert recipe.epochs_of("defaults", 8, rates) == 8
    assert recipe.epochs_of("sgd by step, 0.4", 8, rates) == 8
    assert recipe.epochs_of("muon", 8, rates) == 6  # 8 / 1.25 = 6.4
    assert recipe.epochs_of("muon, batch 128", 8, rates) == 7  # 8 x 0.9 = 7.2
    assert recipe.epochs_of("muon, 5 steps", 8, rates) == 4
    assert recipe.epochs_of("muon, 32 then 48", 16, rates) == 10  # 16 / (1.25 (0.7 + 2 x 0.3)) = 9.8
    assert recipe.share_of_time("muon", 8, 6, rates) == pytest.approx(6 * 1.25 / 8)
    # 7 of the 10 epochs at 32 pixels
    assert recipe.share_of_time("muon, 32 then 48", 16, 10, rates) == pytest.approx(1.25 * (7 + 3 * 2) / 16)
    cell = next(cell for cell in learning.all_cells() if cell.name == "recipe/sst/8/muon/3")
    assert learning.epochs_of(cell, {"rates": rates}) == 6
    assert (cell.seed, cell.rates) == (3, "recipe/rates")


def test_the_rates_are_those_that_the_arms_ask_for(tmp_path, narrow, monkeypatch):
    with h5py.File(tmp_path / "sst_slstr_dev.h5", "w") as file:
        for key in ("train", "valid"):
            file[key] = np.random.default_rng(0).normal(size=(66, 1, 44, 44)).astype(np.float32)
    arms = {name: recipe.ARMS[name] for name in ("defaults", "muon", "muon, 5 steps", "muon, batch 32")}
    arms["in turn"] = recipe.ARMS["muon"] | {"image_size_schedule": [[8, 0.5], [12, 0.5]]}
    monkeypatch.setattr(recipe, "ARMS", arms)
    monkeypatch.setattr(recipe, "COMMON", recipe.COMMON | {"image_size": 8})
    rates = recipe.step_rates(tmp_path, "sst", rounds=2, cutouts=33)
    assert sorted(rates) == ["muon, 5 steps/64/8", "muon/32/8", "muon/64/12", "muon/64/8", "sgd/64/8"]
    assert all(len(of_round) == 2 and min(of_round) > 0 for of_round in rates.values())
    assert all(recipe.epochs_of(arm, 8, rates) >= 1 for arm in arms)


def test_the_page_of_what_is_learned_is_that_of_its_runs():
    runs = learning.load(Path(learning.__file__).with_name("learning.jsonl"))
    assert learning.page(runs) == Path(learning.__file__).with_name("LEARNING.md").read_text()


def test_the_options_of_every_arm_are_options_with_an_effect(tmp_path, caplog):
    for arm in recipe.ARMS:
        opt = Params.from_dict(recipe.options_of("sst", arm, 4, tmp_path) | {"model_root": str(tmp_path)})
        complete_options(opt)
        if opt.warm:
            assert opt.warm_epochs == 0.4
    assert caplog.text == ""


def test_lars_moves_a_matrix_by_a_share_of_its_length_and_a_vector_by_its_gradient():
    torch.manual_seed(0)
    matrix, vector = torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(3))
    optimizer = Lars([matrix, vector], lr=2.0, momentum=0.5)
    before = matrix.detach().clone(), vector.detach().clone()
    length = float(before[0].norm())
    matrix.grad, vector.grad = torch.randn(3, 4), torch.ones(3)
    optimizer.step()
    assert float((matrix - before[0]).detach().norm()) == pytest.approx(2 * 1e-3 * length, rel=1e-5)
    torch.testing.assert_close(vector.detach(), before[1] - 2)
    turned = (before[0] - matrix).detach() / matrix.grad
    torch.testing.assert_close(turned, turned[0, 0].expand(3, 4), rtol=1e-3, atol=0)  # along the gradient
    matrix.grad, vector.grad = None, torch.zeros(3)
    optimizer.step()  # by the momentum alone
    torch.testing.assert_close(vector.detach(), before[1] - 3)


def test_an_arm_without_an_option_trains_by_its_own_optimizer(tmp_path, narrow, quick_pictures, monkeypatch):
    with h5py.File(tmp_path / "sst_slstr_dev.h5", "w") as file:
        for key in ("train", "valid"):
            file[key] = np.random.default_rng(0).normal(size=(66, 1, 44, 44)).astype(np.float32)
    rates = []

    def noting(opt, model):
        rates.append(opt.learning_rate)
        return lars(opt, model)

    monkeypatch.setitem(recipe.OTHER_OPTIMIZERS, "lars, 4", noting)
    monkeypatch.setattr(recipe, "EVALUATION_SIZES", (8,))
    monkeypatch.setattr(recipe, "COMMON", recipe.COMMON | {"image_size": 8, "on_collapse": "warn"})
    recipe.figures("sst", "lars, 4", 1, 0, tmp_path)
    recipe.figures("sst", "defaults", 1, 0, tmp_path)
    assert rates == [4.0]


def test_hits_are_those_of_view_retrieval_and_what_overlaps_is_left_out():
    views = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 40, 6)).astype(np.float32))
    views[1] += 1.5 * views[0]
    hits = recipe.hits_of(views, None)
    assert hits.mean() / 2 == pytest.approx(view_retrieval(*views)[0])
    assert 0.2 < hits.mean() / 2 < 0.8
    left_out = np.abs(np.arange(40)[:, None] - np.arange(40)) < 10
    expected = np.zeros(40)
    a, b = F.normalize(views, dim=2).double().numpy()
    for own in range(40):
        others = [other for other in range(40) if abs(other - own) >= 10]
        expected[own] += all(a[own] @ b[own] > a[own] @ b[other] for other in others)
        expected[own] += all(a[own] @ b[own] > a[other] @ b[own] for other in others)
    np.testing.assert_array_equal(recipe.hits_of(views, left_out), expected)
    assert expected.sum() > hits.sum()
    assert not recipe.hits_of(torch.ones(2, 5, 3), None).any()


def test_the_interval_of_a_difference_is_paired_by_blocks_and_seeds():
    def row(arm, seed, hits):
        blocks = [[2, own, own] for own in hits]
        return {"arm": arm, "seed": seed, "at": {"32": {"trained": {"blocks": blocks}}}}

    rows = [row("defaults", 0, [0, 1, 2, 0]), row("muon", 0, [1, 2, 3, 1]), row("muon", 1, [9, 9, 9, 9])]
    # one hit more in every block, and no other arm of seed 1
    assert recipe.interval_of_difference(rows, "muon", 32) == pytest.approx((0.5, 0.5))
    rows = [row("defaults", 0, [0] * 10), row("muon", 0, [0, 2] * 5)]
    low, high = recipe.interval_of_difference(rows, "muon", 32)
    assert 0.1 <= low < 0.5 < high <= 0.9


def test_a_cell_of_the_recipe_is_trained_and_measured_at_each_size(tmp_path, narrow, quick_pictures, monkeypatch):
    rng = np.random.default_rng(0)
    counts = {"train": 66, "valid": 20}
    with h5py.File(tmp_path / "sst_slstr_dev.h5", "w") as file:
        for key, count in counts.items():
            file[key] = rng.normal(size=(count, 1, 44, 44)).astype(np.float32)
            file[f"{key}_labels"] = np.arange(count) % 2
    frame = pyarrow.table(
        {
            "pp_type": [key for key, count in counts.items() for _ in range(count)],
            "pp_idx": [row for count in counts.values() for row in range(count)],
            "region": ["a"] * 76 + ["b"] * 10, "row": np.arange(86) * 22, "col": [0] * 86,
            "lat": rng.uniform(0, 60, 86), "lon": rng.uniform(0, 60, 86), "DT": rng.uniform(0, 2, 86),
        }
    )  # fmt: skip
    pyarrow.parquet.write_table(frame, tmp_path / "sst_slstr_dev.parquet")
    out = tmp_path / "runs.jsonl"
    monkeypatch.setattr(recipe, "EVALUATION_SIZES", (8, 12))
    monkeypatch.setattr(
        recipe, "COMMON", recipe.COMMON | {"image_size": 8, "on_collapse": "warn", "random_jitter": [40, 2]}
    )
    monkeypatch.setitem(
        recipe.ARMS, "muon, 32 then 48", recipe.ARMS["muon"] | {"image_size_schedule": [[8, 0.5], [12, 0.5]]}
    )
    rates = {
        "cell": "recipe/rates",
        "question": "recipe",
        "rates": {f"{o}/64/{s}": [1.0] for o in ("sgd", "muon") for s in (8, 12)},
    }
    out.write_text(json.dumps(rates | {"environment": {"machine": "m", "commit": "c"}}) + "\n")
    cells = ["recipe/sst/2/defaults/0", "recipe/sst/2/muon, 32 then 48/0"]
    learning.main([str(tmp_path), "--cells", *cells, "--out", str(out)])
    _, first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert [first["arm"], second["arm"]] == ["defaults", "muon, 32 then 48"]
    for row in (first, second):
        assert row["at"].keys() == {"8", "12"}
        for at in row["at"].values():
            assert at["trained"].keys() == at["untrained"].keys() == {*recipe.FIGURES, "blocks"}
            views, hits, apart = np.sum(at["trained"]["blocks"], axis=0)
            assert views == 40
            assert (hits / 40, apart / 40) == (at["trained"]["retrieval"], at["trained"]["retrieval_apart"])
    for size in ("8", "12"):  # the same network, seen at the same size
        assert first["at"][size]["untrained"] == second["at"][size]["untrained"]
    assert first["at"]["8"]["untrained"] != first["at"]["12"]["untrained"]
    page = (tmp_path / "RUNS.md").read_text()
    assert "### Views of 12 pixels" in page
    assert "| sst | 2 | muon, 32 then 48 | 2 | 1.00 | 0 |" in page
    more = second["at"]["8"]["trained"]["r2_dt"] - first["at"]["8"]["trained"]["r2_dt"]
    assert f"; {more:+.3f}" in page
