"""Tokens that see certain sources only: no answer of theirs depends on the data of another source."""

import datetime
import hashlib
import itertools
import json
import re
import secrets
from urllib.parse import urlencode

import pytest

from conftest import query_with, registered
from fastcgi import program, query_params
from stack import SLOWNESS, wait_for
from test_health import BOTH
from test_keyring import SOON, seconds_until
from test_query import put
from test_shared_answers import asked, instance, locked, wait_for_lock  # noqa: F401 (fixtures)
from test_steepctl import refuses
from wire import SECRETS

HOUR = datetime.timedelta(hours=1)


def new_token(stack, *sources, label=None, **more):
    options = itertools.chain.from_iterable(("--source", source) for source in sources)
    made = stack.steepctl("token", "add", label or f"scope-{secrets.token_hex(6)}", *options, **more).stdout.split()[-1]
    SECRETS.add(made)
    return made


def works(client, token):
    wait_for(lambda: query_with(client, token).status_code == 200, "the token to be taken up")
    return token


class Team:
    """Sources that no other test has, and tokens for some of them; a name here is the end of a source's name."""

    SOURCES = ["a", "b", "lab-1", "lab-2", "lab", "Lab-3", "other", "a b", "a%", "a'"]
    SCOPES = {
        "all": None,
        "one": ["a"],
        "two": ["a", "b"],
        "prefix": ["lab-*"],
        "name and prefix": ["b", "lab*"],
        "overlapping": ["lab-1", "lab-*", "lab-1"],
        "odd names": ["a b", "a%", "a'"],
        "without events": ["nobody"],
        "of no source": ["nobody*"],
    }

    def __init__(self, stack, db, client):
        self.prefix = f"team-{secrets.token_hex(6)}-"
        self.hours = [datetime.datetime.now(datetime.timezone.utc).replace(minute=30) - n * HOUR for n in (2, 3, 30, 200)]
        for source in self.SOURCES:
            self.put(db, source)
        self.tokens = {scope: new_token(stack, *[self.prefix + name for name in names or []]) for scope, names in self.SCOPES.items()}
        for token in self.tokens.values():
            works(client, token)

    def put(self, db, source, extra=0):
        put(db, self.prefix + source, *self.hours, *self.hours[1:3], *([self.hours[0]] * extra))

    def sees(self, scope, source):
        names = self.SCOPES[scope]
        return names is None or any(source.startswith(name[:-1]) if name.endswith("*") else source == name for name in names)

    def hidden(self, scope):
        return [source for source in self.SOURCES if not self.sees(scope, source)]

    def visible(self, scope):
        return [self.prefix + source for source in self.SOURCES if self.sees(scope, source)]


@pytest.fixture(scope="module")
def team(stack, clients):
    with stack.connect() as db:
        yield Team(stack, db, next(iter(clients.values())))


GROUPINGS = {None: ("source", "date", "hour"), "hour": ("date", "hour"), "source": ("source",)}


def ask(client, token, days=7, grouping=None, source=None, **more):
    given = {"days": days, "group_by": grouping, "source": source}
    return query_with(client, token, f"?{urlencode({name: value for name, value in given.items() if value is not None})}", **more)


def stored(db, sources, days, grouping):
    """What the answer for certain sources has to be, by the data model's own statement over the events."""
    members = {"source": "source", "date": "to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
               "hour": "extract(hour FROM timestamp AT TIME ZONE 'UTC')::integer"}
    wanted = GROUPINGS[grouping]
    order = {None: "date DESC, hour DESC, source COLLATE \"C\"", "hour": "date DESC, hour DESC", "source": "count DESC, source COLLATE \"C\""}
    columns = ", ".join(f"{members[name]} AS {name}" for name in wanted)
    found = db.execute(f"SELECT * FROM (SELECT {columns}, count(*) AS count FROM public.events WHERE source = ANY (%s)"
                       f" AND timestamp >= now() - make_interval(hours => 24 * %s) GROUP BY {', '.join(map(str, range(1, len(wanted) + 1)))})"
                       f" AS counts ORDER BY {order[grouping]}", (sources, days)).fetchall()
    return [dict(zip((*wanted, "eventCount"), row)) for row in found]


