"""Queries: authentication, parameters, and the exactness of the counts."""

import concurrent.futures
import datetime
import re
import secrets
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from conftest import query_with, registered
from fastcgi import program, query_params
from monitor import new_id, now, rfc3339
from stack import SLOWNESS, Stack, wait_for
from test_health import BOTH
from test_metrics import scrape
from wire import ALLOW, MARKER, QUERY_PATHS, SECRETS, check_error, check_headers, check_json, check_refused, header

HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def put(db, source, *instants):
    """Store events directly, as an administrator may."""
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                           " VALUES (%s, %s, %s, 'tool', '{}')", [(new_id(), source, at) for at in instants])


@pytest.fixture
def put_events(request, stack):
    """The same, or where only HTTP is within reach by a monitor of that name."""
    if isinstance(stack, Stack):
        connection = request.getfixturevalue("db")
        return lambda source, *instants: put(connection, source, *instants)
    client = request.getfixturevalue("client")

    def send(source, *instants):
        sender = registered(stack, source)
        answer = sender.post(client, [sender.event(timestamp=rfc3339(at)) for at in instants])
        assert (answer.status_code, answer.json()["inserted"]) == (200, len(instants)), answer.text
    return send


def row(source, instant, count):
    utc = instant.astimezone(datetime.timezone.utc)
    return {"source": source, "date": utc.strftime("%Y-%m-%d"), "hour": utc.hour, "eventCount": count}


def rows(answer):
    assert answer.status_code == 200, answer.text
    return check_json(answer)["aggregates"]


@pytest.fixture
def counts(query):
    """The rows of one source."""
    def ask(source, days=7):
        return rows(query(days=days, source=source))
    return ask


@pytest.mark.contract
@pytest.mark.parametrize("path", QUERY_PATHS)
def test_a_token_gets_the_counts_under_both_paths(path, client, token):
    answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    body = check_json(answer)
    assert set(body) == {"aggregates", "meta"}
    assert set(body["meta"]) == {"totalCount", "daysRequested", "fetchedAt"}
    assert header(answer, "WWW-Authenticate") is None


