"""Options: what loads, what is refused and how, and that what is saved is the same again."""

import copy
import io
import itertools
import json
import logging
import os
import pickle

import json5
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nenya.errors import OptionError
from nenya.options import ALIASES, Options, output_root, table
from nenya.options.reading import parse_assignments
from nenya.options.reference import as_markdown, as_text
from nenya.params import Params, complete_options, option_preprocess

PAGE_BLOCK = """{
  "ssl_method": "SimCLR",     // Training method (SimCLR or SupCon)
  "ssl_model": "resnet50",    // Backbone model
  "learning_rate": 0.05,      // Initial learning rate
  "batch_size_train": 64,     // Batch size for training
  "batch_size_valid": 64,     // Batch size for validation
  "epochs": 200,              // Number of epochs
  "feat_dim": 128,            // Feature dimension size
  "temp": 0.07,               // Temperature parameter for loss
  "weight_decay": 1e-4,       // Weight decay for optimizer
  "momentum": 0.9,            // Momentum for optimizer
  "cosine": true,             // Use cosine learning rate schedule
  "random_jitter": [5, 5],    // Jitter parameters for augmentation
  "model_root": "models/v5",  // Root directory for model output
  "train_key": "train",       // Dataset key for training
  "valid_key": "valid",       // Dataset key for validation
  "save_freq": 10,            // Save checkpoint every N epochs
  "valid_freq": 5             // Validate every N epochs
}"""

RUN_NAME = "SimCLR_resnet50_lr_0.05_decay_0.0001_bsz_64_temp_0.07_trial_0_cosine"


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "opts.json"
        path.write_text(text)
        return Params(path)

    return load


@pytest.fixture
def refusal(load):
    def refusal(text):
        with pytest.raises(OptionError) as caught:
            load(text)
        return str(caught.value)

    return refusal


def test_the_pages_block_parses_and_holds_the_defaults(load):
    page = load(PAGE_BLOCK)
    assert page.dict == load("{}").dict
    assert page.epochs == 200
    assert page.weight_decay == pytest.approx(1e-4, rel=1e-12)
    assert page.random_jitter == (5, 5)


def test_trailing_commas_and_byte_order_mark(load):
    assert load('\ufeff{"epochs": 3,}').epochs == 3


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("method", "SupCon", {"ssl_method": "SupCon"}),
        ("model", "resnet18", {"ssl_model": "resnet18"}),
        ("batch_size", 32, {"batch_size_train": 32, "batch_size_valid": 32}),
        ("valid_batch_size", 16, {"batch_size_valid": 16}),
        ("data_key", "a", {"train_key": "a"}),
        ("eval_key", "b", {"valid_key": "b"}),
        ("train_batch_size", 16, {"batch_size_train": 16}),
        ("batch_size_eval", 16, {"batch_size_valid": 16}),
        ("modis_file", "c.h5", {"images_file": "c.h5"}),
        ("train_folder", "d", {"data_folder": "d"}),
        ("random_cropjitter", [22, 3], {"random_jitter": (22, 3)}),
    ],
)
def test_old_names(load, old, value, new):
    opt = load(json.dumps({old: value}))
    assert {name: getattr(opt, name) for name in new} == new
    assert getattr(opt, old) == next(iter(new.values()))
    assert set(ALIASES[old]) == set(new)


def test_a_common_batch_size_gives_way_to_a_particular_one(load, caplog):
    opt = load('{"batch_size": 32, "valid_batch_size": 8}')
    assert (opt.batch_size_train, opt.batch_size_valid) == (32, 8)
    assert not caplog.records
    load('{"batch_size": 32, "valid_batch_size": 8, "batch_size_train": 16}')
    assert "batch_size (batch_size_train and batch_size_valid given too)" in caplog.text


@pytest.mark.parametrize("value", ["0", "null", "false"])
def test_no_crop(load, value):
    assert load(f'{{"random_jitter": {value}}}').random_jitter is None


