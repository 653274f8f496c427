"""What a compile is doing, as its events tell it."""

import pytest

from scons_tensorrt.build.compile_phase import READING, CurrentPhase, Phases


def phase(name, steps, parent=None):
    return {"event": "phase", "name": name, "parent": parent, "steps": steps}


def step(name, number):
    return {"event": "step", "name": name, "step": number}


def done(name):
    return {"event": "phase_done", "name": name}


def heard(*events):
    phases = Phases()
    said = [phases.hear(event) for event in events]
    return said[-1]


def test_the_innermost_phase_is_what_is_done():
    assert heard(phase("Building", 6), phase("Cloning", 40, "Building")) == CurrentPhase("Cloning", 0, 40)


def test_steps_are_counted_from_one():
    assert heard(phase("Cloning", 40), step("Cloning", 0)) == CurrentPhase("Cloning", 1, 40)


def test_of_a_single_step_nothing_is_known():
    assert heard(phase("Determining refit engines", 1)) == CurrentPhase("Determining refit engines")


def test_after_a_phase_its_parent_goes_on():
    events = [phase("Building", 6), phase("Cloning", 40, "Building"), done("Cloning")]
    assert heard(*events, step("Building", 1)) == CurrentPhase("Building", 2, 6)


def test_a_step_of_the_parent_leaves_the_child_what_is_done():
    events = [phase("Building", 6), phase("Cloning", 40), step("Building", 0)]
    assert heard(*events) == CurrentPhase("Cloning", 0, 40)


def test_two_phases_of_one_name_are_two():
    events = [phase("Costs", 9), phase("Costs", 5, "Costs"), done("Costs")]
    assert heard(*events) == CurrentPhase("Costs", 0, 9)


def test_a_parent_that_ends_takes_its_children_with_it():
    events = [phase("Building", 6), phase("Cloning", 40), done("Building")]
    assert heard(*events) == CurrentPhase("writing the engine")


def test_before_the_first_phase_the_network_is_read():
    assert heard({"event": "versions"}).words == READING


ODD = [{}, done("x"), step("x", 1), {"event": "phase", "steps": "x"}, {"event": "step", "step": None}]


@pytest.mark.parametrize("event", ODD, ids=str)
def test_odd_events_break_nothing(event):
    assert isinstance(heard(event, phase("Cloning", 2), step("Cloning", "x"), event).words, str)


def test_more_steps_than_were_told_are_no_more():
    assert heard(phase("Cloning", 2), step("Cloning", 7)) == CurrentPhase("Cloning", 2, 2)