@pytest.mark.contract
@pytest.mark.parametrize("path", QUERY_PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_a_method_other_than_get_or_head_is_refused_before_the_token_is_checked(path, method, client):
    answer = client.request(method, path)
    check_error(answer, 405, "method_not_allowed")
    assert header(answer, "Allow") == ALLOW["query"]


@pytest.mark.contract
@pytest.mark.parametrize("query_string", ["", "?days=x", "?%zz", "?days=7&days=7"])
def test_no_authorization_is_missing_auth_before_the_parameters_are_read(query_string, client):
    answer = client.get(f"/query{query_string}")
    check_error(answer, 401, "missing_auth")
    assert header(answer, "WWW-Authenticate") == "Bearer"


@pytest.mark.contract
@pytest.mark.parametrize("wrong", [
    "Basic eDp4", "{token}", "Bearer", "Bearer {token}x", "Bearer {half}", "Bearer {token}, Bearer {token}",
    "Bearer " + "x" * 7000, "Bearer \xff\xfe",
], ids=lambda value: ascii(value)[:40])
def test_anything_but_a_valid_token_is_invalid_token(wrong, client, token):
    value = wrong.format(token=token, half=token[:20]).encode("latin-1")
    answer = client.get("/query", headers=[(b"Authorization", value)])
    check_error(answer, 401, "invalid_token")
    assert header(answer, "WWW-Authenticate") == 'Bearer error="invalid_token"'


@pytest.mark.contract
def test_invalid_token_comes_before_the_parameters_are_read(client):
    check_error(query_with(client, "x", "?days=x&%zz&source="), 401, "invalid_token")


@pytest.mark.contract
def test_an_empty_authorization_header_is_refused(client):
    answer = client.get("/query", headers={"Authorization": ""})
    check_refused(answer, (401, "missing_auth"), (401, "invalid_token"))


@pytest.mark.contract
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer"])
def test_the_scheme_may_be_in_any_case(scheme, client, token):
    assert client.get("/query", headers={"Authorization": f"{scheme} {token}"}).status_code == 200


@pytest.mark.contract
def test_a_repeated_authorization_header_is_refused_or_one_of_them_counts(client, token):
    answer = client.get("/query", headers=[("Authorization", f"Bearer {token}"), ("Authorization", "Bearer x")])
    assert answer.status_code == 200 or check_refused(answer, (401, "invalid_token"), (400, "invalid_request"))
    answer = client.get("/query", headers=[("Authorization", "Bearer y"), ("Authorization", "Bearer x")])
    check_refused(answer, (401, "invalid_token"), (400, "invalid_request"))


@pytest.mark.contract
def test_a_token_in_the_query_string_is_ignored(client):
    # Not a real one: the last tests search the logs for tokens, and paths are logged.
    check_error(client.get("/query?access_token=x&token=x"), 401, "missing_auth")


def test_a_token_expires_by_the_clock_and_not_by_a_notification(stack, client, db, fresh_source):
    made = stack.steepctl("token", "add", fresh_source, "--expires", "1").stdout.split()[-1]
    SECRETS.add(made)
    db.execute("UPDATE public.access_tokens SET expires_at = now() + interval '3 s' WHERE label = %s",
               (fresh_source,))
    wait_for(lambda: query_with(client, made).status_code == 200, "the token to be taken up", 2.5)
    wait_for(lambda: query_with(client, made).status_code == 401, "the token to expire")
    check_error(query_with(client, made), 401, "invalid_token")


@pytest.mark.contract
@pytest.mark.parametrize("query_string, days", [("", 7), ("?", 7), ("?days=7", 7), ("?x=1&da%79s=%33%30&x=%2B", 30)])
def test_days_is_7_or_30_and_other_parameters_are_ignored(query_string, days, query):
    answer = query(query_string)
    assert answer.status_code == 200, answer.text
    assert check_json(answer)["meta"]["daysRequested"] == days


@pytest.mark.contract
@pytest.mark.parametrize("query_string, code", [
    ("days=8", "invalid_days"), (f"days={MARKER}", "invalid_days"), ("source=", "invalid_source"),
    (f"source={MARKER}%01", "invalid_source"), ("source=" + "x" * 256, "invalid_source"), ("days=7&da%79s=7", "invalid_request"),
    ("source=a&source=a", "invalid_request"), ("days=7%", "invalid_request"), ("x=%zz", "invalid_request"),
], ids=lambda value: value[:30])
def test_an_invalid_parameter_is_named_by_its_code(query_string, code, query):
    check_error(query(f"?{query_string}"), 400, code)


@pytest.mark.contract
@pytest.mark.parametrize("query_string, code", [
    *((f"group_by={value}", "invalid_group_by") for value in ("", "HOUR", "Source", "hours", "day", "hour,source", "hour%00", "+hour", MARKER)),
    ("group_by", "invalid_group_by"), ("group_by=hour&group_by=hour", "invalid_request"), ("group_by=x&group%5Fby", "invalid_request"),
    # The order of the checks.
    ("group_by=x&days=8", "invalid_days"), ("group_by=x&source=", "invalid_source"), ("group_by=x&days=7&days=7", "invalid_request"),
], ids=lambda value: value[:30])
def test_an_invalid_group_by_is_refused(query_string, code, query):
    check_error(query(f"?{query_string}"), 400, code)


@pytest.mark.contract
def test_the_token_is_checked_before_group_by(client):
    check_error(query_with(client, "x", "?group_by=x"), 401, "invalid_token")


@pytest.mark.contract
def test_a_group_by_in_another_spelling_is_an_unknown_parameter(query, put_events, fresh_source):
    put_events(fresh_source, now() - DAY)
    assert set(rows(query(f"?GROUP_BY=hour&groupBy=x&group_by[]=hour&source={fresh_source}"))[0]) == {"source", "date", "hour", "eventCount"}


@pytest.mark.contract
def test_an_unknown_parameter_may_be_repeated_or_not(query):
    # "A repeated parameter is refused; an unknown one is ignored": the contract allows both.
    answer = query("?x=1&x=2")
    assert answer.status_code == 200 or check_refused(answer, (400, "invalid_request"))


@pytest.mark.contract
def test_head_has_the_headers_of_get_and_no_body(client, token, put_events, fresh_source):
    put_events(fresh_source, now() - DAY)
    got = client.get("/query", headers={"Authorization": f"Bearer {token}"}, params={"source": fresh_source})
    head = client.head("/query", headers={"Authorization": f"Bearer {token}"}, params={"source": fresh_source})
    assert head.status_code == 200 and head.content == b""
    check_headers(head)
    assert header(head, "Content-Type") == "application/json"
    assert header(head, "Content-Length") == header(got, "Content-Length")


@pytest.mark.contract
def test_head_without_a_token_is_401_without_a_body(client):
    head = client.head("/query")
    assert head.status_code == 401 and head.content == b""
    assert header(head, "WWW-Authenticate") == "Bearer"


@pytest.mark.contract
def test_meta_has_the_number_of_rows_the_days_and_the_time(stack, query, put_events, fresh_source):
    put_events(fresh_source, now() - DAY, now() - 2 * DAY)
    before = now() - datetime.timedelta(milliseconds=1)
    body = query(source=fresh_source, days=30).json()
    assert body["meta"]["totalCount"] == len(body["aggregates"]) == 2
    assert body["meta"]["daysRequested"] == 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["meta"]["fetchedAt"])
    fetched = datetime.datetime.fromisoformat(body["meta"]["fetchedAt"])
    assert before - stack.data_age <= fetched <= now()


