"""The tables of docs/evaluation.md can be printed, and what they say still holds."""

import pytest


@pytest.mark.slow
def test_tables(capsys):
    pytest.importorskip("lpips")
    from tests.hardening import agreement

    agreement.main()
    metrics, predictors = capsys.readouterr().out.strip().split("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in metrics.splitlines()[2:]]
    assert len(rows) >= 3 * 8 + 2 + 3 + 2
    for name, _, values, difference in rows:
        largest = float(values.split()[-1])
        limit = 0.05 if "both random" in name else 1e-5
        assert float(difference) <= limit * max(1.0, largest), name
    assert "nan" not in predictors.lower() and "srvp: true frames | inf [inf, inf] | 1.0000" in predictors
