"""A proxy in front of an installation that serves it at a sub-path: nginx, configured as documented."""

import contextlib
import re
import subprocess

import httpx

from stack import ROOT, free_port, reachable_folder, wait_for


def documented(title, language="nginx"):
    """A block of this section of the operator's README."""
    section = re.search(rf"^### {title}$(.*?)^##", (ROOT / "deploy" / "README.md").read_text(), re.M | re.S)[1]
    return re.search(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)[1]


def base_url_setting():
    """The documented setting of the page for a sub-path."""
    return re.fullmatch(r'set \$steep_base_url "(.*)";\n', documented("At a sub-path"))[1]


@contextlib.contextmanager
def at_a_sub_path(stack):
    """The address of a proxy that passes on what is below /steep/."""
    port = free_port()
    location = documented("Behind a proxy").replace("location / {", "location /steep/ {")
    location = location.replace("http://127.0.0.1:8080/", f"https://127.0.0.1:{stack.port}/")
    folder = reachable_folder("proxy")
    (folder / "nginx.conf").write_text(f"""
        daemon off;
        pid nginx.pid;
        error_log error.log;
        events {{ }}
        http {{
            access_log off;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {stack.state}/tls/server.crt;
                ssl_certificate_key {stack.state}/tls/server.key;
                {location}
            }}
        }}""")
    with subprocess.Popen(["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"], stdin=subprocess.DEVNULL) as process:
        try:
            with httpx.Client(verify=stack.tls, trust_env=False) as client:
                wait_for(lambda: answers(client, f"https://localhost:{port}/steep/"), "the proxy to answer")
            yield f"https://localhost:{port}"
        finally:
            process.terminate()
            process.wait()
            subprocess.run(["rm", "-rf", str(folder)], check=True)


def answers(client, url):
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False