@pytest.mark.parametrize("value", ['"700, 800, 900"', '"700,800,900"', "[700, 800, 900]"])
def test_milestones(load, value):
    assert load(f'{{"lr_decay_epochs": {value}}}').lr_decay_epochs == [700, 800, 900]


def test_every_mistake_at_once_with_line_found_and_allowed(refusal):
    message = refusal(
        """{
        // temp: 3 is what I had before
        "temp": -1,
        "epohcs": 3,
        "ssl_model": "resnet51",
        "cosine": "yes",
        "random_jitter": [5]
        }"""
    )
    assert "5 problems" in message
    assert "line 3: temp: found -1, expected a number > 0" in message
    assert "line 4: epohcs: not an option; did you mean epochs?" in message
    assert 'line 5: ssl_model: found "resnet51", expected "resnet18" or' in message
    assert 'did you mean "resnet50"?' in message
    assert 'line 6: cosine: found "yes", expected true or false' in message
    assert "line 7: random_jitter: found [5], expected [a, b]" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temp", 0),
        ("temp", "0.07"),
        ("temp", True),
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size_train", 1),
        ("learning_rate", 0),
        ("momentum", 1),
        ("max_nodata", 1),
        ("seed", -1),
        ("ssl_method", "simclr"),
        ("ssl_model", "vgg"),
        ("lr_decay_epochs", ""),
        ("lr_decay_epochs", []),
        ("lr_decay_epochs", "700, , 900"),
        ("lr_decay_epochs", "700; 800"),
        ("lr_decay_epochs", [800, 700]),
        ("lr_decay_epochs", [0]),
        ("lr_decay_epochs", [True]),
        ("random_jitter", [5, 5, 5]),
        ("random_jitter", [0, 5]),
        ("random_jitter", 5),
        ("random_jitter", [5.5, 1]),
        ("image_size", 0),
        ("image_size", [32]),
        ("train_key", None),
        ("model_root", 3),
        ("precision", "fp16"),
    ],
)
def test_refused_values_name_the_option_and_what_was_found(refusal, name, value):
    message = refusal(json.dumps({name: value}))
    assert f"{name}: found {json.dumps(value)}, expected" in message


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_must_be_finite(refusal, value):
    assert "learning_rate" in refusal(f'{{"learning_rate": {value}}}')


def test_an_old_and_a_new_name_that_disagree(refusal):
    assert "ssl_method" in refusal('{"method": "SimCLR", "ssl_method": "SupCon"}')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("{", "not JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('{"temp": 0.1 "epochs": 2}', "line 1"),
        ('{"temp": 0.1,\n"temp": 0.2}', "temp"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_hold_no_options(refusal, text, says):
    assert says in refusal(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{\n"temp": 0.1\n"epochs": 3}', "comma missing at the end of the line above"),
        ('{"cosine": True}', "write true, false or null"),
        ('{\n# mine\n"epochs": 3}', "comments begin with //"),
        ('{"epochs": 3', "closing brace"),
    ],
)
def test_a_slip_in_the_json_is_shown_in_its_line(refusal, text, hint):
    message = refusal(text)
    assert hint in message
    assert "^" in message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r'{"images_file": "C:\data\new\train.h5"}', r"line 1 has \d"),
        ('{\n"epochs": 3, // C:\\e\n"data_folder": "D:\\eddies"}', r"line 3 has \e"),
        (r"{data_folder: 'C:\Users\me'}", r"line 1 has \U"),
        (r'{"data_folder": "C:\users\me"}', r"line 1 has \u"),
        (r'{"data_folder": "C:\x64\v1"}', r"line 1 has \x"),
        (r'{"data_folder": "\\server\share"}', r"line 1 has \s"),
        (r'{"note": "C:\data"}', r"line 1 has \d"),
        (r'{"data_folder": "C:\data', r"line 1 has \d"),
        (r'{"model_root": "results\new\run"}', "control characters"),
        (r'{"images_file": "\\server\new.h5"}', "control characters"),
        (r'{"train_key": "a\tb"}', "control characters"),
        (r'{"trial": "\u001b[31m"}', "control characters"),
        ('{"data_folder": "C:\\\\data\\", "epochs": 3}', "a backslash before the closing quote"),
    ],
)
def test_backslashes_that_json_takes_for_something_else_are_refused_with_the_way_out(refusal, text, found):
    message = refusal(text)
    assert found in message
    assert r"write / or \\" in message


