"""Starts what compose.yaml says, as docker compose would: each service in namespaces of its own over the image's files,
with its user, command, environment, secrets, volumes, and health. Only the network is one for all, where each service
knows the names of those that share a network with it."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import yaml

import stack

# Deadlines end a hanging test and measure nothing: the machine may be busy.
PATIENCE = 120.0

MAKE_DEV = """
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
	: >"$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs tmpfs "$root/dev/shm"
"""


def seconds(text):
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def interpolate(text, environment):
    """${NAME:-default}"""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: environment.get(match[1]) or match[2], text)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Container:
    """A running service."""

    def __init__(self, name, process, log, configuration):
        self.name, self.process, self.log, self.configuration = name, process, log, configuration

    @property
    def pid(self):
        """Of its first process."""
        return stack.wait_for(lambda: children(self.process.pid), f"{self.name} to start", seconds=PATIENCE)[0]

    def output(self):
        return self.log.read_text(errors="replace")

    def wait(self):
        return self.process.wait(PATIENCE)

    def execute(self, *command, **options):
        """docker compose exec"""
        return subprocess.run(["nsenter", "-t", str(self.pid), "--mount", "--pid", "--net", "--ipc", "--uts", "--root", "--wd",
                               *self.configuration.in_root(command)], timeout=PATIENCE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **({"stdin": subprocess.DEVNULL, "text": True} | options))

    def stop(self):
        if self.process.poll() is None:
            for pid in children(self.process.pid):
                os.kill(pid, self.configuration.stop_signal)
            try:
                self.process.wait(seconds(self.configuration.service.get("stop_grace_period", "10s")))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Configuration:
    """What the image and the service say together."""

    def __init__(self, service, image):
        self.service, self.image = service, image
        self.environment = dict(item.split("=", 1) for item in image["Env"]) | {
            name: str(value) for name, value in service.get("environment", {}).items()}
        self.stop_signal = getattr(signal, service.get("stop_signal", image.get("StopSignal", "SIGTERM")))

    def command(self, arguments):
        return [*self.service.get("entrypoint", self.image["Entrypoint"]), *arguments]

    def in_root(self, command):
        """As the image's user, in its folder, with the environment and nothing else of the host's."""
        user, group = self.image["User"].split(":")
        rights = ["--bounding-set=-all", "--inh-caps=-all"] if "ALL" in self.service.get("cap_drop", []) else []
        if "no-new-privileges:true" in self.service.get("security_opt", []):
            rights.append("--no-new-privs")
        return ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *rights, "--",
                "/usr/bin/env", "-i", f"--chdir={self.image['WorkingDir']}",
                *(f"{name}={value}" for name, value in self.environment.items()), *command]


class Compose:
    def __init__(self, file, roots, images, folder, **environment):
        """roots and images: the root and the configuration of each image, by its name."""
        self.file = file
        self.text = interpolate(file.read_text(), environment)
        self.model = yaml.safe_load(self.text)
        self.services = self.model["services"]
        self.roots, self.images, self.folder = roots, images, folder
        self.running = {}
        # Not of 127.0.0.0/8, which PostgreSQL trusts.
        addresses = " && ".join(f"ip address add {self.address(name)}/32 dev lo" for name in self.services)
        self.namespace = subprocess.Popen(["unshare", "--net", "sh", "-c", f"ip link set lo up && {addresses} && echo up && exec sleep infinity"],
                                          stdout=subprocess.PIPE, text=True)
        assert self.namespace.stdout.readline() == "up\n"

    def network(self, *command):
        """A command of the host, at the ports of the services."""
        return ["nsenter", f"--net=/proc/{self.namespace.pid}/ns/net", "--", *command]

    def address(self, name):
        return f"192.0.2.{1 + list(self.services).index(name)}"

    def hosts(self, name):
        known = [other for other in self.services if set(self.services[other]["networks"]) & set(self.services[name]["networks"])]
        return "127.0.0.1 localhost\n" + "".join(f"{self.address(other)} {other}\n" for other in known)

    def mounts(self, name):
        """The lines that make the root of a service at $root, and what must exist in the image for them."""
        service, image_root = self.services[name], self.roots[self.services[name]["image"]]
        binds = [(self.folder / f"{name}.hosts", "/etc/hosts", "ro")]
        volumes = [(volume + ":rw").split(":")[:3] for volume in service.get("volumes", [])]
        for source, target, mode in sorted(volumes, key=lambda volume: volume[1]):
            assert source in self.model["volumes"]
            binds.append((self.volume(source, image_root / target.lstrip("/")), target, mode))
        for secret in service.get("secrets", []):
            source = self.file.parent / self.model["secrets"][secret]["file"]
            assert source.is_file(), f"bind source path does not exist: {source}"
            binds.append((source, f"/run/secrets/{secret}", "ro"))
        lines = [f'root={self.folder}/{name}.root; mkdir -p "$root"; mount --make-rprivate /; mount --bind {image_root} "$root"']
        for source, target, mode in binds:
            place = image_root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                place.mkdir(exist_ok=True)
            elif not place.exists():
                place.touch()
            lines.append(f'mount --bind {source} "$root{target}"; mount -o remount,bind,{mode} "$root{target}"')
        for tmpfs in service.get("tmpfs", []):
            target, _, options = tmpfs.partition(":")
            lines.append(f'mount -t tmpfs -o mode=1777,nosuid,nodev,noexec,{options} tmpfs "$root{target}"')
        lines.append(MAKE_DEV)
        lines.append('mount -t proc proc "$root/proc"')
        if service.get("read_only"):
            lines.append('mount -o remount,bind,ro "$root"')
        return lines

    def volume(self, name, content):
        """A named volume; a new one has the owner, the mode and the files that the image has there."""
        volume = self.folder / "volumes" / name
        if not volume.exists():
            volume.parent.mkdir(exist_ok=True)
            if content.is_dir():
                subprocess.run(["cp", "-a", str(content), str(volume)], check=True)
            else:
                volume.mkdir()
        return volume

    def start(self, name, *command, stdin=subprocess.DEVNULL, **environment):
        """docker compose run, without what it depends on; command replaces the service's."""
        service = self.services[name] | {"environment": self.services[name].get("environment", {}) | environment}
        configuration = Configuration(service, self.images[service["image"]])
        (self.folder / f"{name}.hosts").write_text(self.hosts(name))
        script = "\n".join([*self.mounts(name), 'exec chroot "$root" ' + shlex.join(
            configuration.in_root(configuration.command(command or service.get("command", []))))])
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            # The user may open it again, by /dev/stdout.
            os.fchown(output.fileno(), *map(int, configuration.image["User"].split(":")))
            process = subprocess.Popen(self.network("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
                                                    "sh", "-euc", script), stdin=stdin, stdout=output, stderr=output)
        return Container(name, process, log, configuration)

    def run(self, name, *command, **options):
        """docker compose run --rm: its status and its output."""
        container = self.start(name, *command, **options)
        return container.wait(), container.output()

    def is_healthy(self, name):
        container = self.running[name]
        assert container.process.poll() is None, f"{name} ended:\n{container.output()}"
        how, *command = self.services[name]["healthcheck"]["test"]
        assert how == "CMD"
        return container.execute(*command).returncode == 0

    def wait_for_health(self, name):
        stack.wait_for(lambda: self.is_healthy(name), f"{name} to be healthy", seconds=PATIENCE, every=0.3)

    def up(self, *names):
        """docker compose up: starts the services, or those named, after what they depend on."""
        for name in names or [name for name, service in self.services.items() if "profiles" not in service]:
            self.need(name)

    def need(self, name):
        if name in self.running:
            return
        for other, how in self.services[name].get("depends_on", {}).items():
            self.need(other)
            container = self.running[other]
            if how["condition"] == "service_healthy":
                self.wait_for_health(other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert container.wait() == 0, f"{other}:\n{container.output()}"
        self.running[name] = self.start(name)

    def restart(self, name):
        self.running[name].stop()
        self.running[name] = self.start(name)

    def down(self):
        for name in reversed(list(self.running)):
            self.running.pop(name).stop()
        self.namespace.kill()
        self.namespace.wait()
