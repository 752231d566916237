"""Parsers: on 300 answers with their right reading beside them, precision at least 0.99 and recall at least 0.95."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ossicle.errors import ConfigError
from ossicle.evaluation import parse
from ossicle.evaluation.embedding import hash_embed
from ossicle.evaluation.nearest import NearestLabel
from ossicle.evaluation.phrasings import FILE, ask, phrasings, with_article
from ossicle.evaluation.refusal import questions
from ossicle.evaluation.task import shipped_specs

SOURCE = Path(parse.__file__).parents[1]
READ = yaml.load(Path(__file__).with_name("answers.yaml").read_text(), Loader=yaml.BaseLoader)


def readings():
    """Each answer with what a person and what the parser reads, as text; None = nothing."""
    for kind, by_truth in READ.items():
        vocabulary, parser = kind.split("/")
        words = parse.vocabularies().get(vocabulary, {})
        for truth, answers in by_truth.items():
            for answer in answers:
                said = parse.parse(parser, answer, words)
                said = ", ".join(map(str, said)) if isinstance(said, list) else said
                yield kind, answer, None if truth == "none" else truth, None if said is None else str(said)


def test_precision_and_recall_on_raw_answers():
    rows = [(k, a, t, s if s not in ("True", "False") else s.lower()) for k, a, t, s in readings()]
    assert len(rows) >= 300
    spoken = [row for row in rows if row[3] is not None]
    meant = [row for row in rows if row[2] is not None]
    wrong = [row for row in spoken if row[2] != row[3]]
    missed = [row for row in meant if row[3] is None]
    assert len(wrong) <= 0.01 * len(spoken), wrong
    assert len(missed) <= 0.05 * len(meant), missed


def test_choices_by_letter_and_text():
    options = ["a cat", "a dog", "rain"]
    for answer in ("B", "(b)", "b.", "The answer is B.", "B) a dog", "a dog", "I think it is a dog.", "Option B"):
        assert parse.choice(answer, options) == "a dog", answer
    for answer in ("", "A or B: (A) or (B)", "a cat or a dog", "an elephant", "d"):
        assert parse.choice(answer, options) is None, answer


@pytest.mark.parametrize(
    ("answer", "options", "picked"),
    [
        ("The answer is a dog.", ["cat", "dog"], "dog"),
        ("I hear a wail, so the answer is a siren", ["a bell", "a horn", "a siren"], "a siren"),
        ("The correct answer is a man speaking.", ["A woman singing", "A man speaking", "A dog"], "A man speaking"),
        ("The answer is a high-pitched bell", ["a horn", "a bell"], None),
        ("The answer is a.", ["cat", "dog"], "cat"),
        ("I think the answer is A", ["cat", "dog"], "cat"),
        ("I think the answer is A because it purrs.", ["cat", "dog"], "cat"),
        ("I think the answer is A, a cat.", ["cat", "dog"], "cat"),
        ("I think the answer is B because it barks.", ["cat", "dog"], "dog"),
        ("Option A is right", ["cat", "dog"], "cat"),
    ],
)
def test_an_article_is_no_letter(answer, options, picked):
    assert parse.choice(answer, options) == picked


DENIALS = """\
I don't think there is a dog barking.
I do not believe there is any rain in this clip.
I don't really think I hear a dog.
I hear nothing like that.
There is nothing of the kind.
There are none.
There is neither a dog nor rain.
There is hardly any sound, and no dog.
I can hear no dog.
I doubt there is a dog.
It is unlikely that there is a dog.
There is an absence of rain.
It is not the case that there is a dog."""
UNSURE = """\
I am not sure there is a dog.
I do not know whether there is a dog.
There is nothing but rain.
I hear nothing except a dog."""
AFFIRMATIONS = """\
There is a dog, not a cat.
There is a dog barking, but no rain.
I can hear a dog; nothing else.
There is a barely audible dog.
There is noise.
I hear noise.
I hear rain and I think there is a dog.
I think there is a dog."""


@pytest.mark.parametrize(("answers", "said"), [(DENIALS, False), (UNSURE, None), (AFFIRMATIONS, True)])
def test_a_denial_that_names_the_sound_is_no_yes(answers, said):
    assert {answer: parse.yes_no(answer) for answer in answers.splitlines()} == dict.fromkeys(
        answers.splitlines(), said
    )


def test_an_unknown_parser_is_named():
    with pytest.raises(ConfigError, match="no parser 'guess'; known: "):
        parse.parse("guess", "x")


@pytest.mark.parametrize("name", sorted(parse.vocabularies()))
def test_no_alias_belongs_to_two_labels(name):
    words = parse.vocabularies()[name]
    owners = [parse.plain(alias) for label, aliases in words.items() for alias in {label, *aliases}]
    assert len(owners) == len(set(owners)), sorted(x for x in owners if owners.count(x) > 1)
    for label in words:
        assert parse.label(label, words) == label
        assert parse.label(f"I hear {with_article(label)}.", words) == label


def test_every_row_asks_in_ten_ways_and_reads_a_known_vocabulary():
    for spec in shipped_specs().values():
        for row in spec.rows.values():
            if {"nano", "clips"} & set(spec.suites):
                assert len(set(phrasings()[row.ask])) >= 10, row.ask
            assert row.parser in parse.PARSERS
            if isinstance(row.vocabulary, str) and row.vocabulary:
                assert row.vocabulary in parse.vocabularies()
    assert "rain" in ask("presence", 0, sound="rain")


def test_nothing_that_trains_or_generates_reads_the_evaluation_questions():
    names = (FILE.name, "refusal.yaml", "evaluation.phrasings", "evaluation.refusal", "evaluation import phrasings")
    readers = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "evaluation" not in path.parts and any(name in path.read_text(encoding="utf-8") for name in names)
    ]
    assert readers == []


def test_questions_to_decline_are_not_those_of_training():
    trained = {line.strip("- \n\"'").lower() for path in SOURCE.glob("questions/*.yaml") for line in path.open()}
    assert trained
    assert not trained & {question.lower() for question in questions()}


def test_the_answers_of_the_sound_world_are_understood():
    from ossicle.world.sounds import SOURCES

    words = parse.vocabularies()["world"]
    assert set(words) == set(SOURCES)
    for source in SOURCES.values():
        assert parse.label(f"{source.spoken.capitalize()}.", words) == source.name


def test_levels_have_the_same_edges_in_questions_and_evaluation():
    from ossicle.evaluation import levels
    from ossicle.questions import levels as trained

    for name in ("LOUDNESS", "LOUDNESS_DB", "PITCH", "PITCH_HZ"):
        assert getattr(levels, name) == getattr(trained, name)
    assert list(parse.vocabularies()["loudness"]) == list(levels.LOUDNESS)
    assert list(parse.vocabularies()["pitch"]) == list(levels.PITCH)


def test_there_are_a_hundred_questions_to_decline():
    assert len(set(questions())) >= 100
    assert parse.refuses("I can only tell sounds and voices.")
    assert parse.refuses("I cannot answer that.")
    for answer in ("A dog.", "I hear rain, then a rooster: two sounds.", "No, there is not.", "The speaker is a man."):
        assert not parse.refuses(answer)


def test_meaning_decides_only_where_words_do_not():
    near = NearestLabel(hash_embed, "hash", least=0.5)
    words = {"dog bark": ["barking"], "rain": ["rainfall"], "helicopter": []}
    assert parse.label("barkin dog", words) is None
    assert near("barkin dog", words) == "dog bark"
    assert near("helicoptr", words) == "helicopter"
    for answer in ("", "an orchestra", "I cannot say, helicoptr", "not a helicoptr", "helicoptr or barkin", "rain"):
        assert near(answer, words) is None, answer
    assert near.facts() == {"embedder": "hash", "least_cosine": 0.5, "margin": 0.05}
