"""How long a retry waits, and which errors end a task at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates.definition import RetryPolicy
from aggregates.schedule import RETRY_DELAY_MS_MAX, may_retry, retry_delay_ms

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 20),
    initial_backoff_seconds=st.floats(0, 86_400),
    backoff_multiplier=st.floats(1, 100),
    max_backoff_seconds=st.floats(0, 86_400),
    jitter=st.floats(0, 1),
)


def test_the_first_attempt_does_not_wait():
    assert retry_delay_ms(RetryPolicy(initial_backoff_seconds=9), 1, "x") == 0


def test_the_back_off_grows_up_to_its_bound():
    """R30."""
    policy = RetryPolicy(9, 1.5, 2.0, 10.0, jitter=0.0)
    delays = [retry_delay_ms(policy, attempt, "x") for attempt in range(2, 8)]
    assert delays == [1_500, 3_000, 6_000, 10_000, 10_000, 10_000]


def test_a_back_off_of_a_day_is_kept():
    policy = RetryPolicy(5, 86_400, 1.0, 86_400, jitter=0.0)
    assert retry_delay_ms(policy, 2, "x") == RETRY_DELAY_MS_MAX == 86_400_000


@given(POLICIES, st.integers(2, 20), st.text(max_size=20))
def test_jitter_shortens_by_its_share_at_most_and_the_same_seed_gives_the_same(
    policy, attempt, seed
):
    """R30: deterministic, so that replaying the log gives the same delays."""
    delay = retry_delay_ms(policy, attempt, seed)
    assert delay == retry_delay_ms(policy, attempt, seed)
    whole = retry_delay_ms(RetryPolicy(**fields(policy, jitter=0.0)), attempt, seed)
    assert int(whole * (1 - policy.jitter)) - 1 <= delay <= whole <= RETRY_DELAY_MS_MAX


def test_jitter_spreads_the_retries_of_many_tasks():
    """R30: or a thousand failed tasks come back at one moment."""
    policy = RetryPolicy(initial_backoff_seconds=10, jitter=0.5)
    delays = {retry_delay_ms(policy, 2, f"x/{task}") for task in range(1_000)}
    assert len(delays) > 850
    assert min(delays) < 5_100
    assert max(delays) > 9_900
    assert len({retry_delay_ms(policy, attempt, "x/1") for attempt in range(2, 5)}) == 3


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, False), (4, False)])
def test_attempts_end(attempt, again):
    """I18."""
    assert may_retry(RetryPolicy(3), attempt, "x") is again


@given(st.text(max_size=5), st.text(max_size=9))
def test_only_the_beginning_of_an_error_names_it(name, error):
    """R30."""
    policy = RetryPolicy(3, non_retryable_errors=(name,))
    if may_retry(policy, 1, error):
        assert not name or error != name
    else:
        assert name
        assert error.startswith(name)


def fields(policy, **changed):
    return {name: getattr(policy, name) for name in policy.__slots__} | changed