@pytest.mark.contract
def test_a_source_without_events_has_no_rows(query, fresh_source):
    body = query(source=fresh_source).json()
    assert body["aggregates"] == [] and body["meta"]["totalCount"] == 0


@pytest.mark.contract
def test_the_count_is_exact_as_soon_as_a_batch_is_acknowledged(client, new_monitor, query):
    sender = new_monitor()
    at = (now() - DAY).replace(minute=30)
    for total in range(1, 21):
        answer = sender.post(client, [sender.event(timestamp=rfc3339(at))])
        assert answer.json()["inserted"] == 1
        assert rows(query(source=sender.source)) == [row(sender.source, at, total)]


@pytest.mark.contract
def test_duplicates_are_not_counted(client, new_monitor, counts):
    sender = new_monitor()
    at = now() - DAY
    events = [sender.event(timestamp=rfc3339(at)) for _ in range(3)]
    for _ in range(2):
        sender.post(client, [*events, events[0]])
    assert counts(sender.source) == [row(sender.source, at, 3)]


@pytest.mark.contract
def test_a_refused_batch_is_not_counted(client, new_monitor, counts):
    sender = new_monitor()
    assert sender.post(client, [sender.event(), sender.event(id="bad")]).status_code == 422
    assert counts(sender.source) == []


def test_deleted_and_moved_events_change_the_counts(db, counts, fresh_source):
    first, second = (now() - DAY).replace(minute=10), (now() - 3 * DAY).replace(minute=10)
    put(db, fresh_source, first, first, second)
    db.execute("DELETE FROM public.events WHERE source = %s AND timestamp = %s", (fresh_source, second))
    assert counts(fresh_source) == [row(fresh_source, first, 2)]
    db.execute("UPDATE public.events SET timestamp = %s WHERE source = %s", (second, fresh_source))
    assert counts(fresh_source) == [row(fresh_source, second, 2)]


