"""Token buckets."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_dns.limits import Bucket


def test_a_burst_then_the_rate():
    bucket = Bucket(rate=8, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [bucket.take(100.125) for _ in range(2)] == [True, False]
    assert [bucket.take(200.0) for _ in range(4)] == [True] * 3 + [False]


@given(st.lists(st.floats(0, 2), max_size=200))
def test_never_more_than_the_burst_and_the_rate(pauses):
    bucket, now, taken = Bucket(rate=5, burst=4), 1000.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
    assert taken <= 4 + 5 * (now - 1000.0) + 1e-6
