"""The programs' database roles in sessions of their own. tests/sql/privileges.sql and roles.sql test every object and statement."""

import psycopg
import pytest

FUNCTIONS = {
    "steep_ingest": ["bulk_insert_events('[]')", "bulk_insert_batches('{}', '{}')", "list_monitor_keys()",
                     "find_invalid_events('{}')", "count_foreign_ids('[]')"],
    "steep_query": ["get_hourly_aggregates(7, NULL)", "get_hourly_totals()", "get_source_totals()", "get_scoped_aggregates()", "list_access_tokens()"],
}
OTHER = {"steep_ingest": "steep_query", "steep_query": "steep_ingest"}


@pytest.fixture(params=list(FUNCTIONS))
def role(request, stack):
    with stack.connect(user=request.param) as connection:
        connection.name = request.param
        yield connection


def test_a_role_calls_its_own_functions(role):
    for call in FUNCTIONS[role.name]:
        role.execute(f"SELECT * FROM public.{call}")


def test_a_role_cannot_call_the_other_programs_functions(role):
    for call in FUNCTIONS[OTHER[role.name]]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.execute(f"SELECT * FROM public.{call}")


# pgTAP cannot test the first: its sessions belong to a superuser.
@pytest.mark.parametrize("statement", ["SET SESSION AUTHORIZATION postgres", "SET ROLE steep_owner", "TABLE public.events",
                                       "CREATE EXTENSION pgtap", "SET log_statement = 'all'"])
def test_a_role_can_do_nothing_else(statement, role):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        role.execute(statement)


def test_a_session_has_the_roles_settings(role):
    settings = {name: role.execute(f"SHOW {name}").fetchone()[0] for name in (
        "timezone", "datestyle", "default_transaction_isolation", "synchronous_commit", "statement_timeout", "lock_timeout",
        "idle_in_transaction_session_timeout", "log_parameter_max_length", "log_parameter_max_length_on_error")}
    assert settings == {
        "timezone": "UTC", "datestyle": "ISO, YMD", "default_transaction_isolation": "read committed",
        "synchronous_commit": "on", "statement_timeout": "10s", "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "10s", "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0"}


def test_any_other_role_cannot_connect(stack):
    with pytest.raises(psycopg.OperationalError):
        stack.connect(user="service_role").close()