@pytest.mark.contract
def test_an_hour_begins_at_its_first_microsecond(put_events, counts, fresh_source):
    hour = (now() - 2 * DAY).replace(minute=0, second=0, microsecond=0)
    tick = datetime.timedelta(microseconds=1)
    put_events(fresh_source, hour - tick, hour, hour + tick, hour + HOUR - tick, hour + HOUR)
    assert counts(fresh_source) == [row(fresh_source, hour + HOUR, 1), row(fresh_source, hour, 3),
                                    row(fresh_source, hour - HOUR, 1)]


@pytest.mark.contract
def test_hours_are_in_utc_whatever_the_offset(client, new_monitor, counts):
    sender = new_monitor()
    noon = (now() - 3 * DAY).replace(hour=12, minute=15, second=0, microsecond=0)
    texts = [f"{noon.replace(tzinfo=None) + datetime.timedelta(hours=5, minutes=30):%Y-%m-%dT%H:%M:%S}+05:30",
             f"{noon.replace(tzinfo=None) - datetime.timedelta(hours=8):%Y-%m-%dT%H:%M:%S}-08:00",
             f"{noon.replace(tzinfo=None):%Y-%m-%dT%H:%M:%S}Z"]
    assert sender.post(client, [sender.event(timestamp=text) for text in texts]).json()["inserted"] == 3
    assert counts(sender.source) == [row(sender.source, noon, 3)]


@pytest.mark.contract
@pytest.mark.parametrize("days", [7, 30])
def test_the_window_begins_days_ago_to_the_second(days, put_events, counts, fresh_source):
    edge = now() - days * DAY
    just_out, just_in = edge - datetime.timedelta(seconds=2), edge + datetime.timedelta(seconds=90)
    put_events(fresh_source, edge - HOUR, just_out, just_in)
    assert counts(fresh_source, days) == [row(fresh_source, just_in, 1)]


@pytest.mark.contract
@pytest.mark.parametrize("days", [7, 30])
def test_the_oldest_hour_is_counted_from_the_start_of_the_window(days, put_events, counts, fresh_source):
    # Whole hours are read from the counts, but a part of this one is outside the window.
    edge = now() - days * DAY
    hour = edge.replace(minute=0, second=0, microsecond=0)
    later = edge + datetime.timedelta(seconds=90)
    put_events(fresh_source, hour, later, later)
    assert counts(fresh_source, days) == [row(fresh_source, later, 2)]


@pytest.mark.contract
def test_an_hour_after_the_oldest_is_counted_whole(put_events, counts, fresh_source):
    # Not the very next one: this hour may end before the query.
    following = (now() - 7 * DAY).replace(minute=0, second=0, microsecond=0) + 2 * HOUR
    put_events(fresh_source, following, following + HOUR - datetime.timedelta(microseconds=1))
    assert counts(fresh_source) == [row(fresh_source, following, 2)]


@pytest.mark.contract
def test_30_days_include_what_7_days_leave_out(put_events, counts, fresh_source):
    old, young = now() - 20 * DAY, now() - 2 * DAY
    put_events(fresh_source, old, young)
    assert counts(fresh_source, 7) == [row(fresh_source, young, 1)]
    assert counts(fresh_source, 30) == [row(fresh_source, young, 1), row(fresh_source, old, 1)]


@pytest.mark.contract
def test_future_events_are_counted(put_events, counts, fresh_source):
    # The window has no end, as in the data model's function.
    put_events(fresh_source, now() + 2 * DAY)
    assert len(counts(fresh_source)) == 1


def test_an_event_at_infinity_has_neither_date_nor_hour(db, counts, fresh_source):
    put(db, fresh_source, "infinity", now())
    assert counts(fresh_source)[0] == {"source": fresh_source, "date": "", "hour": None, "eventCount": 1}
    db.execute("DELETE FROM public.events WHERE source = %s AND timestamp = 'infinity'", (fresh_source,))
    assert len(counts(fresh_source)) == 1


