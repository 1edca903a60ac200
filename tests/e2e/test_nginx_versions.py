"""What differs between the versions of nginx: the form of HTTP/2 in listen.conf, and what nginx warns of."""

import os
import subprocess

import pytest

from stack import ROOT

SHIPPED = (ROOT / "nginx" / "snippets" / "listen.conf").read_text()
FORMS = {
    "parameter": "listen 127.0.0.1:8443 ssl http2 default_server;\nlisten [::1]:8443 ssl http2 default_server;\nserver_name _;\n",
    "directive": "http2 on;\nlisten 127.0.0.1:8443 ssl default_server;\nlisten [::1]:8443 ssl default_server;\nserver_name _;\n",
}
OFF = "listen 443 ssl; # not http2 yet\n#listen 444 ssl http2;\nhttp2 off;\n"
PLAIN = "listen 127.0.0.1:8080 default_server;\nset_real_ip_from 127.0.0.1;\n"


@pytest.fixture
def form(tmp_path):
    """The text of a listen.conf as http2_form prints it on a machine whose nginx says that it is of this version."""
    def convert(text, version):
        nginx = tmp_path / "nginx"
        nginx.write_text(f"#!/bin/sh\n[ \"$*\" = -v ] && echo 'nginx version: {version}' >&2\n")
        nginx.chmod(0o755)
        return subprocess.run(["sh", "-euc", f". {ROOT}/deploy/common/http2.sh; http2_form"], input=text, text=True, capture_output=True,
                              check=True, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}).stdout

    return convert


@pytest.mark.parametrize("version, expected", [
    ("nginx/1.22.1", "parameter"), ("nginx/1.9.5", "parameter"), ("nginx/1.24.0 (Ubuntu)", "parameter"), ("nginx/1.25.0", "parameter"),
    ("nginx/1.25.1", "directive"), ("nginx/1.26.3", "directive"), ("nginx/1.26.0 (Ubuntu)", "directive"), ("nginx/1.100.0", "directive"),
    ("nginx/2.0", "directive"),
])
@pytest.mark.parametrize("given", FORMS)
def test_http2_has_the_form_of_the_version(given, version, expected, form):
    assert form(FORMS[given], version) == FORMS[expected]


@pytest.mark.parametrize("version", ["nginx/1.22.1", "nginx/1.26.3"])
@pytest.mark.parametrize("text", [OFF, PLAIN, ""], ids=["off", "plain", "empty"])
def test_http2_that_is_off_stays_off(text, version, form):
    assert form(text, version) == text


def test_the_shipped_form_works_everywhere_and_becomes_the_directive(form):
    assert SHIPPED.count(" ssl http2 ") == 2 and form(SHIPPED, "nginx/1.22.1") == SHIPPED
    changed = form(SHIPPED, "nginx/1.26.3")
    assert changed == SHIPPED.replace("\nlisten 443 ssl http2", "\nhttp2 on;\nlisten 443 ssl").replace("ssl http2", "ssl")
    assert form(changed, "nginx/1.22.1") == SHIPPED


def test_only_what_turns_http2_on_is_changed(form):
    given = "\thttp2  on ;\nlisten 80;\n  listen 443 default_server\tssl; # TLS\nlisten 444 ssl http2;\n#http2 on;\n"
    assert form(given, "nginx/1.22.1") == "listen 80;\n  listen 443 default_server\tssl http2; # TLS\nlisten 444 ssl http2;\n#http2 on;\n"
    assert form(given, "nginx/1.26.3") == given.replace("ssl http2", "ssl")


def test_a_host_or_a_comment_may_have_the_name_of_a_parameter(form):
    parameter, directive = "listen http2.test:1 ssl http2; # ssl http2\n", "http2 on;\nlisten http2.test:1 ssl; # ssl http2\n"
    assert form(parameter, "nginx/1.26.3") == directive and form(directive, "nginx/1.22.1") == parameter
    assert form("http2 on;\nlisten ssl.test:1; # ssl\n", "nginx/1.22.1") == "listen ssl.test:1; # ssl\n"


def test_nginx_accepts_the_configuration_without_a_warning(stack):
    done = subprocess.run(["nginx", "-p", "./", "-c", "nginx/nginx.conf", "-t"], cwd=stack.state, text=True, capture_output=True,
                          env={"PATH": f"{os.environ['PATH']}:/usr/sbin"}, **stack.program_user("nginx"))
    said = [line for line in (done.stdout + done.stderr).splitlines()
            if not line.endswith((" syntax is ok", " test is successful"))]
    assert (done.returncode, said) == (0, [])
