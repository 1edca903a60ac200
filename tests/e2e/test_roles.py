"""The two programs' database roles, connected as such: each may do its one thing."""

import psycopg
import pytest

ROLES = ["steep_ingest", "steep_query"]
OTHERS = {
    "steep_ingest": ["get_hourly_aggregates(7, NULL)", "list_access_tokens()"],
    "steep_query": ["bulk_insert_events('[]')", "list_monitor_keys()", "find_invalid_events('{}')",
                    "count_foreign_ids('[]')"],
}
OWN = {"steep_ingest": OTHERS["steep_query"], "steep_query": OTHERS["steep_ingest"]}


@pytest.fixture(params=ROLES)
def role(request, stack):
    with stack.connect(user=request.param) as connection:
        connection.name = request.param
        yield connection


def denied(role, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        role.execute(statement)


@pytest.fixture
def tables(db):
    """Every table there is, so that a new one is tried as well."""
    found = db.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')")
    names = [name for (name,) in found]
    assert len(names) >= 5
    return names


@pytest.mark.parametrize("statement", ["SELECT FROM public.{}", "INSERT INTO public.{} DEFAULT VALUES", "DELETE FROM public.{}",
                                       "TRUNCATE public.{}", "DO 'BEGIN LOCK TABLE public.{}; END'", "DROP TABLE public.{}",
                                       "ALTER TABLE public.{} DISABLE ROW LEVEL SECURITY"])
def test_no_table_can_be_touched(statement, tables, role):
    for table in tables:
        denied(role, statement.format(table))


def test_its_own_functions_can_be_called(role):
    for call in OWN[role.name]:
        role.execute(f"SELECT * FROM public.{call}")


def test_the_other_programs_functions_cannot_be_called(role):
    for call in OTHERS[role.name]:
        denied(role, f"SELECT * FROM public.{call}")


@pytest.mark.parametrize("statement", [
    "CREATE TABLE public.x (y int)", "CREATE SCHEMA x", "CREATE TEMP TABLE x (y int)", "SET ROLE service_role",
    "SET ROLE steep_owner", "SET SESSION AUTHORIZATION postgres", "CREATE ROLE x", "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')", "SELECT pg_catalog.lo_import('/etc/passwd')", "CREATE EXTENSION pgtap",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SET log_statement = 'all'",
    "SET log_parameter_max_length = -1", "SET session_replication_role = replica",
])
def test_nothing_else_can_be_done(statement, role):
    denied(role, statement)


def test_the_settings_that_keep_results_and_logs_right_are_the_roles_own(role):
    settings = {name: role.execute(f"SHOW {name}").fetchone()[0] for name in (
        "timezone", "datestyle", "default_transaction_isolation", "synchronous_commit", "statement_timeout", "lock_timeout",
        "idle_in_transaction_session_timeout", "log_parameter_max_length", "log_parameter_max_length_on_error")}
    assert settings == {
        "timezone": "UTC", "datestyle": "ISO, YMD", "default_transaction_isolation": "read committed",
        "synchronous_commit": "on", "statement_timeout": "10s", "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "10s", "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0"}


def test_a_stranger_to_the_cluster_gets_no_connection(stack):
    with pytest.raises(psycopg.OperationalError):
        stack.connect(user="service_role").close()
