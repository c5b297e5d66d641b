"""The pages of the benchmarks of the whole pipeline, from results as the programs measure them."""

from __future__ import annotations

from benchmarks.measure import Measurement
from benchmarks.our_pipeline import OurRun
from benchmarks.pipeline import Result, page
from benchmarks.scale import table


def test_medians_and_ratios_to_ours() -> None:
    ours = [Result(seconds, 1000.0, 0.97, {"Trainer": 20.0, "InfraValidator": 10.0}) for seconds in (50.0, 40.0, 90.0)]
    text = page({"a": ours, "b": [Result(200.0, 2500.0)] * 3, "c": [Result(25.0, 500.0, 0.98)] * 3}, 0.25)
    assert "| mnist-tfx run | 50.0 | 1.00 | 1,000 | 1.00 | 0.9700 |" in text
    assert "| TFX's own example | 200.0 | 4.00 | 2,500 | 2.50 |  |" in text
    assert "| plain Keras script | 25.0 | 0.50 | 500 | 0.50 | 0.9800 |" in text
    assert "without it ours takes 40.0 s, TFX's 5.00 times that" in text
    assert "Seconds of mnist-tfx run: Trainer 20.0, InfraValidator 10.0, imports and the rest 20.0." in text
    assert "load average 0.2 before. Medians of 3 rounds" in text and " processors, " in text


def test_growth_with_the_data() -> None:
    runs = {
        times: OurRun(Measurement(10.0 * times, 900.0 + times, ""), {"Trainer": 5.0 * times, "Baseline": 0.0}, 0.97)
        for times in (1, 10)
    }
    assert table(runs).splitlines()[2:] == [
        "| seconds | 10.0 | 100.0 | 10.00 |",
        "| peak MiB | 901.0 | 910.0 | 1.01 |",
        "| Trainer | 5.0 | 50.0 | 10.00 |",
        "| Baseline | 0.0 | 0.0 |  |",
    ]
