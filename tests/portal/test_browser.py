"""The page in a real browser, used as a person uses it."""

import csv
import functools
import json
import re
import socket
import threading
import time
from urllib.parse import parse_qs, unquote, urlsplit

import h5py
import matplotlib.path
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright

from benchmarks.parts.portal import find_chromium
from nenya.latents.command import latents as write_latents
from nenya.portal.app import Portal
from nenya.portal.atlas import Atlas
from nenya.portal.files import Named
from nenya.portal.guard import Guard
from nenya.portal.still import write_static
from nenya.search.searcher import Searcher
from nenya.train import run as train
from tests.portal.conftest import TOKEN, TRAIN, columns_of, latents_of, write_run
from tests.portal.test_portal_map import write_map

CHROMIUM = find_chromium()
COUNTS = {"train": 400, "valid": 100}
TOTAL = sum(COUNTS.values())
EVIL = '</script><img src=x onerror="window.hacked=1">\''

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="left out: chromium is not installed (apt-get install chromium)"),
]


class Server:
    """A portal in a thread of its own."""

    def __init__(self, run):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}/"
        self.address = f"{self.base}?token={TOKEN}"
        app = Guard(Portal(Atlas(run, Named())).app(), TOKEN)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()


def many_columns():
    """Columns of all kinds, in the order of the cutouts; some hold what a page must not run."""
    number = np.arange(TOTAL)
    return columns_of(TOTAL) | {
        "lon": (number * 7.3) % 360,  # 0..360
        "all_nan": np.full(TOTAL, np.nan),
        "sensor": np.array(["MODIS", "VIIRS", EVIL])[number % 3],
        "UID": 2**62 + number,
        f"x {EVIL}": number.astype(np.float32),
        "file": pyarrow.array([f"{EVIL} {i}" for i in number]),
        "late": pyarrow.array([None if i % 4 else 10**12 + i for i in range(TOTAL)], pyarrow.timestamp("ms")),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(
        tmp_path_factory.mktemp("browser") / "run", counts=COUNTS, columns=many_columns(), shape=(1, 16, 16)
    )


@pytest.fixture(scope="module")
def server(run):
    one = Server(run)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        # No name but this machine's own is found: a request to any other would fail, and is counted.
        rules = "--host-resolver-rules=MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        yield browser
        browser.close()


class Visit:
    """A page, with all that it asked for and complained about."""

    def __init__(self, chromium, **options):
        options = {"viewport": {"width": 1280, "height": 720}, "accept_downloads": True} | options
        self.context = chromium.new_context(**options)
        self.context.set_default_timeout(15_000)
        self.asked, self.complaints = [], []
        self.page = self.new_page()

    def new_page(self):
        page = self.context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        return page

    def open(self, address, page=None):
        page = page or self.page
        page.goto(address)
        expect(page.locator("body[data-ready]")).to_be_attached()
        return page

    def check(self, base):
        """Nothing went to another machine, and the browser found no fault."""
        outside = [url for url in self.asked if not url.startswith((base, "blob:", "data:"))]
        assert outside == []
        assert self.complaints == []
        assert self.page.evaluate("window.hacked") is None


@pytest.fixture
def visit(chromium, server):
    one = Visit(chromium)
    one.open(server.address)
    yield one
    one.check(server.base)
    one.context.close()


def selected(page):
    """How many are selected, as the page says."""
    return int(page.locator("[data-count]").inner_text().split()[0].replace(",", ""))


def state(page):
    """The state in the address, which is written 0.4 s after the last change: once it has rested for twice that."""
    found, since = None, time.monotonic()
    while time.monotonic() < since + 0.8:
        page.wait_for_timeout(100)
        if page.url != found:
            found, since = page.url, time.monotonic()
    return {name: json.loads(text[0]) for name, text in parse_qs(urlsplit(page.url).fragment).items()}


def eventually(look, right):
    """What `look` gives once it is right; the page draws in frames of its own."""
    for _ in range(100):
        found = look()
        if right(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"after 5 s still {str(found)[:200]}")


def draw(page, view, share, steps=24):
    """Draw a lasso: a loop of this share of the view."""
    page.keyboard.press("l")
    box = page.locator(f"[data-view={view}]").bounding_box()
    turns = np.linspace(0, 2 * np.pi, steps)
    x = box["x"] + box["width"] * (0.5 + share / 2 * np.cos(turns))
    y = box["y"] + box["height"] * (0.5 + share / 2 * np.sin(turns))
    corners = list(zip(x.tolist(), y.tolist(), strict=True))
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner)
    page.mouse.up()
    page.keyboard.press("v")