@pytest.mark.parametrize("scope", [scope for scope in Team.SCOPES if scope != "all"])
def test_a_token_gets_exactly_what_is_stored_of_its_sources(scope, team, db, client):
    token, visible = team.tokens[scope], team.visible(scope)
    for days, grouping in itertools.product((7, 30), GROUPINGS):
        body = ask(client, token, days, grouping).json()
        assert body["aggregates"] == stored(db, visible, days, grouping)
        assert body["meta"]["totalCount"] == len(body["aggregates"])
        for source in team.SOURCES:
            name = team.prefix + source
            body = ask(client, token, days, grouping, name).json()
            assert body["aggregates"] == stored(db, [name] if name in visible else [], days, grouping)
            assert body["meta"]["totalCount"] == len(body["aggregates"])


def recorded(answer):
    """All of an answer but its time and its id. The length of a compressed one depends on its time."""
    varying = {"date", "x-request-id"} | ({"content-length"} if "content-encoding" in answer.headers else set())
    headers = sorted((name.lower(), value) for name, value in answer.headers.multi_items() if name.lower() not in varying)
    return answer.status_code, headers, re.sub(r'(?<="fetchedAt":")[^"]*', lambda m: "x" * len(m[0]), answer.text)


# What is not a question, or not a valid one.
OTHER_REQUESTS = [
    ("GET", "/functions/v1/query", {}), ("GET", "/functions/v1/functions/v1/query?group_by=source", {}), ("HEAD", "/functions/v1/query", {}),
    *((method, "/query", {}) for method in ("POST", "PUT", "DELETE", "OPTIONS")),
    *(("GET", f"/query?{query}", {}) for query in ("days=8", "source=", "source=%00", "source=%FF", "group_by=day", "days=7&days=7", "source=a&source=b", "%")),
    ("GET", "/query", {"If-None-Match": "*"}), ("GET", "/query", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    ("GET", "/query", {"If-Match": "x"}), ("GET", "/query", {"Range": "bytes=0-3"}), ("GET", "/query", {"Origin": "https://example.org"}),
    ("GET", "/query", {"Accept-Encoding": "gzip"}), ("HEAD", "/query", {"Accept-Encoding": "gzip"}), ("GET", "/query", {"X-Source-ID": "lab-1"}),
    *(("GET", path, {}) for path in ("/healthz/query", "/readyz/query", "/readyz/ingest", "/metrics/query", "/metrics", "/config.json")),
]


def requests(team):
    """The method, the path and the headers of each request that a token's holder may think of."""
    sources = [None, *(team.prefix + source for source in team.SOURCES), f"{team.prefix}nobody", f"{team.prefix}lab-", "lab-*"]
    for method, days, grouping, source in [*itertools.product(["GET"], (7, 30), GROUPINGS, sources), *itertools.product(["HEAD"], (7,), GROUPINGS, sources)]:
        asked = {"days": days, "group_by": grouping, "source": source}
        yield method, f"/query?{urlencode({name: value for name, value in asked.items() if value is not None})}", {}
    yield from OTHER_REQUESTS


def record_all(client, team, scope):
    given = {"Authorization": f"Bearer {team.tokens[scope]}", "Accept-Encoding": "identity"}
    return {(method, path, *headers.items()): recorded(client.request(method, path, headers=given | headers))
            for method, path, headers in requests(team)}


@pytest.mark.parametrize("scope", ["one", "prefix", "name and prefix", "without events"])
def test_no_answer_depends_on_the_data_of_another_source(scope, stack, team, db, client):
    """Tokens x questions, before and after the others send more, register, and lose what they had."""
    before = record_all(client, team, scope)
    hidden = team.hidden(scope)
    for source in hidden:
        team.put(db, source, extra=50)
    put(db, f"{team.prefix}new", *team.hours, team.hours[0] - 4 * HOUR)
    registered(stack, f"{team.prefix}nobody")
    assert record_all(client, team, scope) == before
    db.execute("DELETE FROM public.events WHERE source = ANY (%s)", ([team.prefix + source for source in [*hidden, "new"]],))
    try:
        assert record_all(client, team, scope) == before
    finally:
        for source in hidden:
            team.put(db, source)


@pytest.mark.parametrize("scope", ["one", "prefix", "without events"])
def test_another_source_is_answered_like_one_that_does_not_exist(scope, team, client):
    token = team.tokens[scope]
    for days, grouping in itertools.product((7, 30), GROUPINGS):
        unknown = recorded(ask(client, token, days, grouping, f"{team.prefix}x"))
        assert unknown[0] == 200 and '"aggregates":[]' in unknown[2]
        for source in team.hidden(scope):
            assert recorded(ask(client, token, days, grouping, team.prefix + source)) == unknown


def test_an_answer_is_shared_by_tokens_of_an_equal_scope_only(stack, db, team, asked):  # noqa: F811
    """The same question, asked while a statement for it waits, by every token and by another of an equal scope."""
    twin = new_token(stack, *[team.prefix + name for name in reversed(["a", "b", "a"])])
    wait_for(lambda: read_by(asked.instance, twin) == 200, "the token to be taken up")
    tokens = [*[team.tokens[scope] for scope in Team.SCOPES if scope != "all"], twin]
    with locked(stack):
        for token in [team.tokens["two"], *tokens * 3]:
            asked.ask("days=30", HTTP_AUTHORIZATION=f"Bearer {token}")
        wait_for_lock(stack)
    first, *answers = [json.loads(answer.content) for answer in asked.answers()]
    expected = [stored(db, team.visible(scope), 30, None) for scope in Team.SCOPES if scope != "all"]
    expected.append(stored(db, team.visible("two"), 30, None))
    assert first["aggregates"] == expected[1]
    assert [answer["aggregates"] for answer in answers] == expected * 3
    both = [answers[at]["meta"]["fetchedAt"] for at in range(len(answers)) if at % len(tokens) in (1, len(tokens) - 1)]
    assert len(both) == 6 and len(set(both)) == 1


def test_a_request_keeps_the_scope_that_its_token_had_when_it_began(stack, db, team, asked):  # noqa: F811
    """Also one that waits for another's answer; and one that begins after a change is not given that answer."""
    label, marker = f"scope-{secrets.token_hex(6)}", f"mark-{secrets.token_hex(16)}"
    SECRETS.add(marker)
    token = new_token(stack, team.prefix + "a", label=label)
    wait_for(lambda: read_by(asked.instance, token) == 200, "the token to be taken up")
    with locked(stack):
        for _ in range(2):
            asked.ask("days=30", HTTP_AUTHORIZATION=f"Bearer {token}")
        wait_for_lock(stack)
        # The marker is read together with the changed scope.
        with db.transaction():
            db.execute("UPDATE public.access_tokens SET sources = ARRAY[%s] WHERE label = %s", (team.prefix + "b", label))
            db.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES (%s, %s)",
                       (f"{label}.marker", hashlib.sha256(marker.encode()).digest()))
        wait_for(lambda: asked.instance.ask(query_params(marker, "days=0")).status_code == 400, "the change to be taken up")
        asked.ask("days=30", HTTP_AUTHORIZATION=f"Bearer {token}")
    answers = [json.loads(answer.content)["aggregates"] for answer in asked.answers()]
    assert answers == [stored(db, [team.prefix + source], 30, None) for source in ("a", "a", "b")]


