"""The page as one file: template, style and scripts in it, and a policy that lets nothing else run or be fetched.

Every script and style is named in the policy by its hash, so that markup which slipped into the page could neither run
nor load anything.
"""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from moe_study.analysis.format import LEAK_MARK
from moe_study.analysis.page.embedded import as_json, visible
from moe_study.analysis.page.tables import MARKS

FILES = Path(__file__).parent / "files"
SCRIPTS = ("page.js", "tables.js", "charts.js", "experts.js")


def document(content: dict[str, Any], data: dict[str, Any], mark: Callable[[str], str] = str) -> str:
    """The page's HTML; `content` is for files/page.html, `data` for its scripts, `mark` puts marks into sentences."""
    style = (FILES / "page.css").read_text(encoding="utf-8")
    scripts = [_drawing(), *((FILES / name).read_text(encoding="utf-8") for name in SCRIPTS)]
    template = _environment().get_template("page.html")
    return template.render(
        policy=_policy([style], scripts),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=Markup(as_json(data)),
        mark=mark,
        **content,
    )


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(FILES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        finalize=_finalize,
    )  # fmt: skip
    environment.filters["marks"] = _marks
    return environment


def _finalize(value: Any) -> Any:
    """Every text that the template prints, but what is markup already."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@jinja2.pass_context
def _marks(context: jinja2.runtime.Context, text: str) -> Markup:
    return with_marks(context["mark"](text))


def with_marks(text: str) -> Markup:
    """`text` escaped, its marks with what they mean for those who point at them or listen."""
    escaped = str(escape(visible(text)))
    for mark, meaning in MARKS.items():
        kind = "leak" if mark == LEAK_MARK else "mark"
        said = f'<abbr class="{kind}" title="{meaning}">{mark}<span class="unseen"> ({meaning})</span></abbr>'
        escaped = escaped.replace(mark, said)
    return Markup(escaped)


@cache
def _drawing() -> str:
    """Vega, Vega-Lite and Vega-Embed (BSD-3-Clause), as vl-convert brings them."""
    from vl_convert import javascript_bundle

    bundle: str = javascript_bundle("window.vegaEmbed = vegaEmbed;").strip()
    if "</script" in bundle.lower() or "<!--" in bundle:
        raise ValueError("the drawing library holds a sign that would end its script element")
    return f"(() => {{{bundle}\n}})();"


def _policy(styles: list[str], scripts: list[str]) -> str:
    """Content-Security-Policy: these scripts and styles, pictures made by them, and nothing else."""
    parts = {
        "default-src": ["'none'"],
        "script-src": [_hash(script) for script in scripts],
        "style-src": [_hash(style) for style in styles],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(values)}" for name, values in parts.items())


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