def save(page, words):
    """Save the selection, and return where the file is."""
    page.get_by_role("button", name="Save", exact=True).click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name=words).click()
    page.keyboard.press("Escape")
    return waiting.value.path()


def facts_of(run):
    """The table in the order of the cutouts."""
    table = pyarrow.parquet.read_table(run / "cutouts.parquet").to_pydict()
    kinds, places = np.array(table["pp_type"]), np.array(table["pp_idx"])
    order = np.argsort(np.where(kinds == 1, 0, COUNTS["train"]) + places)
    return {name: np.array(values, dtype=object)[order] for name, values in table.items()}


def test_a_lasso_selects_in_all_views_and_goes_into_files(visit, server, run, tmp_path):
    page = visit.page
    expect(page.locator("[data-count]")).to_have_text(f"{TOTAL} cutouts")
    draw(page, "map", 0.5)
    expect(page.locator(".chip")).to_have_count(1)
    count = selected(page)
    assert 0 < count < TOTAL
    # The same polygon by another hand: matplotlib, on the coordinates as they are.
    corners = state(page)["filters"][0]["corners"]
    coordinates = Atlas(run, Named()).plane.coordinates
    inside = matplotlib.path.Path(corners).contains_points(coordinates)
    listed = save(page, "Row list").read_text().split()
    names = [f"{key}:{i}" for key, many in COUNTS.items() for i in range(many)]
    wanted = [name for name, is_inside in zip(names, inside, strict=True) if is_inside]
    assert len(listed) == count
    assert len(set(listed) ^ set(wanted)) <= 2  # positions travel in 65,535 steps
    with save(page, "Table, CSV").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {f"{row['key']}:{row['pp_idx']}" for row in rows} == set(listed)  # in the order of the table
    assert len(rows) == count
    assert {row["sensor"] for row in rows} <= {"MODIS", "VIIRS", EVIL}
    parquet = pyarrow.parquet.read_table(save(page, "Table, Parquet"))
    assert parquet.num_rows == count
    with h5py.File(save(page, "Cutouts, HDF5")) as file:
        assert sum(len(file[key]) for key in file if key in COUNTS) == count
    assert save(page, "Picture of the views").read_bytes().startswith(b"\x89PNG")
    page.get_by_role("tab", name="Table").click()
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", str(count + 1))
    expect(page.locator(".side .tools .soft").first).to_contain_text(str(count))
    page.keyboard.press("Escape")
    expect(page.locator("[data-count]")).to_have_text(f"{TOTAL} cutouts")


def test_filters_of_all_kinds_come_together(visit, run):
    page = visit.page
    facts = facts_of(run)
    DT, lat = facts["DT"].astype(float), facts["lat"].astype(float)  # noqa: N806  # the column's name
    card = page.locator("[data-column=DT]")
    card.get_by_label("From", exact=True).fill("10")
    card.get_by_label("To", exact=True).fill("30")
    card.get_by_label("To", exact=True).press("Enter")
    expect(page.locator(".chip")).to_contain_text(["DT 10 to 30"])
    wanted = (DT >= 10) & (DT <= 30)
    assert selected(page) == wanted.sum()
    page.get_by_label("Add a histogram").select_option("sensor")
    names = page.locator("[data-column=sensor] button.category")
    expect(names).to_have_count(3)
    assert min(name.bounding_box()["width"] for name in names.all()) > 150
    names.filter(has_text="VIIRS").click()
    expect(page.locator(".chip")).to_have_count(2)
    wanted &= facts["sensor"] == "VIIRS"
    assert selected(page) == wanted.sum()
    page.locator("[data-where]").fill("lat > 0")
    page.locator("[data-where]").press("Enter")
    expect(page.locator(".chip")).to_have_count(3)
    wanted &= lat > 0
    assert selected(page) == wanted.sum() > 0
    page.get_by_label("Remove: sensor: VIIRS").click()
    expect(page.locator(".chip")).to_have_count(2)
    assert selected(page) == ((DT >= 10) & (DT <= 30) & (lat > 0)).sum()
    page.locator("[data-where]").fill("nonsense ==")
    page.locator("[data-where]").press("Enter")
    expect(page.locator(".message.error")).to_be_visible()
    assert len([one for one in visit.complaints if "422" not in one]) == 0
    visit.complaints.clear()  # the browser notes every answer that is an error
    assert page.locator(".chip").count() == 2


