"""Pausing the cyclic garbage collector."""

import gc

import pytest

from riskmill.memory import collector_paused


def test_the_collector_rests_inside_and_works_again_after() -> None:
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_inside_does_not_leave_the_collector_off() -> None:
    with pytest.raises(ValueError), collector_paused():
        raise ValueError("bad portfolio")
    assert gc.isenabled()


def test_a_collector_that_its_owner_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused(), collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
