"""At what strength? The same grid at multiples of each direction's own threshold."""

from esr.studies.conditions import Condition

QUESTION = "How does resistance depend on the strength of steering?"
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def conditions() -> list[Condition]:
    """One condition per factor."""
    return [Condition(f"boost x{factor:g}", boost_factor=factor) for factor in FACTORS]