def test_a_range_is_drawn_on_a_histogram(visit):
    page = visit.page
    box = page.locator("[data-column=DT] canvas").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
    page.mouse.up()
    expect(page.locator(".chip")).to_have_count(1)
    assert abs(selected(page) - TOTAL / 2) <= 4


def test_the_query_and_what_is_like_it(visit, run):
    page = visit.page
    page.get_by_role("tab", name="Table").click()
    page.locator(".rows .row").nth(4).click()
    answers = page.locator("section[aria-label='More like this'] .thumb")
    expect(answers).to_have_count(20)
    expect(page.locator(".query")).to_contain_text("train:4")
    searcher = Searcher(run / "latents.h5")
    wanted = searcher.search(searcher.rows(["train:4"]), 20)[0].numbers.tolist()
    assert [int(one.get_attribute("data-number")) for one in answers.all()] == wanted
    assert state(page)["query"] == 4
    page.get_by_text("Limits, coordinates, a cutout of your own").click()
    page.get_by_label("km away").fill("3000")
    page.get_by_label("km away").press("Enter")
    expect(answers.first).not_to_have_attribute("data-number", str(wanted[0]))
    page.get_by_role("button", name="Select these").click()
    expect(page.locator(".chip")).to_contain_text(["Like cutout 4"])
    assert selected(page) == answers.count() + 1
    # By place: the cutout nearest to what is typed.
    facts = facts_of(run)
    lat, lon = facts["lat"].astype(float), np.radians(facts["lon"].astype(float))
    near = np.sin(np.radians(15)) * np.sin(np.radians(lat)) + np.cos(np.radians(15)) * np.cos(np.radians(lat)) * np.cos(
        lon - np.radians(-20)
    )
    page.get_by_label("Coordinates, latitude first").fill("15N 20W")
    page.get_by_label("Coordinates, latitude first").press("Enter")
    expect(page.locator(".query")).to_contain_text(re.compile(r"(train|valid):\d+"))
    eventually(lambda: near[state(page).get("query", 0)], lambda found: found >= near.max() - 1e-6)


def test_a_cutout_of_one_s_own_asks_through_the_model(chromium, tiny, tmp_path):
    trained = train(tiny(epochs=1))
    write_latents(trained.folder, [], tmp_path / "latents.h5", space="h", dtype="float32", keys=None, views=1,
                  resume=True, export=None)  # fmt: skip
    with h5py.File(trained.opt.images_path) as file:
        own = file["valid"][5]
    np.save(tmp_path / "own.npy", own)
    searcher = Searcher(tmp_path / "latents.h5")
    wanted = searcher.search(searcher.encoder().of_arrays(tmp_path / "own.npy"), 10)[0].numbers.tolist()
    assert wanted[0] == 24 + 5  # itself, among the validation cutouts
    server, one = Server(tmp_path), Visit(chromium)
    try:
        page = one.open(server.address)
        page.get_by_role("tab", name="More like this").click()
        page.get_by_label("show", exact=True).fill("10")
        page.get_by_label("show", exact=True).press("Enter")
        page.get_by_label("Cutout as .npy").set_input_files(tmp_path / "own.npy")
        answers = page.locator("section[aria-label='More like this'] .thumb")
        expect(answers).to_have_count(10)
        expect(page.locator(".query")).to_contain_text("own.npy")
        assert [int(shown.get_attribute("data-number")) for shown in answers.all()] == wanted
        one.check(server.base)
        (tmp_path / "bad.npy").write_bytes(b"no array")
        page.get_by_label("Cutout as .npy").set_input_files(tmp_path / "bad.npy")
        expect(page.locator(".message.error")).to_contain_text("uploaded cutout")
    finally:
        one.context.close()
        server.stop()


def test_a_map_in_classes_shows_one_at_a_time(chromium, tmp_path):
    run = write_run(tmp_path / "run")
    _, of_class, _ = write_map(run)
    server, one = Server(run), Visit(chromium)
    try:
        page = one.open(server.address)
        pick = page.get_by_label("Class", exact=True)
        assert pick.input_value() == "DT0"  # the larger one
        assert pick.locator("option").all_inner_texts() == ["class DT0 (30)", "class DT1 (29)"]
        assert selected(page) == (of_class == 0).sum()
        pick.select_option("DT1")
        expect(page.locator("[data-count]")).to_contain_text("29")
        page.keyboard.press("Escape")  # nothing is selected beside the class, which stays
        assert selected(page) == (of_class == 1).sum()
        assert set(save(page, "Row list").read_text().split()) == {
            f"train:{i}" if i < TRAIN else f"valid:{i - TRAIN}" for i in np.flatnonzero(of_class == 1)
        }
        state(page)  # the address follows after a moment
        other = one.open(page.url, one.new_page())
        assert other.get_by_label("Class", exact=True).input_value() == "DT1"
        one.check(server.base)
    finally:
        one.context.close()
        server.stop()