@pytest.mark.parametrize(
    "text",
    [
        r'{"images_file": "C:\\data\\new\\train.h5"}',
        r'{"images_file": "\u00e9t\u00e9/\"a\".h5"}',
        r'{"images_file": "a\/b.h5"}',
        r"{images_file: 'it\'s.h5'}",
        '{"images_file": "x.h5", /* C:\\data */ // "C:\\data\n}',
        '{"images_file": "x.h5", "note": "two\\nlines"}',
    ],
)
def test_backslashes_with_a_meaning_are_not_refused(load, text):
    assert load(text).images_file == json5.loads(text)["images_file"]


def test_backslashes_on_the_command_line():
    assert parse_assignments([r"images_file=C:\data\new.h5"]) == {"images_file": r"C:\data\new.h5"}
    with pytest.raises(OptionError, match=r"has \\d"):
        parse_assignments([r'images_file="C:\data\new.h5"'])
    assert parse_assignments(["note=" + "[" * 5000]) == {"note": "[" * 5000}


def test_a_key_twice_is_refused_on_the_command_line_too():
    with pytest.raises(OptionError, match="epochs is given twice"):
        parse_assignments(["epochs=1", "trial=a", " epochs=2"])


def test_a_null_character_in_the_name_of_the_options_file_is_a_mistake_of_the_user():
    with pytest.raises(OptionError, match="can be no file's name"):
        Params("opts\0.json")


def test_a_number_sign_in_a_text_is_no_comment(load):
    with pytest.raises(OptionError) as raised:
        load('{"images_file": "x.h5",\n"trial": "a#1" "epochs": 5}')
    assert "comments begin" not in str(raised.value)
    with pytest.raises(OptionError, match="comments begin"):
        load('{"images_file": "x.h5", # the data\n"epochs": 5}')


@pytest.mark.parametrize("name", ["images_file", "data_folder", "dataset", "model_root", "model_name", "trial"])
def test_a_name_that_the_locale_has_no_characters_for_is_refused(monkeypatch, name):
    monkeypatch.setattr(os, "fsencode", lambda value: value.encode("ascii"))
    with pytest.raises(OptionError, match=f"{name}.*in ascii: set PYTHONUTF8=1"):
        Params.from_dict({name: "modèle"})
    assert Params.from_dict({"train_key": "modèle", "note": "é"}).train_key == "modèle"


def torch_file() -> bytes:
    saved = io.BytesIO()
    torch.save({"epoch": 1}, saved)
    return saved.getvalue()


OTHER_FILES = {
    "cutouts.h5": (
        b"\x89HDF\r\n\x1a\n" + bytes(200_000),
        'Name the data in such a file, {"images_file": "cutouts.h5"}',
    ),
    "last.pth": (
        torch_file() + bytes(200_000),
        "is a PyTorch file (.pth); expected a JSON file",
    ),
    "old.pth": (b"\x80\x02\x8a\nl\xfc", "is a Python pickle (.pkl, .pth)"),
    "granule.nc": (b"CDF\x01\0\0", "netCDF-3"),
    "granule.hdf": (b"\x0e\x03\x13\x01", "HDF4"),
    "table.parquet": (b"PAR1\x15", "Parquet"),
    "opts.json.gz": (b"\x1f\x8b\x08", "is compressed with gzip; expected a JSON file of options. Unpack it: gunzip."),
    "curves.png": (b"\x89PNG\r\n\x1a\n", "is a PNG picture; expected"),
    "pointer.json": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "powershell.json": (b"\xff\xfe" + "{}".encode("utf-16-le"), "save it as UTF-8"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path, name):
    content, says = OTHER_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OptionError) as caught:
        Params(tmp_path / name)
    assert says in str(caught.value)