@pytest.fixture
def lax_database(second_stack):
    """A connection to a database that lets a token have any scope, until the test ends."""
    constraint = "CONSTRAINT access_tokens_sources_check"
    with second_stack.connect() as connection:
        definition, = connection.execute("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'access_tokens_sources_check'").fetchone()
        connection.execute(f"ALTER TABLE public.access_tokens DROP {constraint}")
        yield connection
        connection.execute("DELETE FROM public.access_tokens WHERE starts_with(label, 'lax-')")
        connection.execute(f"ALTER TABLE public.access_tokens ADD {constraint} {definition}")


@pytest.mark.contract
def test_a_scope_that_names_nothing_shows_nothing(second_stack, lax_database):
    tokens = {label: secrets.token_hex(16) for label in ("lax-empty", "lax-null", "lax-all")}
    SECRETS.update(tokens.values())
    for (label, token), sources in zip(tokens.items(), ("{}", "{NULL}", None)):
        lax_database.execute("INSERT INTO public.access_tokens (label, token_sha256, sources) VALUES (%s, sha256(%s::bytea), %s)", (label, token, sources))
    with program(second_stack, "query", passed=BOTH) as instance:
        wait_for(lambda: read_by(instance, tokens["lax-all"]) == 200, "the tokens to be read")
        for query in ("", f"source={second_stack.source}", "group_by=hour", "group_by=source"):
            counts = {label: json.loads(instance.ask(query_params(token, query)).content)["meta"]["totalCount"] for label, token in tokens.items()}
            assert counts.pop("lax-all") > 0 and set(counts.values()) == {0}
    listed = second_stack.steepctl("token", "list").stdout.splitlines()
    assert {line.split("\t")[0]: line.split("\t")[4:] for line in listed if line.startswith("lax-")} == {
        "lax-empty": [""], "lax-null": [""], "lax-all": ["*"]}


