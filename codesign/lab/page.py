"""One self-contained HTML page: headings, pictures with their text, and every number as a table. No script, no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 78rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; } h3 { font-size: 1.05rem; }
nav a { margin-right: 1.2rem; } a { color: #00518a; }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid #d55e00; outline-offset: 2px; }
.skip { position: absolute; left: -100rem; } .skip:focus { left: 1rem; background: #fff; padding: .5rem; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; } figcaption { color: #444; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: left; padding: .2rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; } thead th { border-bottom: 2px solid #888; }
pre { background: #f6f6f6; padding: .8rem; font: .85rem/1.4 ui-monospace, monospace; margin: 0; white-space: pre; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; align-items: start; }
.beside > div { min-width: 0; } summary { cursor: pointer; padding: .3rem 0; }
@media print { details { display: block; } nav { display: none; } }
</style>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header><h1>{{ title }}</h1>{% for line in lead %}<p>{{ line }}</p>{% endfor %}
<nav aria-label="Sections">{% for section in sections %}<a href="#s{{ loop.index }}">{{ section.title }}</a>{% endfor %}</nav></header>
<main id="main">
{% for section in sections %}
<section aria-labelledby="s{{ loop.index }}">
<h2 id="s{{ loop.index }}">{{ section.title }}</h2>
{% for line in section.text %}<p>{{ line }}</p>{% endfor %}
{% for part in section.parts %}{{ part }}
{% endfor %}</section>
{% endfor %}
</main>
</body>
</html>
"""

_PICTURE = """<figure><div class="wide" tabindex="0" role="img" aria-label="{{ label }}">{{ svg }}</div>
<figcaption>{{ label }}</figcaption></figure>"""

_TABLE = """<div class="wide" tabindex="0" role="region" aria-label="{{ label }}"><table><caption>{{ label }}</caption>
<thead><tr>{% for head, number in heads %}<th scope="col"{% if number %} class="number"{% endif %}>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}\
<td{% if heads[loop.index0][1] %} class="number"{% endif %}>{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}</tbody></table></div>"""

_TEXTS = """<details><summary>{{ label }}</summary><div class="beside">{% for name, text in texts %}
<div><h3>{{ name }}</h3><div class="wide" tabindex="0" role="region" aria-label="{{ name }} of {{ label }}"><pre>{{ text }}</pre></div></div>
{% endfor %}</div></details>"""

_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)


@dataclass
class Section:
    """A part of a page under a heading; `parts` are what `picture`, `table` and `texts` give."""

    title: str
    text: list[str] = field(default_factory=list)
    parts: list[Markup] = field(default_factory=list)


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page."""
    return _environment.from_string(_TEMPLATE).render(title=title, lead=lead, sections=sections)


def picture(label: str, svg: str) -> Markup:
    """A picture that is said in words by its label; `svg` comes from `figures`, which escapes what it draws."""
    return Markup(_environment.from_string(_PICTURE).render(label=label, svg=Markup(svg)))


def table(label: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """Numbers as text; a column is set as numbers when its first cell that says something starts with one."""
    plain = [[_text(cell) for cell in row] for row in rows]
    shown = [[_breakable(cell) for cell in row] for row in plain]
    said = [next((row[at] for row in plain if row[at] not in ("", "–")), "") for at in range(len(heads))]
    numbers = [at > 0 and text.lstrip("-–+").lstrip("$")[:1].isdigit() for at, text in enumerate(said)]
    heads_shown = list(zip(heads, numbers, strict=True))
    return Markup(_environment.from_string(_TABLE).render(label=label, heads=heads_shown, rows=shown))


def texts(label: str, beside: Sequence[tuple[str, str]]) -> Markup:
    """Texts beside each other, folded away under a label."""
    return Markup(_environment.from_string(_TEXTS).render(label=label, texts=list(beside)))


def _breakable(text: str) -> Markup:
    """A cell whose long words (names of kernels, paths) may go on in the next line after what parts them, so that a table stays on the screen."""
    parts = re.split(r"(\S{20,})", text)
    return Markup("").join(
        Markup("<wbr>").join(re.findall(r"[^_./]*[_./]*", part)) if at % 2 else part for at, part in enumerate(parts)
    )


def _text(cell: Any) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
