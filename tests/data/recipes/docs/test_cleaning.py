import pytest

from moe_study.data.recipes.docs.cleaning import FOREIGN, SEEN, UNTRANSLATED, Sieve, clean, is_in, key_of
from moe_study.data.tally import Tally

EN = "The window is closed when you press the button, and all of the changes are lost."
TEXTS = {
    "en": EN,
    "de": "Das Fenster wird geschlossen, wenn Sie die Schaltfläche drücken, und alle Änderungen sind verloren.",
    "fr": "La fenêtre est fermée quand vous appuyez sur le bouton, et toutes les modifications sont perdues.",
    "it": "La finestra viene chiusa quando si preme il pulsante e tutte le modifiche sono perse, come nella guida.",
    "es": "La ventana se cierra cuando se pulsa el botón, y todos los cambios que no se guardaron se pierden.",
    "ru": "Окно закрывается при нажатии кнопки GNOME, и все изменения теряются без предупреждения.",
    "ja": "ボタンを押すとウィンドウが閉じ、GNOME での変更はすべて失われます。",
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_paragraph_is_told_by_its_script_or_its_commonest_words(language: str) -> None:
    assert [one for one in TEXTS if is_in(language, TEXTS[one])] == [language]


def test_a_paragraph_that_nothing_tells_stays_where_it_was_found() -> None:
    names = "Linux, GNOME, Debian, LibreOffice, PostgreSQL, Python, Emacs"
    assert all(is_in(language, names) for language in ("en", "de", "fr", "it", "es"))
    assert not any(is_in(language, names) for language in ("ru", "ja"))
    assert not is_in("ja", "按下按钮后窗口关闭,所有更改都将丢失,恕不另行通知。")  # Chinese: no kana
    assert not any(is_in(one, "Το παράθυρο κλείνει όταν πατήσετε το κουμπί.") for one in TEXTS)


@pytest.mark.parametrize(
    "fragment",
    ["Too short.", "x" * 20_001, "1.2.3.4 5.6.7.8 9.10.11.12 {} [] == != 0x00 0x01 0x02 a b c d", "\ufffd" + EN,
     EN + "\x07", "|---|---|---|---|---|---|---|---|---|---|---|---|"],
    ids=["short", "list", "numbers", "broken", "control", "table"],
)  # fmt: skip
def test_what_is_no_text_is_left_out(fragment: str) -> None:
    assert list(clean([fragment, EN])) == [EN]


def test_text_is_brought_to_one_spelling() -> None:
    assert list(clean(["  The cafe\u0301\u00ad  is\n\topen to\xa0everybody\u200b who comes by. \ud800"])) == [
        "The café is open to everybody who comes by. ?"
    ]
    assert list(clean([TEXTS["ja"]])) == [TEXTS["ja"]]


def test_paragraphs_that_differ_in_numbers_capitals_and_marks_are_one() -> None:
    assert key_of("Chapter 3: The 10 Rules!") == key_of("chapter 12, the 7 rules")
    assert key_of("Chapter three") != key_of("Chapter four")


def test_a_paragraph_passes_once_in_a_language_and_never_if_it_stands_in_english() -> None:
    tally = Tally()
    sieve = Sieve(tally)
    assert sieve.new([EN, EN.upper(), TEXTS["de"]], "en") == [EN]
    assert sieve.new([EN, TEXTS["de"], TEXTS["de"], TEXTS["fr"]], "de") == [TEXTS["de"]]
    assert sieve.new([TEXTS["fr"]], "fr") == [TEXTS["fr"]]
    assert {reason: entry.count for reason, entry in tally.left_out.items()} == {SEEN: 2, FOREIGN: 2, UNTRANSLATED: 1}