def test_pointing_shows_the_cutout_and_a_click_asks(visit):
    page = visit.page
    box = page.locator("[data-view=map]").bounding_box()
    page.locator("[data-view=map]").focus()
    page.keyboard.press("Enter")  # the point nearest to the middle
    expect(page.locator(".query dd").first).to_contain_text(":")
    number = state(page)["query"]
    places = page.locator("[data-view=map] canvas").last
    assert places.is_visible()
    for y in np.linspace(0.2, 0.8, 40):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * y)
        page.wait_for_timeout(25)
        if page.locator(".card").is_visible():
            break
    card = page.locator(".card")
    expect(card).to_contain_text("K")  # the unit of the colour bar
    expect(card).to_contain_text("DT")
    expect(card).to_contain_text("UTC")
    page.mouse.down()
    page.mouse.up()
    expect(page.locator("section[aria-label='More like this'] .thumb")).to_have_count(20)
    assert isinstance(number, int)


def test_colour_by_a_column(visit):
    page = visit.page
    clip = page.locator("[data-view=map]").bounding_box()
    before = page.screenshot(clip=clip)
    for column, told in (
        ("sensor", "VIIRS"),
        (f"x {EVIL}", "0"),
        ("all_nan", "No value is known"),
        ("datetime", "2020"),
    ):
        page.get_by_label("Colour by", exact=True).select_option(column)
        expect(page.locator(".legend")).to_contain_text(column)
        expect(page.locator(".legend")).to_contain_text(told)
        before = eventually(functools.partial(page.screenshot, clip=clip), lambda after, was=before: after != was)
    page.get_by_label("Colour by", exact=True).select_option("")
    expect(page.locator(".legend")).to_be_hidden()


def test_the_address_keeps_the_page(visit):
    page = visit.page
    draw(page, "globe", 0.6)
    page.get_by_label("Colour by", exact=True).select_option("sensor")
    page.locator("[data-view=map]").focus()
    page.keyboard.press("+")
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Table").click()
    page.keyboard.press("g")
    first = state(page)
    other = visit.open(page.url, visit.new_page())
    expect(other.locator(".chip")).to_have_count(1)
    assert selected(other) == selected(page)
    assert state(other) == first
    assert other.get_by_label("Colour by", exact=True).input_value() == "sensor"
    expect(other.locator(".legend")).to_contain_text("VIIRS")
    expect(other.get_by_role("table")).to_be_visible()
    # An address that was cut off while it was copied still opens.
    visit.open(unquote(page.url)[: len(server_part(page.url)) + 30], visit.new_page())


def server_part(address):
    return address.split("#")[0]


def test_by_keyboard_alone(visit):
    page = visit.page
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.view") == "globe":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("+")
    page.keyboard.press("+")
    before = state(page)["globe"]
    page.keyboard.press("ArrowRight")
    assert state(page)["globe"]["x"] > before["x"]
    page.keyboard.press("s")
    expect(page.locator(".chip")).to_have_count(1)
    assert 0 < selected(page) < TOTAL
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator(".chip")).to_have_count(0)


def test_wrong_token_and_wrong_name_are_refused(chromium, server):
    one = Visit(chromium)
    for address in (server.base, f"{server.base}?token=wrong", f"http://rebound.example:{server.port}/?token={TOKEN}"):
        answer = one.page.goto(address)
        assert answer.status == 403
        assert one.page.locator("canvas").count() == 0
    one.context.close()


def test_a_portal_that_has_ended_is_told(chromium, run):
    server = Server(run)
    one = Visit(chromium)
    page = one.open(server.address)
    server.stop()
    page.get_by_role("button", name="Others").click()
    expect(page.locator(".message.error")).to_contain_text("The portal has ended. Start it again with: nenya portal")
    one.context.close()


def test_two_pages_at_once(chromium, server):
    one, other = Visit(chromium), Visit(chromium)
    one.open(server.address)
    other.open(server.address)
    draw(one.page, "map", 0.5)
    draw(other.page, "globe", 0.5)
    expect(one.page.locator(".chip")).to_have_text(["Lasso on the map✕"])
    expect(other.page.locator(".chip")).to_have_text(["Lasso on the globe✕"])
    for visit in (one, other):
        visit.check(server.base)
        visit.context.close()