def test_the_newest_hour_comes_first_and_then_the_sources_in_byte_order(db, query):
    tail = secrets.token_hex(4)
    names = [f"{head}-{tail}" for head in ["Z", "a", "B", "_", "ä", "z", "é", "日", "0", "~", "\U0001f600", "\uffff"]]
    hours = [now() - DAY, now() - 2 * DAY]
    for name in names:
        put(db, name, *hours)
    got = [entry for entry in rows(query()) if entry["source"].endswith(tail)]
    expected = [row(name, hour, 1) for hour in hours for name in sorted(names, key=str.encode)]
    assert got == expected


@pytest.mark.contract
def test_all_rows_are_in_the_stated_order(query):
    got = rows(query("?days=30"))
    keys = [(entry["date"], entry["hour"]) for entry in got]
    assert keys == sorted(keys, reverse=True)
    assert len({(*key, entry["source"]) for key, entry in zip(keys, got)}) == len(got)


def test_a_source_is_found_by_any_name_it_can_have(db, query):
    names = ["with space", "plus+plus", "100%", "a&b=c", "a;b", "quote'\"", "back\\slash", "</script>", "ünïcödé", "日本語",
             "\U0001f600", "%41", "a,b", "#frag", "?", "/", "null", " lead", "trail ", "é" * 127, "x" * 255, "\u2028"]
    db.execute("DELETE FROM public.events WHERE source = ANY(%s)", (names,))
    at = now() - DAY
    for name in names:
        put(db, name, at)
        for encoder in (quote, quote_plus):
            assert rows(query(f"?source={encoder(name, safe='')}")) == [row(name, at, 1)], name
    db.execute("DELETE FROM public.events WHERE source = ANY(%s)", (names,))


@pytest.mark.contract
def test_a_source_is_matched_whole_and_never_as_a_pattern(put_events, query, fresh_source):
    put_events(fresh_source, now() - DAY)
    start = fresh_source[:-1]
    for other in [start, fresh_source + "x", fresh_source.upper(), start + "%25", start + "_", start + "*", start + "."]:
        assert rows(query(f"?source={other}")) == []
    # Other tests may store under these.
    for other in ["*", "%"]:
        assert {entry["source"] for entry in rows(query(f"?source={quote(other)}"))} <= {other}


def test_an_odd_name_in_the_answer_is_valid_json(db, query):
    name = "q\"\\/\u2028\x7f</script>" + secrets.token_hex(4)
    db.execute("DELETE FROM public.events WHERE source = %s", (name,))
    put(db, name, now() - DAY)
    assert name in {entry["source"] for entry in rows(query())}
    db.execute("DELETE FROM public.events WHERE source = %s", (name,))


def test_the_answer_matches_the_data_models_own_query(db, query):
    expected = db.execute("""
        SELECT e.source, DATE(e.timestamp AT TIME ZONE 'UTC')::text AS date,
               EXTRACT(HOUR FROM e.timestamp AT TIME ZONE 'UTC')::integer AS hour, COUNT(*)
        FROM public.events e WHERE e.timestamp >= now() - interval '30 days' GROUP BY 1, 2, 3""").fetchall()
    got = rows(query("?days=30"))
    oldest = (now() - 30 * DAY).strftime("%Y-%m-%d")
    as_tuples = [(entry["source"], entry["date"], entry["hour"], entry["eventCount"]) for entry in got]
    # The oldest day may change between the two queries.
    assert sorted(t for t in as_tuples if t[1] != oldest) == sorted(t for t in expected if t[1] != oldest)


@pytest.mark.contract
def test_a_body_on_a_get_does_not_matter(client, token):
    answer = client.request("GET", "/query", headers={"Authorization": f"Bearer {token}"}, content=b"x" * 1000)
    assert answer.status_code == 200


@pytest.mark.contract
def test_ingest_headers_do_not_authenticate_a_query(client, monitor):
    check_error(client.get("/query", headers=monitor.headers(b"")), 401, "missing_auth")


