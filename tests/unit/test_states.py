"""The state tables: complete, consistent with each other, in order."""

import re

from topicd.states import MOVES, SPOOL_PLACES, STATES, Aside, Stage


def test_the_straight_path_is_the_order_of_the_stages() -> None:
    assert [stage.next for stage in Stage] == [Stage.AUDIO, Stage.IMAGES, None]
    assert list(Stage) == ["scripts", "audio", "images"]


def test_every_place_of_the_spool_is_listed_once() -> None:
    assert (*Stage, *Aside) == SPOOL_PLACES
    assert len(set(SPOOL_PLACES)) == 5


def test_states_have_their_own_keys_in_order_and_leave_nothing_unsaid() -> None:
    assert [state.key for state in STATES] == [f"S{number}" for number in range(len(STATES))]
    assert all(all(state) for state in STATES)


def test_every_move_goes_between_states_that_exist() -> None:
    keys = {state.key for state in STATES}
    for move in MOVES:
        named = set(re.findall(r"S\d", f"{move.source} {move.target}"))
        assert named
        assert named <= keys
        assert move.guarantee


def test_no_verb_is_listed_twice() -> None:
    assert len({move.verb for move in MOVES}) == len(MOVES)


def test_only_a_person_takes_a_job_out_of_where_it_was_put_aside() -> None:
    assert {move.verb for move in MOVES if "S3" in move.source} == {"hold", "release", "retry"}
