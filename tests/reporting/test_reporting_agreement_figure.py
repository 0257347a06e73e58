import math

import pytest
from made_results import judges_agreement
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from esr.errors import UserError
from esr.reporting import figures
from esr.reporting.agreement_figure import STATISTICS, agreement_matrix, agreement_numbers, agreement_table

PAIRS = judges_agreement("a/one", "b/two", "c/three")


def texts(axis):
    return [text.get_text() for text in axis.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_one_cell_for_each_pair_in_both_matrices(width):
    figure = agreement_matrix(PAIRS, width=width)
    for axis, key in zip(figure.axes, ("raw", "kappa"), strict=True):
        cells = [patch for patch in axis.patches if isinstance(patch, Rectangle) and patch.get_fill()]
        assert len(cells) == 3
        for pair in PAIRS:
            value = getattr(pair, key).value
            assert (f"{100 * value:.1f} %" if key == "raw" else f"{value:.2f}") in texts(axis)
            assert any(text.endswith(f"n = {getattr(pair, key).n}") for text in texts(axis))
        assert {"one", "two", "three"} <= set(texts(axis))
    assert figures.svg(figure) == figures.svg(agreement_matrix(PAIRS, width=width))


def test_two_judges_are_one_cell_and_one_is_refused():
    assert len(agreement_matrix(PAIRS[:1]).axes[0].patches) == 2  # its colour and its edge
    with pytest.raises(UserError, match="two judges"):
        agreement_matrix(())


def test_numbers_and_table_have_every_pair_and_estimate():
    numbers, table = agreement_numbers(PAIRS), agreement_table(PAIRS)
    assert len(numbers) == len(table.rows) == 3
    for row, pair in zip(numbers.to_dict("records"), PAIRS, strict=True):
        assert (row["judge"], row["other_judge"]) == pair.judges
        for key in STATISTICS:
            estimate = getattr(pair, key)
            found = row[key], row[f"{key}_low"], row[f"{key}_high"], row[f"{key}_n"]
            assert found == pytest.approx((estimate.value, estimate.low, estimate.high, estimate.n), nan_ok=True)
    assert all(len(row) == len(table.header) for row in table.rows)
    first = PAIRS[0]
    assert table.rows[0][1].startswith(f"{100 * first.raw.value:.1f} %")
    assert f"{first.n} both scored" in table.rows[0][-1]
    assert not math.isnan(first.kappa.value)
