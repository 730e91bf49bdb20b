"""Each format's prose, and only it."""

import json
import time

import pytest

from moe_study.data.recipes.docs import manual, markup
from moe_study.data.recipes.docs.api import api_paragraphs
from moe_study.data.recipes.docs.descriptions import descriptions
from moe_study.data.recipes.docs.plain import dictionary_entries, pod_paragraphs, rfc_paragraphs
from moe_study.errors import DataError


def squeezed(paragraphs: object) -> list[str]:
    return [" ".join(text.split()) for text in paragraphs if text.strip()]  # type: ignore[attr-defined]


PAGE = """<!DOCTYPE html><html><head><title>Title</title><style>p > a {}</style></head>
<body class="wy-body-for-nav nav"><nav><ul><li>Home</li></ul></nav>
<div class="sphinxsidebar other"><div><p>Side</p></div></div>
<!-- <p>comment</p> -->
<h1>The <em>first</em> heading</h1><p>One &amp; two<br/>three <a href="x" title="a > b">four</a>.</p>
<pre>code <b>here</b></pre><script>if (a < b) { "</p>" }</script>
<div>loose text<p>inner</p>after</div><ul><li>item one<li>item two</ul>
<table><tr><td>cell</td><td class=toc>left <td>out</td></td></tr></table>
<p>5 < 6 and <unknown>tags</unknown></p></body></html>"""


def test_a_page_is_cut_at_its_blocks_and_code_and_navigation_are_left_out() -> None:
    assert squeezed(markup.paragraphs(PAGE)) == [
        "The first heading", "One & two", "three four.", "loose text", "inner", "after", "item one", "item two",
        "cell", "5 < 6 and tags",
    ]  # fmt: skip


def test_mallard_pages_are_read() -> None:
    page = (
        '<page xmlns="x"><info><desc>Not this</desc></info><title>Sound</title><p>Open <gui>Sound</gui>.</p>'
        "<steps><item><p>Click.</p></item></steps><media/></page>"
    )
    assert squeezed(markup.paragraphs(page)) == ["Sound", "Open Sound.", "Click."]


@pytest.mark.parametrize(
    "page",
    ["<" * 200_000, "<!--" * 50_000, '<a "' * 50_000, "<pre>" * 50_000, "<p " * 50_000, "<script>" * 20_000,
     "&amp" * 50_000, '<p class="' + "a " * 100_000, "<![CDATA[" * 30_000],
    ids=lambda page: page[:9],
)  # fmt: skip
def test_no_page_takes_long(page: str) -> None:
    started = time.process_time()
    list(markup.paragraphs(page))
    assert time.process_time() - started < 2


def test_a_page_says_its_encoding() -> None:
    assert markup.decoded("é".encode()) == "é"
    assert markup.decoded(b'<meta charset="iso-8859-1">\xe9').endswith("é")
    assert markup.decoded('<meta content="text/html; charset=EUC-JP">日本'.encode("euc-jp")).endswith("日本")
    for unknown in ("nobody-knows", "zlib", "rot13", "hex"):  # some that Python knows are none of texts
        assert markup.decoded(f'<meta charset="{unknown}">'.encode() + b"\xe9").endswith("é")


MANUAL = r""".\" comment
.TH LS 1 "2020" "GNU"
.SH NAME
ls \- list directory contents
.SH DESCRIPTION
List information about the
.BR FILE s
(the current directory by default).
.PP
See \fBsort\fR(1) or
.B "two words"
here\(aqs \[u00E9]\&.
.nf
code here
.fi
.TP
\-a, \fI\-\-all\fP
do not ignore
.I entries
"""


def test_a_manual_page_is_read_as_groff_sets_it() -> None:
    assert squeezed(manual.paragraphs(MANUAL)) == [
        "ls - list directory contents",
        "List information about the FILEs (the current directory by default).",
        "See sort(1) or two words here's é.",
        "-a, --all do not ignore entries",
    ]


def test_pages_in_another_dialect_or_that_only_point_elsewhere_give_nothing() -> None:
    assert squeezed(manual.paragraphs(".Dd May 1\n.Sh NAME\ntext")) == []
    assert squeezed(manual.paragraphs(".so man1/other.1\n")) == []


RFC = """Network Working Group                                        A. Author
Request for Comments: 9999                                    May 1999

   1. Introduction ................................................. 2
   2. Security ..................................................... 3

   This is the first paragraph, which
   is set on two lines.

   A sentence that goes on

Author                       Informational                      [Page 1]
\f
RFC 9999                  A Standard                         May 1999

   on the next page.

        +-----+      +-----+
        |  A  |----->|  B  |
        +-----+      +-----+

   The last, well-
   known paragraph.
"""


def test_a_standard_is_read_over_its_page_breaks_without_contents_and_drawings() -> None:
    found = squeezed(rfc_paragraphs(RFC))
    assert "This is the first paragraph, which is set on two lines." in found
    assert "A sentence that goes on on the next page." in found
    assert found[-1] == "The last, well-known paragraph."
    assert not any("Page" in text or "+--" in text or "...." in text for text in found)


def test_pod_without_code_and_codes() -> None:
    text = "=head1 NAME of B<this>\n\nProse with C<< a->b >>, L<perlfunc|x>,\nand I<more E<lt>5>.\n\n    code\n\n=cut\n"
    assert squeezed(pod_paragraphs(text)) == ["NAME of this", "Prose with a->b, perlfunc, and more <5."]


def test_a_dictionary_is_cut_at_its_head_words() -> None:
    text = "abbey\n  n 1: a church [syn: {minster}]\n\nabbot\n  n 1: the superior of an abbey [1913 Webster]\n"
    assert list(dictionary_entries(text)) == [
        ["abbey n 1: a church [syn: minster]", "abbot n 1: the superior of an abbey"]
    ]
    many = list(dictionary_entries("".join(f"w{n}\n  text\n" for n in range(450))))
    assert [len(entries) for entries in many] == [200, 200, 50]
    assert many[1][0] == "w200 text"


def test_a_service_gives_its_prose_once_as_html_or_plain() -> None:
    described = {
        "documentation": "<p>Does <code>this</code>.</p>",
        "shapes": [{"documentation": "<p>Does <code>this</code>.</p>"}, {"description": "Plain.\n\nMore."}],
        "description": {"type": "string", "description": "Of a field called description."},
    }
    assert squeezed(api_paragraphs(json.dumps(described).encode())) == [
        "Does this.", "Plain.", "More.", "Of a field called description.",
    ]  # fmt: skip
    for bad in (b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(DataError, match="is not JSON"):
            list(api_paragraphs(bad))


def test_descriptions_are_read_in_their_own_words() -> None:
    text = (
        "Package: 0ad\nDescription-md5: d94\nDescription-de: Echtzeit-Strategiespiel\n Erster Absatz,\n zweite Zeile.\n"
        " .\n Zweiter.\n  * Liste\n - Punkt eins\n   weiter\n - Punkt zwei\n\n"
        "Package: b\nDescription-md5: a\nDescription-de: Kurz\n"
    )
    assert list(descriptions(text.splitlines(keepends=True))) == [
        (
            "0ad",
            ["Echtzeit-Strategiespiel", "Erster Absatz, zweite Zeile.", "Zweiter.", "- Punkt eins", "- Punkt zwei"],
        ),
        ("b", ["Kurz"]),
    ]