def test_paths_that_hold_no_options(tmp_path):
    with pytest.raises(OptionError, match=r"is a folder; expected a JSON file of options\.$"):
        Params(tmp_path)
    for name in ("a.json", "options.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(OptionError, match=r"is a folder.* It holds options\.json, a\.json\."):
        Params(tmp_path)
    with pytest.raises(OptionError, match="no options file"):
        Params(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(OptionError, match="UTF-8"):
        Params(tmp_path / "binary.json")


def test_assignment_validates_and_a_refused_one_changes_nothing(load):
    opt = load("{}")
    before = opt.dict
    with pytest.raises(OptionError, match="temp: found -1"):
        opt.temp = -1
    with pytest.raises(OptionError, match="did you mean epochs"):
        opt.epoch = 3
    assert opt.dict == before
    opt.temp = 0.2
    assert opt.temp == 0.2
    opt.batch_size = 16
    assert (opt.batch_size_train, opt.batch_size_valid) == (16, 16)
    with pytest.raises(AttributeError, match="did you mean epochs"):
        _ = opt.epoch


def test_update_takes_all_or_nothing(load, tmp_path):
    opt = load('{"epochs": 3}')
    more = tmp_path / "more.json"
    more.write_text('{"temp": 0.3, "model": "resnet18"}')
    opt.update(more)
    assert (opt.epochs, opt.temp, opt.ssl_model) == (3, 0.3, "resnet18")
    more.write_text('{"temp": 0.4, "epochs": -1}')
    with pytest.raises(OptionError, match="epochs"):
        opt.update(more)
    assert (opt.epochs, opt.temp) == (3, 0.3)


def test_preprocess_is_idempotent_and_creates_the_folder(load, tmp_path):
    opt = load(json.dumps({"model_root": str(tmp_path / "out")}))
    option_preprocess(opt)
    once = opt.dict
    option_preprocess(opt)
    assert opt.dict == once
    assert (tmp_path / "out" / RUN_NAME).is_dir()
    assert opt.model_folder == str(tmp_path / "out" / RUN_NAME)


def test_names_follow_the_options_but_not_over_the_users_own(load):
    opt = load("{}")
    complete_options(opt)
    opt.temp = 0.2
    complete_options(opt)
    assert "temp_0.2" in opt.model_name
    assert opt.model_folder.endswith(opt.model_name)
    opt.model_folder = "models/mine"
    opt.temp = 0.3
    complete_options(opt)
    assert opt.model_folder == "models/mine"
    assert "temp_0.3" in opt.model_name


def test_saved_options_are_the_same_options_and_give_the_same_run(load, tmp_path):
    opt = load('{"batch_size": 512, "epochs": 5, "random_jitter": 0, "tbl_file": "s3://x", "lr_decay_epochs": "7, 9"}')
    complete_options(opt)
    opt.save(tmp_path / "saved.json")
    again = Params(tmp_path / "saved.json")
    assert again == opt
    complete_options(again)
    assert again == opt
    assert again.tbl_file == "s3://x"
    # names that an earlier run derived are derived anew where the options change
    again.set({"temp": 0.5})
    complete_options(again)
    assert "temp_0.5" in again.model_folder


def test_a_name_of_the_users_own_is_kept_and_saved(load, tmp_path):
    opt = load('{"model_name": "mine"}')
    complete_options(opt)
    assert opt.model_folder == "models/v5/mine"
    opt.save(tmp_path / "saved.json")
    again = Params(tmp_path / "saved.json")
    again.set({"temp": 0.5})
    complete_options(again)
    assert (again.model_name, again.model_folder) == ("mine", "models/v5/mine")


@pytest.mark.parametrize("name", ["a/b", "..", "", "a\\b"])
def test_a_name_leads_to_no_other_folder(refusal, name):
    assert "model_name: found" in refusal(json.dumps({"model_name": name}))


@pytest.mark.parametrize(
    ("root", "folder"),
    [
        ("models/v5", "models/v5"),
        ("models", "models"),
        ("./models/v5", "models/v5"),
        ("MODIS_R2019", "models/MODIS_R2019"),
        ("modelsX/v5", "models/modelsX/v5"),
        ("/data/out", "/data/out"),
    ],
)
def test_model_root(root, folder):
    assert output_root(root) == folder


@pytest.mark.parametrize(
    ("root", "latents"),
    [
        ("models/v5", f"latents/v5/{RUN_NAME}"),
        ("MODIS", f"latents/MODIS/{RUN_NAME}"),
        ("/data/models/v5", f"/data/latents/v5/{RUN_NAME}"),
        ("/data/out", f"/data/out/latents/{RUN_NAME}"),
    ],
)
def test_latents_mirror_the_models(load, root, latents):
    opt = load(json.dumps({"model_root": root}))
    complete_options(opt)
    assert opt.latents_folder == latents


def test_warm_up_is_on_above_batch_size_256(load):
    for size, warm in ((256, False), (257, True)):
        opt = load(f'{{"batch_size_train": {size}}}')
        complete_options(opt)
        assert opt.warm is warm
        assert opt.model_name.endswith("_warm") is warm


def test_warm_up_that_does_not_fit_is_shortened_aloud(load, caplog):
    opt = load('{"warm": true, "epochs": 8}')
    complete_options(opt)
    assert opt.warm_epochs == 1
    assert "shortened" in caplog.text


def test_options_without_effect_are_named_once_and_kept(load, caplog):
    with caplog.at_level(logging.WARNING):
        opt = load('{"s3_outdir": "s3://x", "modis_data": true, "lr_decay_epochs": [3], "cosine": true}')
    assert len(caplog.records) == 1
    for name in ("s3_outdir", "modis_data", "lr_decay_epochs"):
        assert name in caplog.text
        assert name in opt.dict


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"cosine": false}', "lr_decay_epochs"),
        ('{"label_key": "y"}', "label_key"),
        ('{"images_file": "a.h5", "dataset": "b"}', "dataset"),
        ('{"warm_epochs": 3}', "warm_epochs"),
    ],
)
def test_settings_that_others_make_idle_are_named(load, caplog, text, name):
    load(text)
    assert f"{name} (" in caplog.text


