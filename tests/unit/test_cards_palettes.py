import pytest

from topicd.backends.embedded.cards.palettes import PALETTES, Palette, contrast, mix, palette_for

# The strongest glow lays 0.86 of its colour on the background, the shade under a title at least a third of night.
GLOW_SHARE = 0.86
SHADE_SHARE = 0.34
GLASS_SHARE = 0.21


def each_palette() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("palette", PALETTES, ids=lambda palette: palette.name)


def brightest_fields(palette: Palette) -> list[str]:
    return [palette.base, *(mix(palette.base, glow, GLOW_SHARE) for glow in palette.glows)]


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#ffffff") == 1


def test_there_are_enough_palettes_and_each_has_a_name() -> None:
    assert len({palette.name for palette in PALETTES}) == len(PALETTES) >= 8


@each_palette()
def test_title_and_overline_are_readable_where_the_light_is_strongest(palette: Palette) -> None:
    for field in brightest_fields(palette):
        shaded = mix(field, palette.night, SHADE_SHARE)
        assert contrast("#ffffff", shaded) >= 7
        assert contrast(palette.accent, shaded) >= 4.5


@each_palette()
def test_icons_stand_out_from_glass_over_the_strongest_light(palette: Palette) -> None:
    for field in brightest_fields(palette):
        assert contrast(palette.tint, mix(field, "#ffffff", GLASS_SHARE)) >= 3


@each_palette()
def test_the_palette_goes_from_dark_to_light(palette: Palette) -> None:
    assert contrast(palette.night, "#000000") < contrast(palette.base, "#000000") < 3


def test_a_job_seed_names_one_palette() -> None:
    assert palette_for(123) is palette_for(123)
    assert {palette_for(seed).name for seed in range(len(PALETTES))} == {palette.name for palette in PALETTES}
    assert palette_for(2**31 - 1) in PALETTES
