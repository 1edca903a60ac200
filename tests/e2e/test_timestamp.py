"""Timestamps, from the wire to PostgreSQL. What is valid is tested in tests/unit/rfc3339.c."""

import pytest

from wire import MARKER, check_rejected

STORED = {
    "2026-02-03T14:30:00Z": "2026-02-03 14:30:00.000000",
    "2026-02-03t14:30:00.5z": "2026-02-03 14:30:00.500000",
    # RFC 3339, 5.6; GNU date --rfc-3339 writes a space.
    "2026-02-03 14:30:00Z": "2026-02-03 14:30:00.000000",
    "2026-02-03 15:30:00.123456789+01:00": "2026-02-03 14:30:00.123457",
    "2016-12-31 23:59:60Z": "2017-01-01 00:00:00.000000",
    "2026-02-03T14:30:00-00:00": "2026-02-03 14:30:00.000000",
    "2026-02-03T14:30:00+05:30": "2026-02-03 09:00:00.000000",
    "2026-02-03T14:30:00+15:59": "2026-02-02 22:31:00.000000",
    "2026-02-03T14:30:00-15:59": "2026-02-04 06:29:00.000000",
    "2026-02-03T14:30:00.123456789+01:00": "2026-02-03 13:30:00.123457",
    "2026-02-03T23:59:59.9999999Z": "2026-02-04 00:00:00.000000",
    "2024-02-29T00:00:00Z": "2024-02-29 00:00:00.000000",
    "1969-12-31T23:59:59.5Z": "1969-12-31 23:59:59.500000",
    "0001-01-01T00:00:00Z": "0001-01-01 00:00:00.000000",
    "0001-01-01T15:59:00+15:59": "0001-01-01 00:00:00.000000",
    "9999-12-31T23:59:59.9999994Z": "9999-12-31 23:59:59.999999",
    # PostgreSQL reads a leap second as the next minute's first.
    "2016-12-31T23:59:60.000Z": "2017-01-01 00:00:00.000000",
    "2015-07-01T05:29:60+05:30": "2015-07-01 00:00:00.000000",
    # An escape in JSON, not in the timestamp.
    "2026-02-03\\u005414:30:00Z": "2026-02-03 14:30:00.000000",
}


def test_a_timestamp_is_stored_as_its_instant(accepted_all, monitor):
    rows = accepted_all([monitor.raw_event(timestamp=f'"{text}"') for text in STORED])
    assert dict(zip(STORED, (row.instant for row in rows))) == STORED


@pytest.mark.contract
def test_an_invalid_timestamp_is_refused_by_its_index(refused, monitor):
    bad = ["now", "2026-02-03  14:30:00Z", "2026-02-03 14:30:00", "2026-02-03\t14:30:00Z", "2026-02-03T14:30:00+16:00",
           "2026-02-30T14:30:00Z", "2026-02-03T14:30:60Z",
           "2016-12-31T23:59:60.5Z", "2016-12-31T23:59:60.000000000000000000000000000001Z", MARKER, 1770129000]
    answer = refused([monitor.event(), *(monitor.event(timestamp=each) for each in bad)])
    check_rejected(answer, [(at, "invalid_timestamp") for at in range(1, len(bad) + 1)])
    assert "timestamp" in answer.json()["message"]


def test_fractions_of_1_to_30_digits_are_rounded_as_postgresql_does(accepted_all, monitor, db):
    texts = [f"2026-02-03T14:30:00.{digits[:count]}Z" for count in range(1, 31)
             for digits in ("123456500000000000000000000001", "999999999999999999999999999999", "0" * 29 + "1",
                            "123455500000000000000000000000", "000000499999999999999999999999")]
    rows = accepted_all([monitor.event(timestamp=text) for text in texts])
    expected = db.execute("SELECT to_char(text::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
                          " FROM unnest(%s::text[]) WITH ORDINALITY AS texts (text, place) ORDER BY place", (texts,))
    assert [(row.instant,) for row in rows] == expected.fetchall()
