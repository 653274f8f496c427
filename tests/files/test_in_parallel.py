"""Results of threads come in order, few items are taken ahead, and no result is lost to an error."""

from __future__ import annotations

import time

import pytest

from scons_tensorrt.files.in_parallel import in_order


def test_results_have_the_order_of_the_items() -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number

    assert list(in_order(slow_if_even, range(40), threads=4)) == list(range(40))


def test_few_items_are_taken_ahead_of_the_result_that_is_used() -> None:
    taken = []
    results = in_order(abs, (taken.append(number) or number for number in range(1000)), threads=2, ahead=3)
    assert next(results) == 0
    assert len(taken) == 4
    results.close()


def test_an_error_of_the_items_comes_after_the_results_before_it() -> None:
    def items():
        yield from range(3)
        raise OSError("unreadable folder")

    results = in_order(abs, items(), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="unreadable folder"):
        next(results)


def test_an_error_of_a_call_is_raised_in_its_place() -> None:
    results = in_order(lambda number: 1 // number, [1, 0, 1], threads=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
