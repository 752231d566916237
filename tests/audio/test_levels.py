"""Five levels: the `<` rule, and the F0 phrases of LTU-AS row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ossicle.audio.levels import F0_CUTS_HZ, LEVELS, f0_phrase, five_levels
from ossicle.errors import DataError


def test_a_value_at_a_cut_belongs_to_the_upper_level() -> None:
    cuts = (1.0, 2.0, 3.0, 4.0)
    assert [five_levels(value, cuts) for value in (0.99, 1.0, 2.0, 3.0, 4.0)] == list(LEVELS)
    assert [five_levels(cut - 1e-9, cuts) for cut in cuts] == list(LEVELS[:-1])
    assert five_levels(-1e9, cuts) == "very low"


@pytest.mark.parametrize("cuts", [(1, 2, 3), (1, 2, 3, 4, 5), (1, 1, 2, 3), (4, 3, 2, 1)])
def test_cut_points_must_rise(cuts: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="four rising"):
        five_levels(1.0, cuts)


def test_nan_and_other_genders_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        five_levels(float("nan"), (1, 2, 3, 4))
    for gender in ("unknown", "Male", ""):
        with pytest.raises(DataError, match="expected 'male' or 'female'"):
            f0_phrase(200.0, gender)


def test_the_top_range_reads_as_its_cut_unless_compat() -> None:
    assert f0_phrase(300.0, "male") == "very high (>180 Hz)"
    assert f0_phrase(300.0, "female") == "very high (>270 Hz)"
    assert f0_phrase(300.0, "male", compat=True) == "very high (>240 Hz)"
    assert f0_phrase(94.9, "male") == "very low (<95 Hz)"


def test_parity_with_the_official_phrases(golden_root: Path) -> None:
    rows = json.loads((golden_root / "ltu_data" / "pitch_by_gender.json").read_text())
    assert len(rows) == 135
    for row in rows:
        official = row if "phrase" in row else row["voxceleb"]
        assert f0_phrase(row["f0"], row["gender"], compat=True) == official["phrase"]
        word = official["word"]
        assert five_levels(row["f0"], F0_CUTS_HZ.get(row["gender"], F0_CUTS_HZ["female"])) == word
        if row["gender"] in F0_CUTS_HZ and word != "very high":
            assert f0_phrase(row["f0"], row["gender"]) == official["phrase"]