def test_a_scope_without_one_of_its_parts_is_refused(second_stack, lax_database):
    """As from a database that is at another migration: a missing part must not be taken for no limit."""
    token = secrets.token_hex(16)
    SECRETS.add(token)
    lax_database.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES ('lax-part', sha256(%s::bytea))", (token,))
    lax_database.execute("ALTER FUNCTION public.list_access_tokens(uuid) RENAME TO list_whole_tokens")
    lax_database.execute("CREATE FUNCTION public.list_access_tokens(since uuid) RETURNS TABLE (mark uuid, label text, token_sha256 bytea, expires_at timestamptz, names text[],"
                         " prefixes text[]) LANGUAGE sql SECURITY DEFINER AS"
                         " 'SELECT mark, label, token_sha256, expires_at, NULL::text[], ''{}''::text[] FROM public.list_whole_tokens(since)'")
    try:
        with program(second_stack, "query", passed=BOTH) as instance:
            wait_for(lambda: "event=keyring" in instance.errors.read_text(), "a try to read the tokens")
            assert read_by(instance, token) == 503
    finally:
        lax_database.execute("DROP FUNCTION public.list_access_tokens(uuid)")
        lax_database.execute("ALTER FUNCTION public.list_whole_tokens(uuid) RENAME TO list_access_tokens")


def test_a_long_answer_has_the_scope_in_all_its_pieces(stack, db, client):
    """More rows than query.fcgi takes without a cursor, asked twice: the second time it knows that."""
    prefix = f"long-{secrets.token_hex(6)}-"
    db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
               " SELECT 'evt_' || %(prefix)s::text || s || '-' || h, %(prefix)s::text || s, date_trunc('hour', now()) - make_interval(hours => h), 'tool', '{}'"
               " FROM generate_series(1, 14) AS s, generate_series(1, 700) AS h", {"prefix": prefix})
    token = works(client, new_token(stack, f"{prefix}1*"))
    other = works(client, new_token(stack, f"{prefix}*"))
    for _ in range(2):
        for who, count in ((other, 14), (token, 6), (other, 14)):
            body = ask(client, who, days=30).json()
            assert len(body["aggregates"]) == body["meta"]["totalCount"] == count * 700
            assert len({row["source"] for row in body["aggregates"]}) == count
    db.execute("DELETE FROM public.events WHERE starts_with(source, %s)", (prefix,))


def read_by(instance, token):  # noqa: F811
    return instance.ask(query_params(token, "days=7")).status_code


def test_a_changed_scope_takes_effect_within_a_second(stack, team, client):
    label = f"scope-{secrets.token_hex(6)}"
    token = works(client, new_token(stack, team.prefix + "a", label=label))

    def sources():
        return {row["source"] for row in ask(client, token, grouping="source").json()["aggregates"]}

    assert sources() == {team.prefix + "a"}
    times = []
    for scope in (["b"], ["lab-*"], ["a", "b"]):
        names = [team.prefix + name for name in scope]
        wanted = {team.prefix + source for source in team.SOURCES
                  if any(source.startswith(name[:-1]) if name.endswith("*") else source == name for name in scope)}
        stack.steepctl("token", "scope", label, *itertools.chain.from_iterable(("--source", name) for name in names))
        times.append(seconds_until(lambda: sources() == wanted))
    stack.steepctl("token", "scope", "--all", label)
    times.append(seconds_until(lambda: set(team.visible("all")) <= sources()))
    assert max(times) < SOON * SLOWNESS and min(times) < SLOWNESS


