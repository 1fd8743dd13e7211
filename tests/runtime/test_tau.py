"""Schedules of tau, counted by hand; the choice of tau, by the model of a round that it follows."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknet_dsl.errors import UsageError
from sparknet_dsl.runtime.tau import MOST, AutoTau, Tau

SCHEDULES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), max_size=4, unique_by=lambda pair: pair[0]).map(
    lambda pairs: Tau(((0, 7), *sorted(pairs)))
)


@pytest.mark.parametrize("text", ["50", "50,1000:100", "1,2:3,4:5"])
def test_a_schedule_as_text(text):
    assert str(Tau.parse(text)) == text
    assert Tau.parse(f" {text} ".replace(",", " , ")) == Tau.parse(text)


def test_the_tau_of_an_iteration():
    tau = Tau.parse("50,1000:100,5000:200")
    assert [tau.at(i) for i in (0, 999, 1000, 4999, 5000, 10**9)] == [50, 50, 100, 100, 200, 200]


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "-3", "50,", "50,100", "50,100:0", "50,100:60,100:70", "50,0:60", "5:50", "50,20:3,10:4", "1.5"],
)
def test_schedules_that_make_no_sense(text):
    with pytest.raises(UsageError, match="a schedule such as 50,1000:100"):
        Tau.parse(text)


@given(SCHEDULES, st.integers(0, 100), st.integers(0, 200))
def test_rounds_and_iterations_are_those_of_a_run(tau, begin, length):
    """Counted one by one; a round that a boundary falls into keeps its tau."""
    end, at, count = begin + length, begin, 0
    while at < end:
        assert tau.iterations(count, begin) == at
        at, count = at + tau.at(at), count + 1
    assert tau.rounds(end, begin) == count


def test_a_long_run_is_counted_at_once():
    tau = Tau.parse("1,1000:2")
    assert tau.rounds(10**12) == 1000 + (10**12 - 1000) // 2
    assert tau.iterations(10**12) == 1000 + (10**12 - 1000) * 2


def test_what_is_chosen_follows_what_was():
    tau = Tau.parse("50").then(200, 80).then(360, 20)
    assert str(tau) == "50,200:80,360:20"
    assert str(tau.then(360, 30)) == "50,200:80,360:30"
    assert str(Tau.parse("50").then(0, 9)) == "9"


def test_auto_looks_less_and_less_often_while_nothing_changes():
    auto, looks = AutoTau(Tau.parse("50"), 0.1), []
    for seconds in [1] * 10 + [9] * 6:
        auto.measure(90, 9, seconds)
        auto.choose(len(looks))
        looks.append(auto.after)
    # Three rounds are measured, tau goes to 90; it moves again when half of the last twelve were slower.
    assert looks == [4] * 4 + [8, 16] + [32] * 9 + [4]


def run(auto, rounds, per_iteration, average, noise=lambda round: 1.0):
    """Rounds as the model has them; returns the tau of each."""
    iteration, taus = 0, []
    for round in range(rounds):
        auto.choose(iteration)
        taus.append(auto.tau.at(iteration))
        auto.measure(taus[-1], taus[-1] * per_iteration * noise(round), average * noise(round + 1))
        iteration += taus[-1]
    return taus


@pytest.mark.parametrize(("per_iteration", "average", "share"), [(0.1, 20.0, 0.1), (0.01, 0.5, 0.05), (0.1, 1.0, 0.3)])
def test_auto_finds_the_share(per_iteration, average, share):
    auto = AutoTau(Tau.parse("50"), share)
    taus = run(auto, 12, per_iteration, average)
    assert taus[:4] == [50] * 4  # the first round is not counted, and three are measured
    assert all(1 / 4 <= b / a <= 4 for a, b in itertools.pairwise(taus))
    found = average / (taus[-1] * per_iteration + average)
    assert share / 1.3 <= found <= share * 1.3
    assert len(set(taus[-6:])) == 1
    # The record is a schedule that repeats the run.
    record, iteration = Tau.parse(str(auto.tau)), 0
    for tau in taus:
        assert record.at(iteration) == tau
        iteration += tau


def test_auto_is_not_moved_by_a_slow_round():
    auto = AutoTau(Tau.parse("90"), 0.1)
    taus = run(auto, 20, 0.1, 1.0, lambda round: 8.0 if round % 7 == 3 else 1.0)
    assert set(taus) == {90}


def test_auto_counts_what_legs_take_to_begin():
    """Of legs of four rounds each first average takes 5 s more: 2.25 s a round, a tenth of the time with tau 203."""
    auto, iteration = AutoTau(Tau.parse("50"), 0.1), 0
    for round in range(60):
        if round % 4 == 0:
            auto.choose(iteration)
        tau = auto.tau.at(iteration)
        auto.measure(tau, tau * 0.1, 6.0 if round % 4 == 0 else 1.0, round % 4 == 0)
        iteration += tau
    assert 203 / 1.25 <= tau <= 203 * 1.25


def test_auto_stays_within_its_limits():
    assert run(AutoTau(Tau.parse("50"), 0.1), 12, 1e-6, 100.0)[-1] == MOST
    assert run(AutoTau(Tau.parse("50"), 0.1), 12, 1.0, 1e-9)[-1] == 1
    assert run(AutoTau(Tau.parse("50"), 0.1), 12, 0.0, 0.0)[-1] == 1
