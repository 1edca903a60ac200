"""What an administrator does with the installed package, besides setting it up."""

import json
import re

import pytest

from conftest import TOP

# The data model's own table, with events of the last two days.
ORIGINAL = """
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT 'evt_original_' || n, 'mover', date_trunc('hour', now()) - n * interval '1 minute', 'tool', '{}' FROM generate_series(1, 2500) AS n"""


def complete(machine, program, line):
    """What bash offers at the end of a line."""
    script = (f". /usr/share/bash-completion/completions/{program}; COMP_LINE=$1 COMP_POINT=${{#1}}; set -- $1 '';"
              f" _{program.replace('-', '_')} $1 '' $2; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    return set(machine.run("bash", "-c", script, "bash", line).stdout.split())


@pytest.mark.usefixtures("token")
def test_bash_completes_with_the_installed_files(machine):
    assert complete(machine, "steepctl", "steepctl source ") == {"list", "rename", "erase"}
    assert "tester" in complete(machine, "steepctl", "steepctl token remove ")


def test_lists_and_status_are_json(machine, monitor):
    sources = json.loads(machine.run("steepctl", "source", "list", "--json").stdout)["sources"]
    assert next(entry for entry in sources if entry["source"] == monitor.source)["keyCount"] == 1
    assert json.loads(machine.run("steepctl", "--json", "status").stdout)["status"] == "OK"


def test_events_are_exported_removed_and_imported(machine, monitor):
    machine.sql(ORIGINAL)
    script = """
        steepctl events export --source mover >/root/mover.ndjson
        steepctl events import </root/mover.ndjson
        steepctl source erase --yes mover
        steepctl events import </root/mover.ndjson
        PGUSER=postgres steepctl events export --source mover | steepctl events import
        rm /root/mover.ndjson"""
    lines = machine.shell(script).splitlines()
    assert [line for line in lines if line.startswith("events")] == [
        "events read: 2500, inserted: 0, duplicates: 2500, rejected: 0", "events deleted: 2500",
        "events read: 2500, inserted: 2500, duplicates: 0, rejected: 0", "events read: 2500, inserted: 0, duplicates: 2500, rejected: 0"]
    machine.run("steepctl", "counts", "check")
    machine.run("steepctl", "source", "erase", "--yes", "mover")


def test_the_installed_guide_takes_over_an_installation_on_supabase(machine, monitor):
    guide = machine.shell("zcat -f /usr/share/doc/steep/supabase.md*")
    assert "](" not in guide
    credentials, dump, load, custom, take_over, compare = re.findall(r"^```sh\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert "-Fc" in custom
    machine.run("runuser", "-u", "postgres", "--", "createdb", "original")
    machine.sql((TOP / "tests" / "bench" / "seed.sql").read_text() + ORIGINAL, "original")
    environment = ["env", "HOME=/var/tmp/guide", "SUPABASE=host=/var/run/postgresql dbname=original",
                   f"VIBETEA_PUBLIC_KEYS=mover:{monitor.public_base64}", "VIBETEA_SUBSCRIBER_TOKEN=tokenofadashboard"]
    machine.shell("install -d -o postgres /var/tmp/guide")
    done = machine.run("runuser", "-u", "postgres", "--", *environment, "sh", "-euc",
                       f"cd\n{credentials}{dump}{load}{take_over}{compare}").stdout
    assert "events read: 2500, inserted: 2500, duplicates: 0, rejected: 0\n" in done
    assert not re.search(r"^< ", done, re.M), done
    machine.run("runuser", "-u", "postgres", "--", "sh", "-ec", "dropdb supabase; dropdb original; rm -r /var/tmp/guide/*")
    machine.run("steepctl", "token", "remove", "dashboard")
    machine.run("steepctl", "source", "erase", "--yes", "mover")
