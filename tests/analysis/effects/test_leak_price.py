import dataclasses

import pytest

from moe_study.analysis.comparison import Asked, as_one_family, measure
from moe_study.analysis.effects.leak_price import leak_prices
from moe_study.analysis.effects.rows import leak_price_frame
from moe_study.analysis.effects.wording import price_sentence
from moe_study.analysis.frame import done, load_frame
from moe_study.design.routing import Context, Gate, Routing, Unit
from tests.analysis import planted

PREFIX = dataclasses.replace(planted.SEQUENCE_2, context=Context.PREFIX, prefix_length=16)
FIRST = dataclasses.replace(planted.SEQUENCE_2, context=Context.FIRST_TOKEN)
OTHER_GATE = dataclasses.replace(PREFIX, gate=Gate.SOFTMAX_THEN_PICK)
RUNNING = Routing(k=2, unit=Unit.TOKEN, context=Context.RUNNING_MEAN, gate=Gate.DOUBLE_SOFTMAX)


def runs(tmp_path, routings, effects, **more):
    planted.plant(tmp_path, routings, effects, **{"seeds": range(4), **more})
    return done(load_frame([tmp_path]))


def test_every_trained_causal_twin_prices_the_leak_and_no_other_point_does(tmp_path):
    points = (planted.SEQUENCE_2, PREFIX, FIRST, RUNNING, OTHER_GATE, planted.TOKEN_2)
    found = leak_prices(runs(tmp_path, points, (0.0, 0.08, 0.06, 0.05, 0.3, 0.2), noise_sd=0.001))
    prices = {price.twin: price for price in found}
    (leaking,) = {price.leaking for price in found}
    assert leaking.startswith("sequence top-2") and "unit mean" in leaking
    assert len(prices) == 3
    assert sorted(price.nats for price in found) == pytest.approx([0.05, 0.06, 0.08], abs=0.003)
    by_change = {price.changed: price for price in found}
    assert by_change["routing.context=first_token"].nats == pytest.approx(0.06, abs=0.003)
    said = price_sentence(by_change["routing.context=first_token"])
    assert f" † gains {by_change['routing.context=first_token'].nats:.4f} nats per token (" in said
    assert "by reading later tokens" in said and "not planned, so not tested" in said


def test_a_twin_may_have_any_length_of_prefix(tmp_path):
    short = dataclasses.replace(PREFIX, prefix_length=5)
    (price,) = leak_prices(runs(tmp_path, (planted.SEQUENCE_2, short), (0.0, 0.1)))
    assert price.nats == pytest.approx(0.1, abs=0.02)


def test_the_tested_comparison_prices_the_leak_whichever_way_round_it_was_asked(tmp_path):
    frame = runs(tmp_path, (planted.SEQUENCE_2, PREFIX), (0.0, 0.08))
    leaks = frame["leaks"].astype(bool)
    leaking, twin = frame[leaks]["label"].iloc[0], frame[~leaks]["label"].iloc[0]
    for pair in ((leaking, twin), (twin, leaking)):
        (price,) = leak_prices(frame, as_one_family(measure(frame, [Asked(*pair)])))
        assert price.comparison.family == 1 and price.nats == pytest.approx(0.08, abs=0.02)
        low, high = price.ends
        assert low < price.nats < high and "not tested" not in price_sentence(price)
        row = leak_price_frame([price]).iloc[0]
        assert row["tested"] and row["nats"] == price.nats and (row["low"], row["high"]) == price.ends


def test_a_leak_that_harms_and_one_that_does_nothing_are_said_as_such(tmp_path):
    (harm,) = leak_prices(runs(tmp_path / "a", (planted.SEQUENCE_2, PREFIX), (0.1, 0.0)))
    assert f" † loses {-harm.nats:.4f} nats per token (" in price_sentence(harm) and harm.nats < -0.08
    (nothing,) = leak_prices(runs(tmp_path / "b", (planted.SEQUENCE_2, PREFIX), (0.0, 0.0)))
    assert "cannot be told from its twin" in price_sentence(nothing)
    (one,) = leak_prices(runs(tmp_path / "c", (planted.SEQUENCE_2, PREFIX), (0.0, 0.1), seeds=(0,)))
    assert "at the one seed they share" in price_sentence(one)


def test_points_without_a_twin_have_no_price(tmp_path):
    assert leak_prices(runs(tmp_path, (planted.SEQUENCE_2, planted.TOKEN_2, OTHER_GATE), (0.0, 0.0, 0.0))) == ()