def test_the_command_lines_idle_settings_are_named_too(load, caplog):
    load("{}").set({"warm_epochs": 3})
    assert "warm_epochs (no warm-up)" in caplog.text


def test_a_warm_up_that_would_cool_down_is_said(load, caplog):
    complete_options(load('{"warm": true, "learning_rate": 0.001}'))
    assert "falls instead of rising" in caplog.text


def test_options_with_effect_are_not_named(load, caplog):
    load('{"lr_decay_epochs": [3], "cosine": false, "warm": true, "warm_epochs": 3}')
    assert not caplog.records


def test_copy_and_pickle(load):
    opt = load('{"epochs": 7}')
    assert copy.deepcopy(opt) == opt
    assert pickle.loads(pickle.dumps(opt)) == opt
    twin = copy.deepcopy(opt)
    twin.epochs = 8
    assert opt.epochs == 7


def test_command_line_assignments():
    given_values = parse_assignments(
        ["epochs=3", "cosine=false", "random_jitter=[40, 5]", "ssl_model=resnet18", "a=b=c"]
    )
    assert given_values == {
        "epochs": 3,
        "cosine": False,
        "random_jitter": [40, 5],
        "ssl_model": "resnet18",
        "a": "b=c",
    }
    with pytest.raises(OptionError, match="key=value"):
        parse_assignments(["epochs"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(Options.model_fields)) | st.text(max_size=6), json_values, max_size=4))
