from pathlib import Path

from moe_study.analysis.page.question import header_paragraphs, question_of


def test_the_first_paragraph_of_a_sweep_file_says_what_is_asked() -> None:
    lines = ["# Does it?", "# Or not?", "#", "#     python train.py", "#", "# Answers: it does.", "base: {}", "# late"]
    assert header_paragraphs("\n".join(lines)) == ["Does it? Or not?", "python train.py", "Answers: it does."]


def test_a_file_without_a_header_has_no_paragraphs() -> None:
    assert header_paragraphs("base: {}\n# late\n") == []


def test_the_committed_study_asks_its_question() -> None:
    question = question_of("first_look", [Path("runs")])
    assert question.heading == "first_look"
    assert question.paragraphs[0].startswith("The study's questions in small.") and "compare:" in question.file


def test_a_sweep_at_one_of_its_scales_asks_what_its_file_asks_and_names_whose_claims_it_tests() -> None:
    question = question_of("design/table1@cpu", [Path("runs")])
    assert question.heading == "design/table1@cpu" and question.source == "2402.13089, Table 1"
    assert question.paragraphs[0].startswith("Table 1 of 2402.13089")


def test_a_sweep_whose_file_is_gone_keeps_its_name() -> None:
    question = question_of("was_here_once", [Path("runs")])
    assert question.heading == "was_here_once" and "not there any more" in question.paragraphs[0]