@pytest.mark.parametrize(
    "missing",
    [{"columns": False}, {"pixels": {}}, {"counts": {"train": 1}}, {"shape": (3, 8, 20)}],
    ids=["no table", "no cutouts", "one cutout", "three channels, not square"],
)
def test_what_is_missing_is_left_out(chromium, tmp_path, missing):
    counts = missing.pop("counts", {"train": 30})
    total = sum(counts.values())
    run = write_run(tmp_path / "run", counts=counts, values=latents_of(total), **missing)
    server, one = Server(run), Visit(chromium)
    try:
        page = one.open(server.address)
        expect(page.locator("[data-view=map]")).to_be_visible()
        assert page.locator("[data-view=globe]").count() == (missing.get("columns") is not False)
        assert page.get_by_role("tab", name="Gallery").count() == ("pixels" not in missing)
        page.locator("[data-view=map]").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".query dd").first).to_contain_text("train:")
        one.check(server.base)
    finally:
        one.context.close()
        server.stop()


def test_a_folder_without_a_server(chromium, run, tmp_path):
    write_static(Atlas(run, Named()), tmp_path / "still")
    one = Visit(chromium)
    page = one.open((tmp_path / "still" / "index.html").as_uri())
    draw(page, "map", 0.5)
    expect(page.locator(".chip")).to_have_count(1)
    count = selected(page)
    assert 0 < count < TOTAL
    with save(page, "Table, CSV").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count
    facts = facts_of(run)
    for row in rows:
        number = int(row["pp_idx"]) + (0 if row["key"] == "train" else COUNTS["train"])
        assert float(row["DT"]) == pytest.approx(facts["DT"][number], rel=1e-6)
        assert (row["sensor"], row["file"]) == (facts["sensor"][number], facts["file"][number])
        assert int(row["UID"]) == 2**62 + number
    page.get_by_role("tab", name="Table").click()
    page.locator(".rows .row").first.click()
    answers = page.locator("section[aria-label='More like this'] .thumb")
    expect(answers).to_have_count(20)
    searcher = Searcher(run / "latents.h5")
    wanted = searcher.search(searcher.rows([page.locator(".query dd").first.inner_text()]), 20)[0].numbers.tolist()
    assert [int(shown.get_attribute("data-number")) for shown in answers.all()] == wanted
    assert page.locator("[data-where]").count() == 0
    one.check((tmp_path / "still").as_uri())
    one.context.close()


def test_a_telephone(chromium, server):
    one = Visit(chromium, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = one.open(server.address)
    for tab, part in (("globe", "[data-view=globe]"), ("histograms", ".histograms"), ("table", ".table"),
                      ("gallery", ".thumbs"), ("like", ".more"), ("map", "[data-view=map]")):  # fmt: skip
        page.locator(f".phone [data-tab={tab}]").tap()
        expect(page.locator(part).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    one.check(server.base)
    one.context.close()


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("none", "kind.startsWith('webgl') ? null : get.call(this, kind, options)"),
        # Computed by the browser, which the page declines otherwise; kept, so that it can be read here.
        (
            "webgl2",
            "get.call(this, kind, {...options, failIfMajorPerformanceCaveat: false, preserveDrawingBuffer: true})",
        ),
    ],
)
def test_points_are_drawn_with_webgl_and_without(chromium, server, kind, instead):
    one = Visit(chromium)
    one.page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext; window.kinds = new Set();"
        "HTMLCanvasElement.prototype.getContext = function (kind, options) {"
        f"  const found = {instead}; if (found && kind === 'webgl2') window.kinds.add(kind); return found; }};"
    )
    page = one.open(server.address)
    count_drawn = (
        "(() => { const c = document.querySelectorAll('[data-view=map] canvas')[1];"
        "const flat = new OffscreenCanvas(c.width, c.height).getContext('2d'); flat.drawImage(c, 0, 0);"
        "const d = flat.getImageData(0, 0, c.width, c.height).data; const grey = [0, 0];"
        "for (let i = 0; i < d.length; i += 4)"
        "  if (d[i + 3]) grey[Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) < 30 ? 1 : 0]++;"
        "return grey; })()"
    )
    counted = functools.partial(page.evaluate, count_drawn)
    coloured, _ = eventually(counted, lambda found: found[0] > max(TOTAL, 10 * found[1]))
    assert page.evaluate("[...window.kinds]") == ([] if kind == "none" else [kind])
    draw(page, "map", 0.3)
    expect(page.locator(".chip")).to_have_count(1)
    eventually(counted, lambda found: found[0] < coloured and found[1] > 10 * found[0] / TOTAL)
    one.check(server.base)
    one.context.close()