def test_a_token_of_the_environment_has_no_scope(stack, team):
    """Even if the database has it too, with a scope: the environment's tokens add to the database's."""
    token = f"env-{secrets.token_hex(16)}"
    SECRETS.add(token)
    label = f"scope-{secrets.token_hex(6)}"
    stack.steepctl("token", "add", label, "--stdin", "--source", team.prefix + "a", input=token)
    with program(stack, "query", passed=BOTH, VIBETEA_SUBSCRIBER_TOKEN=token) as other:
        wait_for(lambda: other.ask_health("/readyz/query").status_code == 200, "the tokens to be read")
        body = json.loads(other.ask(query_params(token, "group_by=source")).content)
        assert set(team.visible("all")) <= {row["source"] for row in body["aggregates"]}
    assert "VIBETEA_SUBSCRIBER_TOKEN" in refuses(stack, "token", "scope", "environment", "--source", "a")
    stack.steepctl("token", "remove", label)


def listed(stack, label):
    return [line.split("\t")[4:] for line in stack.steepctl("token", "list").stdout.splitlines() if line.split("\t")[0] == label]


def test_token_list_shows_the_scope(stack, db):
    label = f"scope-{secrets.token_hex(6)}"
    new_token(stack, label=label)
    assert listed(stack, label) == [["*"]]
    names = ["b", "a b", "lab-*", "it's", "x,y", "$(id)", "\\n", "~"]
    stack.steepctl("token", "scope", label, *itertools.chain.from_iterable(("--source", name) for name in names))
    assert listed(stack, label) == [names]
    stack.steepctl("token", "scope", label, "--all")
    assert listed(stack, label) == [["*"]]


BAD_SOURCES = ["", "*", "**", "a**", "*a", "a*b", "*a*", " a", "a ", "a\tb", "a\n", "a\nb", "ä", "x" * 256]


@pytest.mark.parametrize("source", BAD_SOURCES, ids=lambda value: ascii(value)[:20])
def test_a_bad_scope_is_refused_and_changes_nothing(source, stack, db):
    label = f"scope-{secrets.token_hex(6)}"
    for options in (["--source", source], ["--source", "a", "--source", source]):
        assert refuses(stack, "token", "add", label, *options).startswith("steepctl: a source must ") or "*" in source
        assert db.execute("SELECT count(*) FROM public.access_tokens WHERE label = %s", (label,)).fetchone() == (0,)
    new_token(stack, "a", label=label)
    refuses(stack, "token", "scope", label, "--source", source)
    assert listed(stack, label) == [["a"]]


def test_a_scope_of_nothing_is_wrong_usage(stack):
    label = f"scope-{secrets.token_hex(6)}"
    new_token(stack, "a", label=label)
    for arguments in (["token", "scope", label], ["token", "scope", label, "--source"], ["token", "scope", "--all"],
                      ["token", "scope", label, "--all", "--source", "b"], ["token", "add", f"{label}.2", "--source"]):
        assert stack.steepctl(*arguments, check=False).returncode == 2
    assert "VIBETEA_SUBSCRIBER_TOKEN" in refuses(stack, "token", "scope", f"{label}.2", "--all")
    assert listed(stack, label) == [["a"]]


def test_a_scope_has_at_most_500_sources(stack, db, team, client):
    """The largest scope, of the longest names, is stored, read and sent with each query; one more is refused."""
    label = f"scope-{secrets.token_hex(6)}"
    names = [f"{n:03}".ljust(255, "x") for n in range(499)] + [team.prefix + "a"]
    options = list(itertools.chain.from_iterable(("--source", name) for name in names))
    token = works(client, new_token(stack, *names, label=label))
    for grouping in GROUPINGS:
        assert ask(client, token, grouping=grouping).json()["aggregates"] == stored(db, [team.prefix + "a"], 7, grouping)
    assert "500" in refuses(stack, "token", "scope", label, *options, "--source", "b")
    assert "500" in refuses(stack, "token", "scope", label, *["--source", "b"] * 10000)
    assert listed(stack, label) == [names]