def test_a_long_answer_is_compressed_for_clients_that_accept_it(db, client, token, fresh_source):
    db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
               " SELECT 'evt_' || %s || n, %s, now() - n * interval '1 hour', 'tool', '{}' FROM generate_series(0, 99) AS n",
               (fresh_source, fresh_source))
    answers = [client.get(f"/query?source={fresh_source}",
                          headers={"Authorization": f"Bearer {token}", "Accept-Encoding": accepted})
               for accepted in ("gzip", "identity")]
    assert [header(answer, "Content-Encoding") for answer in answers] == ["gzip", None]
    assert header(answers[0], "Vary") == "Accept-Encoding"
    assert answers[0].json()["aggregates"] == answers[1].json()["aggregates"]
    assert len(answers[0].json()["aggregates"]) == 100
    assert answers[0].num_bytes_downloaded * 5 < answers[1].num_bytes_downloaded
    check_headers(answers[0])


def test_an_answer_has_the_bytes_that_dashboards_have_always_got(stack, db, token):
    source = f'q"\\é {secrets.token_hex(4)}'
    hour = datetime.datetime.now(datetime.timezone.utc).replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    put(db, source, hour, hour, hour + HOUR)
    wanted = (rb'{"aggregates":[{"source":"%(source)b","date":"%(second)b,"eventCount":1},{"source":"%(source)b","date":"%(first)b,"eventCount":2}],'
              rb'"meta":{"totalCount":2,"daysRequested":30,"fetchedAt":"') % {
        b"source": source.replace("\\", "\\u005c").replace('"', "\\u0022").encode(),
        b"first": hour.strftime('%Y-%m-%d","hour":%-H').encode(),
        b"second": (hour + HOUR).strftime('%Y-%m-%d","hour":%-H').encode()}
    with stack.client() as client:
        for accepted in ("gzip", "identity"):
            answer = client.get(f"/query?days=30&source={quote(source)}",
                                headers={"Authorization": f"Bearer {token}", "Accept-Encoding": accepted})
            assert answer.status_code == 200
            assert answer.content[:len(wanted)] == wanted
            assert re.fullmatch(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"}}', answer.content[len(wanted):])


def test_queries_of_many_workers_share_few_connections(stack, db):
    def waiting():
        return db.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'query.fcgi'"
                          " AND wait_event_type = 'Lock'").fetchone()[0]

    with program(stack, "query", passed=BOTH, STEEP_WORKERS="16", STEEP_CONNECTIONS="2", VIBETEA_SUBSCRIBER_TOKEN="shared") as instance, \
            concurrent.futures.ThreadPoolExecutor(12) as pool, stack.connect(autocommit=False) as lock:
        wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "the tokens to be read")
        lock.execute("LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
        sent = [pool.submit(instance.ask, query_params("shared", f"source=many-{n}")) for n in range(12)]
        wait_for(lambda: scrape(instance, "query")["steep_workers_busy"] == 12, "all queries to be in hand")
        wait_for(lambda: waiting() >= 2, "two to wait for the lock")
        assert waiting() == 2
        lock.rollback()
        assert {each.result(60 * SLOWNESS).status_code for each in sent} == {200}


@pytest.mark.contract
def test_a_total_by_hour_or_source_is_the_sum_of_the_counts(query, put_events, fresh_source):
    first, second = f"{fresh_source}-a", f"{fresh_source}-b"
    put_events(first, *[now() - DAY] * 3, *[now() - 3 * DAY] * 2, now() - 6 * DAY, now() + 40 * DAY)
    put_events(second, *[now() - DAY] * 2, now() - 20 * DAY)
    for days in (7, 30):
        counts, hours, sources = (rows(query(days=days, **grouping)) for grouping in ({}, {"group_by": "hour"}, {"group_by": "source"}))
        by_hour, by_source = {}, {}
        for each in counts:
            by_hour[each["date"], each["hour"]] = by_hour.get((each["date"], each["hour"]), 0) + each["eventCount"]
            by_source[each["source"]] = by_source.get(each["source"], 0) + each["eventCount"]
        # The counts come with the newest hour first.
        assert hours == [{"date": date, "hour": hour, "eventCount": count} for (date, hour), count in by_hour.items()]
        assert sources == [{"source": source, "eventCount": count} for source, count
                           in sorted(by_source.items(), key=lambda total: (-total[1], total[0].encode()))]
        assert by_source[first] == 7 and by_source[second] == {7: 2, 30: 3}[days]


@pytest.mark.contract
@pytest.mark.parametrize("days", [7, 30])
def test_a_total_of_one_source_counts_the_oldest_hour_from_the_start_of_the_window(days, query, put_events, fresh_source):
    edge = now() - days * DAY
    later = edge + datetime.timedelta(seconds=90)
    put_events(fresh_source, edge.replace(minute=0, second=0, microsecond=0), later, later, edge + 3 * HOUR)
    wanted = [row(fresh_source, edge + 3 * HOUR, 1), row(fresh_source, later, 2)]
    for each in wanted:
        del each["source"]
    assert rows(query(days=days, source=fresh_source, group_by="hour")) == wanted
    assert rows(query(days=days, source=fresh_source, group_by="source")) == [{"source": fresh_source, "eventCount": 3}]


@pytest.mark.contract
@pytest.mark.parametrize("grouping", ["hour", "source"])
def test_totals_of_a_source_without_events_have_no_rows(grouping, query, fresh_source):
    body = query(source=fresh_source, group_by=grouping, days=30).json()
    assert body["aggregates"] == []
    assert set(body["meta"]) == {"totalCount", "daysRequested", "fetchedAt"}
    assert (body["meta"]["totalCount"], body["meta"]["daysRequested"]) == (0, 30)


def test_a_total_has_the_bytes_of_the_source_and_infinity(query, db, fresh_source):
    source = f'{fresh_source} "é\\%_'
    put(db, source, now() - DAY)
    db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES (%s, %s, 'infinity', 'tool', '{}')",
               (new_id(), source))
    try:
        assert rows(query(source=source, group_by="source")) == [{"source": source, "eventCount": 2}]
        assert rows(query(source=source, group_by="hour"))[0] == {"date": "", "hour": None, "eventCount": 1}
    finally:
        db.execute("DELETE FROM public.events WHERE timestamp = 'infinity'")


