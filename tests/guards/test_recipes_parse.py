"""Every recipe that ships is a checked recipe, says what it is for, and is listed."""

from __future__ import annotations

import pytest

from ossicle.training import recipe


@pytest.mark.parametrize("name", recipe.shipped())
def test_a_shipped_recipe_is_whole(name):
    loaded = recipe.load(name)
    assert loaded.recipe.name == name
    assert loaded.recipe.description
    assert loaded.recipe.stages


def test_an_override_reaches_the_recipe_and_a_misspelt_one_is_an_error():
    from ossicle.errors import ConfigError

    assert recipe.load("nano-smoke", ["stages.0.steps=7"]).recipe.stages[0].steps == 7
    with pytest.raises(ConfigError, match="steps"):
        recipe.load("nano-smoke", ["stages.0.stepps=7"])
