"""Type checkers know every setting, and no other."""

from dataclasses import fields
from typing import get_type_hints

import pytest

from fewshotseg.models import PrototypeConfig, SCNetConfig
from fewshotseg.models.settings import PrototypeSettings, SCNetSettings


@pytest.mark.parametrize(("settings", "config"), [(SCNetSettings, SCNetConfig), (PrototypeSettings, PrototypeConfig)])
def test_settings_are_the_fields_of_the_config(settings, config):
    types = get_type_hints(config)
    assert get_type_hints(settings) == {
        each.name: types[each.name] for each in fields(config) if each.name != "backbone"
    }