def test_anything_is_either_options_or_a_clear_refusal(values):
    try:
        options = Options.parse(values)
    except OptionError:
        return
    assert Options.parse(options.to_dict()).to_dict() == options.to_dict()


# In the manner of the option files that the historical code had, one a style: what it read, and what it passed over.
OLD_FILES = {
    "first": (
        {"batch_size": 64, "mean": 0, "std": 0, "size": 32, "model": "resnet50", "method": "SimCLR", "dataset": "modis",
         "data_folder": "./modis/", "lr_decay_epochs": "700, 800, 900", "syncBN": False, "trial": "0"},
        {"batch_size_train": 64, "batch_size_valid": 64, "ssl_model": "resnet50", "dataset": "modis"},
        ["mean", "std", "size"],
    ),
    "2010": (
        {"train_batch_size": 128, "batch_size_eval": 96, "valid_batch_size": 32, "num_workers_eval": 16,
         "modis_file": "a.h5", "dataset": "A_2010", "train_key": "valid", "valid_key": "train", "train_folder": "./t/",
         "valid_folder": "./v/", "latents_folder": "s3://x", "random_jitter": [5, 5], "gauss_noise": 0.05},
        {"batch_size_train": 128, "batch_size_valid": 32, "images_file": "a.h5", "data_folder": "./t/",
         "train_key": "valid", "valid_key": "train", "latents_folder": "s3://x"},
        ["batch_size_eval", "num_workers_eval", "valid_folder", "dataset"],
    ),
    "2012": (
        {"batch_size": 128, "batch_size_eval": 32, "model": "resnet50", "ssl_model": "resnet50", "data_key": "valid",
         "model_folder": "./m", "tbl_file": "s3://x", "modis_data": True, "random_jitter": 0},
        {"batch_size_train": 128, "batch_size_valid": 32, "train_key": "valid", "model_folder": "./m",
         "random_jitter": None},
        ["tbl_file", "modis_data"],
    ),
    "currents": (
        {"data_key": "train", "eval_key": "train", "valid_key": "valid", "valid_folder": "../v/"},
        {"train_key": "train", "valid_key": "valid"},
        ["eval_key", "valid_folder"],
    ),
    "ImageNet": (
        {"sensor": "S", "eval_root": "tmp.h5", "nchannels": 1, "random_cropjitter": [110, 10], "nenya_data": True,
         "local_outdir": "s3://x", "warm": True},
        {"random_jitter": (110, 10), "nchannels": 1, "warm": True},
        ["sensor", "eval_root", "nenya_data", "local_outdir"],
    ),
    "saved by it": (
        {"nenya_data": None, "cosine": None, "cuda_use": None, "warmup_from": None, "warmup_to": None,
         "warmup_epochs": None, "lr_decay_epochs": [700], "model_folder": "models/a", "epochs": 800},
        {"cosine": False, "cuda_use": False, "warmup_from": 0.01, "warm_epochs": 10, "model_folder": "models/a"},
        ["nenya_data", "warmup_to", "warmup_epochs"],
    ),
    "with the extraction": (
        {"field_size": 128, "clear_threshold": 95, "nadir_offset": 480, "sub_grid_step": 4, "quality_thresh": 2,
         "temp_bounds": [-2, 33], "inpaint": True, "median": True, "med_size": [3, 1], "downscale": True,
         "dscale_size": [2, 2], "de_mean": True, "noise": 0.04, "log_scale": False, "epochs": 3},
        {"epochs": 3, "demean": True, "gauss_noise": 0.0, "scale": 1.0},
        ["field_size", "median", "downscale", "noise", "log_scale", "de_mean"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("style", OLD_FILES)
def test_files_of_the_historical_code_load_do_what_they_did_and_name_the_rest(load, caplog, tmp_path, style):
    given_values, effect, idle = OLD_FILES[style]
    opt = load(json.dumps(given_values))
    assert {name: getattr(opt, name) for name in effect} == effect
    assert len(caplog.records) == 1
    named = caplog.records[0].getMessage()
    for name in idle:
        assert f"{name} (" in named
        assert getattr(opt, name) == opt.dict[name]
        assert opt.dict[name] == given_values[name]
    complete_options(opt)
    opt.save(tmp_path / "saved.json")
    assert Params(tmp_path / "saved.json") == opt


NAMES = {
    option: [option, *(name for name, options in ALIASES.items() if option in options)]
    for option in {option for options in ALIASES.values() for option in options}
}
PAIRS = [(option, *pair) for option in sorted(NAMES) for pair in itertools.permutations(NAMES[option], 2)]
VALUES = {"ssl_method": ("SimCLR", "SupCon"), "ssl_model": ("resnet18", "resnet34"), "random_jitter": ([9, 1], [8, 2])}
#: Names for another stage, or an earlier one that was no longer read, give way; those for several options the most.
GIVE_WAY = dict.fromkeys(("eval_key", "batch_size_eval", "model", "modis_file", "data_key"), 1) | {"batch_size": 2}


@pytest.mark.parametrize(("option", "one", "other"), PAIRS)
def test_of_two_names_of_an_option_the_more_specific_counts_in_either_order(refusal, option, one, other):
    values = VALUES.get(option, (16, 48) if "batch" in option else ("a", "b"))
    yields = [GIVE_WAY.get(name, 0) for name in (one, other)]
    if yields[0] == yields[1]:
        message = refusal(json.dumps({one: values[0], other: values[1]}))
        assert one in message
        assert other in message
        assert "give one of them" in message
        return
    opt = Params.from_dict({one: values[0], other: values[1]})
    found = getattr(opt, option)
    assert (list(found) if option == "random_jitter" else found) == values[yields[0] > yields[1]]


@pytest.mark.parametrize(("option", "one", "other"), PAIRS)
def test_two_names_of_an_option_that_agree(option, one, other):
    value = VALUES.get(option, (48 if "batch" in option else "a",))[0]
    opt = Params.from_dict({one: value, other: value})
    assert opt == Params.from_dict({one: value} if one == "batch_size" else {other: value})
    assert option in opt.dict


def test_null_gives_way_to_a_value():
    for values in (
        {"random_jitter": None, "random_cropjitter": [40, 5]},
        {"random_jitter": [40, 5], "random_cropjitter": None},
    ):
        assert Params.from_dict(values).random_jitter == (40, 5)
    assert Params.from_dict({"data_folder": None}).data_folder == "./"


def test_names_that_gave_way_are_replaced_by_what_is_set_later():
    opt = Params.from_dict({"eval_key": "all", "valid_key": "valid"})
    assert (opt.eval_key, opt.valid_key) == ("all", "valid")
    opt.eval_key = "test"
    assert (opt.eval_key, opt.valid_key) == ("test", "test")
    opt = Params.from_dict({"batch_size": 64, "batch_size_train": 32, "batch_size_valid": 16})
    opt.set({"batch_size": 8})
    assert (opt.batch_size, opt.batch_size_train, opt.batch_size_valid) == (8, 8, 8)
    assert opt == Params.from_dict({"batch_size": 8})


UNKNOWN = [
    "comment",
    "author",
    "my_notes",
    "grid_cells",
    "table_file",
    "wandb",
    "year",
    "_hidden",
    "parse",
    "dict",
    "é",
]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_name_that_is_like_no_option_is_kept_and_named(load, caplog, tmp_path, name):
    value = {"a": [1, None, "x"]}
    opt = load(json.dumps({"epochs": 3, name: value}))
    assert [record.getMessage() for record in caplog.records] == [
        f"options without effect, kept as they are: {name} (not an option)"
    ]
    assert opt.dict[name] == value
    opt.save(tmp_path / "saved.json")
    assert Params(tmp_path / "saved.json") == opt
    opt.epochs = 5
    assert opt.dict == Params.from_dict({"epochs": 5, name: value}).dict


def test_an_unknown_name_that_is_assigned_is_kept_and_said(caplog):
    opt = Params.from_dict({})
    opt.note = "mine"
    assert opt.note == opt.dict["note"] == "mine"
    assert "note is not an option" in caplog.text
    opt.set({"remark": 1})
    assert "remark (not an option)" in caplog.text


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("learning_rat", "learning_rate"),
        ("Epochs", "epochs"),
        ("syncbn", "syncBN"),
        ("batchsize", "batch_size"),
        ("eval_keys", "eval_key"),
        ("image_file", "images_file"),
        ("lr", "learning_rate"),
        ("temperature", "temp"),
        ("temprature", "temp"),
    ],
)
def test_a_name_that_is_like_an_option_is_refused_with_it(refusal, name, option):
    assert f"{name}: not an option; did you mean {option}?" in refusal(json.dumps({name: 1}))


def test_a_file_of_many_unknown_names_is_no_options_file(refusal):
    assert "100 problems" in refusal(json.dumps({f"site {number}": number for number in range(100)}))


def test_the_reference_names_every_option_with_meaning_and_default():
    text, page = as_text(), as_markdown()
    for name, row in table().items():
        assert f"  {name} = {row['default']}" in text
        assert f"| `{name}` | `{row['default']}` |" in page
        assert row["meaning"].endswith(".")


def test_the_options_page_is_the_tables(request):
    page = request.config.rootpath / "docs" / "options.md"
    assert page.read_text() == as_markdown(), "run `make options-page`"


def test_a_reference_of_one_option():
    assert as_text(["batch_size"]).count(" = ") == 2
    text = as_text(["inpaint"])
    assert "inpaint: Preprocessing" in text
    assert " = " not in text
    with pytest.raises(OptionError, match="did you mean temp"):
        as_text(["tmep"])


# ---------------------------------------------------------------- missing and axes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (-999, [-999]), ([-999, 1e20], [-999, 1e20]), (None, []), ([], []), (0.5, [0.5]),
        (2**64 - 1, [2**64 - 1]), (1e20, [1e20]),
    ],
)  # fmt: skip
def test_missing_is_a_number_or_a_list_of_them(given, kept, tmp_path):
    opt = Params.from_dict({"missing": given})
    assert opt.missing == kept
    assert all(type(number) is type(wanted) for number, wanted in zip(opt.missing, kept, strict=True))
    opt.save(tmp_path / "saved.json")
    assert Params(tmp_path / "saved.json").missing == kept


@pytest.mark.parametrize("given", [True, "x", ["-999"], [[1]], {"a": 1}, float("nan"), [float("inf")], [0] * 65])
def test_missing_refuses_what_is_no_number(given):
    with pytest.raises(OptionError, match=r"missing: found .*, expected a number, or a list of at most 64 numbers"):
        Params.from_dict({"missing": given})


@pytest.mark.parametrize("given", ["NHWC", "nhw", "WHCN", "CNHW", None])
def test_axes_is_an_order_of_letters(given):
    assert Params.from_dict({"axes": given}).axes == (given and given.upper())


@pytest.mark.parametrize("given", ["", "NHWD", "NNHW", "CHW", "N,H,W", 3, ["N", "H", "W"]])
def test_axes_refuses_what_is_no_order(given):
    with pytest.raises(OptionError, match=r"axes: found .*, expected the letters N, H, W and perhaps C, each once"):
        Params.from_dict({"axes": given})
