"""The page in a real Chromium: it sorts, asks no network, fits a phone, prints; all names are text."""

import hashlib
import re

import pytest
from chromium import PROGRAM, Chromium, Ended
from states import Past

from scons_tensorrt.artifact.sensitivity_file import keep
from scons_tensorrt.report import write_report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")

EVIL = "<img src=http://127.0.0.1:9/x onerror=alert(1)><script>alert(2)</script>\"'&\u202egnp.\x00\ud800"
ROW = {
    "corner": "max",
    "shapes": "`x` [8, 16]",
    "runs": 1,
    "outputs": {"y": {"error": 0.01, "bound": 0.02}, "index": {"error": 3.0, "bound": None}},
    "rows": "kept apart",
    "note": "run once",
    "seconds": 1.25,
}
CORNERS = {"seed": 0, "judged": "the bound, finite values and rows", "seconds": 1.5, "table": [ROW]}
HISTOGRAM = {"low": -1.0, "high": 3.0, "original": [0, 9, 1, 0], "converted": [1, 8, 0, 1]}
OUTPUTS = {"y": {"error": 0.01, "bound": 0.02, "histogram": HISTOGRAM}}
QUANTIZED = {"layers": 3, "of": 4, "macs": 0.9876, "in_float": ["last (MatMul)"], "beside": {}}
FIGURES = {
    "metric": "elemwise",
    "samples": 4,
    "outputs": OUTPUTS,
    "corners": CORNERS,
    "quantized": QUANTIZED,
}
LAYERS = {
    "kind": "8 bit",
    "samples": 4,
    "drawn": False,
    "metric": "elemwise",
    "all": {"output": "y", "error": 0.01, "bound": 0.02},
    "noise": {"output": "y", "error": 0.001, "bound": 0.02},
    "of": 14,
    "layers": [
        {"layer": f"conv_{n}", "op": "Conv", "output": "y", "error": 0.0005 * (n + 9), "bound": 0.02}
        for n in range(14)
    ],
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    try:
        found = Chromium(tmp_path_factory.mktemp("profile"))
    except Ended as error:  # Ubuntu's chromium-browser only says where the real one is
        pytest.skip(f"{PROGRAM} does not start: {error}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Three engines built and one failed, of names of usual and of greatest length."""
    past = Past(tmp_path_factory.mktemp("page") / "tree")
    onnx = past.state.onnx / "small.int8.onnx"
    onnx.parent.mkdir(parents=True)
    onnx.write_bytes(b"an ONNX")
    keep(past.state, hashlib.sha256(b"an ONNX").hexdigest(), LAYERS)
    declared = {"onnx": past.state.relative(onnx)}
    accuracy = {"onnx": FIGURES, "engine": "not run"}
    past.engine("small", b"s" * 1_000, 0, 9, accuracy=accuracy, declared=declared)
    past.engine("large", b"l" * 200_000, 1, 20)
    past.engine("m" * 64, b"m" * 30_000, 9, 2.5)
    error = {"error_class": "EngineBuildError", "reason_text": "node `conv_1`: unsupported " + "x" * 300}
    past.engine("broken", None, 20, 0.5, said={**error, "outcome": "failed", "reason": "error"})
    past.save()
    folder = past.top / "report"
    write_report(past.state, past.digest_cache(), folder)
    return folder / "index.html"


def column(browser, name):
    """The cells of a column of engines, from top to bottom."""
    cells = f"[...document.querySelectorAll('#engines tbody tr')].map(row => {name})"
    return browser.ask(cells)


NAMES = "row.querySelector('th a').textContent"


def click(browser, title):
    browser.ask(
        "[...document.querySelectorAll('#engines thead th button')]"
        f".find(each => each.textContent === {title!r}).click()"
    )


def overflow(browser):
    return browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def quiet(browser, page):
    """Nothing but the page itself was asked for, and nothing was complained of."""
    return browser.requests == [page.as_uri()] and browser.complaints == []


def test_a_column_is_sorted_up_then_down(browser, page):
    browser.open(page)
    assert column(browser, NAMES) == ["small", "large", "m" * 64, "broken"]
    click(browser, "Size")
    assert column(browser, NAMES) == ["small", "m" * 64, "large", "broken"]  # what has none is last
    click(browser, "Size")
    assert column(browser, NAMES) == ["large", "m" * 64, "small", "broken"]
    head = "document.querySelector('#engines th[aria-sort]')"
    assert browser.ask(f"[{head}.textContent, {head}.ariaSort]") == ["Size", "descending"]
    click(browser, "Engine")
    assert column(browser, NAMES) == ["broken", "large", "m" * 64, "small"]
    assert quiet(browser, page)


def test_a_filter_shows_what_has_its_words(browser, page):
    browser.open(page)
    browser.ask(
        "document.getElementById('filter').value = 'FAILED broken';"
        "document.getElementById('filter').dispatchEvent(new Event('input'))"
    )
    assert column(browser, "row.hidden") == [True, True, True, False]
    assert browser.ask("document.getElementById('filtered').textContent") == "1 of 4 shown"


def test_a_link_opens_what_it_leads_to(browser, page):
    browser.open(page)
    assert browser.ask("document.querySelectorAll('details[open]').length") == 0
    browser.ask("document.querySelector('#engines tbody a').click()")
    browser.ask("0")  # the browser has followed it
    assert browser.ask("document.getElementById('e0').open")


def test_the_corners_are_a_table_with_the_error_of_each_output(browser, page):
    browser.open(page)
    browser.ask("document.getElementById('e0').open = true")
    table = "[...document.querySelectorAll('#e0 table')].find(each => each.caption.textContent == 'Corners')"
    cells = browser.ask(f"[...{table}.querySelectorAll('tbody tr > *')].map(each => each.innerText.trim())")
    outputs = "y 0.01 of 0.02\nindex 3 of no bound: it jumps by itself\nrun once"
    assert cells == ["max", "`x` [8, 16]", "1", outputs, "kept apart", "1.25 s"]
    assert "Seed 0; 1.50 s on the CPU" in browser.ask(f"{table}.parentNode.innerText")


def test_error_by_layer_is_a_plot_and_a_table_of_what_costs_most(browser, page):
    browser.open(page)
    browser.ask("document.getElementById('e0').open = true")
    plot = "document.querySelector('#e0 svg[aria-label^=\"Error by layer: conv_0 (Conv), \"]')"
    bars = browser.ask(
        f"[...{plot}.querySelectorAll('rect:has(title)')].map(each => "
        "[each.className.baseVal, Math.round(each.getBoundingClientRect().height), each.textContent])"
    )
    assert len(bars) == 14
    assert bars[0] == ["f-built", 102, "conv_0 (Conv): error 0.0045, −55 %"]  # of 120 pixels for 55 + 10 %
    assert [bars[n][0] for n in (8, 9, 10, 12)] == ["f-built", "bar", "bar", "rise"]  # the noise is 10 %
    assert bars[13][2] == "conv_13 (Conv): error 0.011, +10 %"
    found = "each => each.caption.textContent == 'Layers that cost most'"
    rows = browser.ask(
        f"[...[...document.querySelectorAll('#e0 table')].find({found}).tBodies[0].rows].length"
    )
    assert rows == 9
    assert "move the outputs by 0.001 of 0.02" in browser.ask("document.getElementById('e0').innerText")


def test_the_values_of_an_output_are_a_histogram(browser, page):
    browser.open(page)
    browser.ask("document.getElementById('e0').open = true")
    plot = "document.querySelector('#e0 .plots svg')"
    words = browser.ask(f"{plot}.getAttribute('aria-label')")
    assert words == "y: values from -1 to 3; 20.00% of the values in another bin"
    assert browser.ask(f"{plot}.querySelectorAll('rect').length") == 2  # of the original
    heights = browser.ask(f"[...{plot}.querySelectorAll('rect')].map(e => e.getBoundingClientRect().height)")
    assert heights[0] > 3 * heights[1]  # 9 values and 1, on a logarithmic scale
    text = browser.ask("document.getElementById('e0').innerText")
    assert "In 8 bit: 3 of 4 layers, 98.8 % of the multiplications. In float: last (MatMul)." in text


@pytest.mark.parametrize("width", [320, 390, 768, 1001, 1280, 1920])
def test_no_width_makes_the_page_wider_than_its_window(browser, page, width):
    browser.open(page, width=width)
    browser.ask("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert overflow(browser) == 0
    assert quiet(browser, page)


def test_on_a_phone_a_cell_names_its_column(browser, page):
    browser.open(page, width=390)
    cell = "document.querySelector('#engines td[data-label=Size]')"
    assert browser.ask(f"getComputedStyle({cell}, '::before').content") == '"Size"'
    click(browser, "Size")
    assert column(browser, NAMES)[0] == "small"


LUMINANCE = """
(() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const of = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = of(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] > 0) { return color; }
    }
    return [255, 255, 255];
  };
  const poor = [];
  document.querySelectorAll('details').forEach(each => { each.open = true });
  document.querySelectorAll('body *').forEach(node => {
    const words = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
    if (!words || ['SCRIPT', 'STYLE', 'title', 'text'].includes(node.tagName)) { return; }
    const pair = [light(of(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) { poor.push([node.tagName, node.className, node.textContent.slice(0, 40), ratio]); }
  });
  return poor;
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_keeps_its_contrast_in_light_and_dark(browser, page, dark):
    browser.open(page, dark=dark)
    background = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 22, 28)") is dark
    assert browser.ask(LUMINANCE) == []


def test_every_table_has_a_caption_and_scopes_and_every_drawing_words(browser, page):
    browser.open(page)
    assert browser.ask("document.querySelectorAll('table').length") >= 2
    lacking = (
        "document.querySelectorAll('th:not([scope]), table:not(:has(caption)), "
        "section:not([aria-labelledby]), input:not([id]), "
        "svg:not([aria-hidden]):not([aria-label]):not([aria-hidden] svg)').length"
    )
    assert browser.ask(lacking) == 0
    assert browser.ask("[document.documentElement.lang, document.title]") == ["en", "Engines of tree"]
    names = browser.ask("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(names) == len(set(names))


def test_without_javascript_the_page_is_whole(browser, page):
    browser.open(page, scripts=False)
    assert column(browser, NAMES) == ["small", "large", "m" * 64, "broken"]
    assert browser.ask("document.querySelectorAll('th button').length") == 0
    assert browser.ask("getComputedStyle(document.querySelector('.tools')).display") == "none"
    browser.do("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(browser, page):
    browser.open(page, dark=True)
    pdf = browser.printed()
    assert pdf.startswith(b"%PDF-")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 6
    assert browser.ask("document.querySelectorAll('details:not([open])').length") == 0
    heads = "getComputedStyle(document.querySelector('#engines thead th'), '::before').content"
    browser.do("Emulation.setEmulatedMedia", media="print")
    assert browser.ask(heads) == '"Engine"'  # a button is not printed again on the next page


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of 250 engines; those whose number ends in 7 failed."""
    past = Past(tmp_path_factory.mktemp("many") / "tree")
    said = {"error_class": "EngineBuildError", "reason_text": "because", "outcome": "failed"}
    for n in range(250):
        failed = n % 10 == 7
        past.engine(f"m{n:03}", None if failed else b"x" * (1000 - n), n, said=said if failed else {})
    past.save()
    write_report(past.state, past.digest_cache(), past.top / "report")
    return past.top / "report/index.html"


def words_of(browser, name):
    return browser.ask(f"document.querySelector('[data-pages={name}] span').textContent")


def press(browser, title):
    browser.ask(
        "[...document.querySelectorAll('[data-pages=engines] button')]"
        f".find(each => each.textContent === {title!r}).click()"
    )


def test_a_long_table_shows_a_page_at_a_time(browser, many, page):
    browser.open(many)
    assert column(browser, NAMES) == [f"m{n:03}" for n in range(100)]
    assert words_of(browser, "engines") == "1–100 of 250"
    assert browser.ask("document.querySelectorAll('#details details').length") == 100
    press(browser, "Next")
    press(browser, "Next")
    assert column(browser, NAMES) == [f"m{n:03}" for n in range(200, 250)]
    assert browser.ask("document.getElementById('e249').textContent").startswith("m249 ")
    assert browser.ask("document.querySelectorAll('#details details').length") == 50
    assert words_of(browser, "engines") == "201–250 of 250"
    assert quiet(browser, many)
    browser.open(page)
    assert browser.ask("document.querySelectorAll('[data-pages], noscript').length") == 0


def test_a_long_table_is_sorted_and_filtered_as_a_whole(browser, many):
    browser.open(many)
    click(browser, "Size")
    sizes = [n for n in reversed(range(250)) if n % 10 != 7]
    assert column(browser, NAMES) == [f"m{n:03}" for n in sizes[:100]]
    browser.ask(
        "document.getElementById('filter').value = 'failed m2';"
        "document.getElementById('filter').dispatchEvent(new Event('input'))"
    )
    assert column(browser, NAMES) == ["m207", "m217", "m227", "m237", "m247"]
    assert words_of(browser, "engines") == "1–5 of 5"
    assert browser.ask("document.getElementById('filtered').textContent") == "5 of 250 shown"
    assert browser.ask("document.querySelector('#details details').id") == "e207"


def test_a_link_shows_the_page_of_what_it_leads_to(browser, many):
    browser.open(many)
    browser.ask("[...document.querySelectorAll('#attention a')].find(a => a.hash === '#e147').click()")
    browser.ask("0")
    assert browser.ask("document.getElementById('e147').open")
    assert words_of(browser, "engines") == "101–200 of 250"


def test_a_link_ends_a_filter_that_hides_what_it_leads_to(browser, many):
    browser.open(many)
    browser.ask(
        "document.getElementById('filter').value = 'm10';"
        "document.getElementById('filter').dispatchEvent(new Event('input'))"
    )
    assert words_of(browser, "engines") == "1–10 of 10"
    browser.ask("location.hash = '#e207'")
    browser.ask("0")
    assert words_of(browser, "engines") == "201–250 of 250"
    assert browser.ask("document.getElementById('filter').value") == ""
    assert browser.ask("document.getElementById('filtered').textContent") == ""


def test_the_same_link_leads_back_after_a_page_was_turned(browser, many):
    browser.open(many)
    follow = "[...document.querySelectorAll('#attention a')].find(a => a.hash === '#e147').click()"
    browser.ask(follow)
    press(browser, "Next")
    assert words_of(browser, "engines") == "201–250 of 250"
    browser.ask(follow)
    browser.ask("0")
    assert browser.ask("document.getElementById('e147').open")


def test_the_button_says_what_it_does_to_the_details_of_each_page(browser, many):
    browser.open(many)
    button = "document.getElementById('open-all')"
    browser.ask(f"{button}.click()")
    assert browser.ask(f"{button}.textContent") == "Close all details"
    press(browser, "Next")
    assert browser.ask("document.querySelectorAll('details[open]').length") == 0
    assert browser.ask(f"{button}.textContent") == "Open all details"


def test_without_javascript_a_long_table_is_whole(browser, many):
    browser.open(many, scripts=False)
    assert column(browser, NAMES) == [f"m{n:03}" for n in range(250)]
    assert browser.ask("document.querySelectorAll('#details details').length") == 250
    browser.do("Emulation.setScriptExecutionDisabled", value=False)


def test_names_of_strangers_are_text(browser, tmp_path):
    past = Past(tmp_path / "tree")
    evil = {
        "name": EVIL,
        "source": EVIL,
        "original": EVIL,
        "onnx": "m.onnx",
        "hardware": EVIL,
        "ingredients": {"hardware gpu_name": EVIL, f"option {EVIL}": EVIL},
        "recipe": {"precision": EVIL, "profiles": [{EVIL: [[EVIL], [1], [2]]}]},
    }
    said = {"reason_text": EVIL, "error_class": EVIL, "outcome": "failed", "model_name": EVIL}
    past.engine("a", None, declared=evil, said={**said, "reason": "engine_tampered"})
    facts = {EVIL: EVIL, "converter": {EVIL: EVIL}}
    evil_plot = {"low": 0, "high": 1, "original": [1, EVIL, -5, 1e999], "converted": [EVIL, 1e300, 0, None]}
    evil_outputs = {EVIL: {"error": 1e999, "histogram": evil_plot}}
    evil_row = dict.fromkeys(ROW, EVIL) | {"outputs": evil_outputs}
    evil_figures = {"outputs": evil_outputs, "corners": {"judged": EVIL, "table": [evil_row, EVIL]}}
    evil_figures["quantized"] = {"layers": 1, "of": 2, "macs": EVIL, "in_float": [EVIL, 3]}
    told = {
        "accuracy": {"onnx": {"metric": EVIL, **evil_figures}, "engine": {"gpu": EVIL, **evil_figures}},
        "inputs": [{"role": "onnx", "name": EVIL, "sha256": "0" * 64}],
        "made_by": [{"kind": EVIL, "file": EVIL, "facts": facts}],
        "worker": {EVIL: EVIL},
        "log": EVIL,
    }
    onnx = past.state.onnx / "b.onnx"
    onnx.parent.mkdir(parents=True)
    onnx.write_bytes(b"an ONNX")
    layer = {"layer": EVIL, "op": EVIL, "output": EVIL, "error": 1e308, "bound": 0}
    layers = [{**layer, "error": 0.1, "bound": 1}, layer, EVIL]
    whole = {"error": 1, "bound": 1, "output": EVIL}
    evil_layers = {"kind": EVIL, "metric": EVIL, "all": whole, "layers": layers, "noise": {"error": 1e999}}
    keep(past.state, hashlib.sha256(b"an ONNX").hexdigest(), evil_layers)
    past.engine("b", b"engine", declared={"onnx": past.state.relative(onnx)}, **told)
    past.event("engine.convert.done", 3, engine=EVIL, outcome="failed", reason_text=EVIL, run="run1")
    past.save()
    page = tmp_path / "out/index.html"
    write_report(past.state, past.digest_cache(), page.parent)
    browser.open(page)
    browser.ask("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert quiet(browser, page)
    assert browser.ask("document.querySelectorAll('img, body script').length") == 1  # its own
    assert browser.ask("document.body.textContent.includes('<script>alert(2)</script>')")
    assert "\u202e" not in page.read_text(encoding="utf-8")
    assert overflow(browser) == 0


def test_what_gets_into_the_page_all_the_same_cannot_run(browser, page, tmp_path):
    """The second wall: the policy, should the first one have a hole."""
    broken = tmp_path / "index.html"
    hole = "<script>document.title = 1</script><img src=http://127.0.0.1:9/x onerror='document.title = 1'>"
    broken.write_text(page.read_text().replace("<main>", f"<main>{hole}<style>h1{{color:#123456}}</style>"))
    browser.open(broken)
    assert browser.ask("document.title") == "Engines of tree"
    assert browser.ask("getComputedStyle(document.querySelector('h1')).color") != "rgb(18, 52, 86)"
    assert [each for each in browser.requests if each.startswith("http")] == []


def test_engines_of_several_boards_say_which(browser, tmp_path):
    past = Past(tmp_path / "tree")
    past.engine("a", b"a", declared={"hardware": "orin_nx"})
    past.engine("b", b"b", declared={"hardware": "orin_nano"})
    past.save()
    page = tmp_path / "out/index.html"
    write_report(past.state, past.digest_cache(), page.parent)
    for width in (320, 1001, 1280):
        browser.open(page, width=width)
        assert overflow(browser) == 0
    cells = column(browser, "row.querySelector('[data-label=Hardware]').textContent")
    assert cells == ["orin_nx", "orin_nano"]
    assert "orin_nano (Orin, sm87, 16 GiB, aarch64, TensorRT 10.3.0.30)" in browser.ask(
        "document.querySelector('header').textContent"
    )


def test_many_failures_leave_the_page_readable(browser, tmp_path):
    past = Past(tmp_path / "tree")
    for n in range(50):
        past.engine(f"n{n}", None, said={"outcome": "failed", "reason_text": "no"})
    past.save()
    page = tmp_path / "out/index.html"
    write_report(past.state, past.digest_cache(), page.parent)
    browser.open(page)
    assert browser.ask("document.querySelectorAll('.attention li').length") == 30
    assert "And 20 more: see the table" in browser.ask("document.body.textContent")


@pytest.mark.slow
def test_a_thousand_engines(browser, tmp_path):
    past = Past(tmp_path / "tree")
    for n in range(1000):
        past.engine(f"net_{n:04}", b"%04d" % n * (n + 1), n / 20, 0.04 + n % 7 / 5)
    past.save(70.0)
    page = tmp_path / "out/index.html"
    write_report(past.state, past.digest_cache(), page.parent)
    assert page.stat().st_size < 5_000_000
    browser.open(page, width=390)
    assert overflow(browser) == 0
    click(browser, "Size")
    click(browser, "Size")
    assert column(browser, NAMES)[0] == "net_0999"
    assert browser.ask("document.querySelectorAll('.timeline li').length") < 60
