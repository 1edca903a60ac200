"""The service on the machine, as its clients see it."""

import json

MIGHT_BE_SLOW = "60"


def curl(machine, path, *arguments, **options):
    """The answer's status and body."""
    done = machine.run("curl", "-sS", "--cacert", "/etc/steep/tls/server.crt", "--max-time", MIGHT_BE_SLOW,
                       "-w", "\\n%{http_code}", *arguments, f"https://localhost{path}", **options)
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), body


def post(machine, monitor, events):
    body = json.dumps(events)
    headers = [part for name, value in monitor.headers(body.encode()).items() for part in ("-H", f"{name}: {value}")]
    return curl(machine, "/ingest", *headers, "--data-binary", "@-", input=body)


def query(machine, token, days=7):
    status, body = curl(machine, f"/query?days={days}", "-H", f"Authorization: Bearer {token}")
    return json.loads(body) if status == 200 else (status, body)


def configuration(machine):
    """The files of PostgreSQL that setup changes."""
    return [f"/etc/postgresql/{machine.postgresql}/main/{name}" for name in ("pg_hba.conf", "pg_ident.conf")]


def main_pid(machine, unit):
    return machine.show(unit, "MainPID")


def reload_nginx(machine):
    """Let nginx read its configuration, and wait until no worker has the old one."""
    machine.shell("pid=$(cat /run/nginx.pid); children=/proc/$pid/task/$pid/children; old=$(cat $children); systemctl reload nginx;"
                  " for worker in $old; do while grep -qw $worker $children; do sleep 0.1; done; done")


def drop_in(machine, unit, text):
    """Install a drop-in for a unit; "" removes it."""
    folder = f"/run/systemd/system/{unit}.d"
    if text:
        machine.run("mkdir", "-p", folder)
        machine.run("tee", f"{folder}/test.conf", input=text)
    else:
        machine.run("rm", "-rf", folder)
    machine.run("systemctl", "daemon-reload")