@pytest.mark.contract
def test_totals_are_exact_as_soon_as_a_batch_is_acknowledged(client, new_monitor, query):
    sender = new_monitor()
    for total in range(1, 6):
        assert sender.post(client, [sender.event()]).json()["inserted"] == 1
        for grouping in ("hour", "source"):
            assert sum(each["eventCount"] for each in rows(query(source=sender.source, group_by=grouping))) == total


@pytest.fixture
def month_of_ten_sources(db):
    db.execute("INSERT INTO public.hourly_counts (source, hour, event_count)"
               " SELECT 'month-' || n, date_trunc('hour', now()) - h * interval '1 hour', n * h"
               " FROM generate_series(1, 10) n, generate_series(1, 719) h")
    yield
    db.execute("DELETE FROM public.hourly_counts WHERE source LIKE 'month-%'")


def test_a_month_of_ten_sources_is_built_in_the_memory_of_the_last(stack, month_of_ten_sources):
    with program(stack, "query", passed=BOTH, VIBETEA_SUBSCRIBER_TOKEN="months") as instance:
        def ask(times):
            for _ in range(times):
                answer = instance.ask(query_params("months", "days=30"))
                assert sum(each["source"].startswith("month-") for each in answer.json()["aggregates"]) == 7190

        def faults():
            """The pages of memory that it was given, see proc(5)."""
            return int(Path(f"/proc/{instance.process.pid}/stat").read_text().rpartition(")")[2].split()[7])

        wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "the token to be read")
        ask(5)
        before = faults()
        ask(10)
        # It has more than 300 pages. The sanitizers keep what is freed.
        if SLOWNESS == 1:
            assert faults() - before < 500
