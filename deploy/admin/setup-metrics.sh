# The listener for metrics. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # set by setup

metrics_listen=/etc/nginx/snippets/steep/metrics-listen.conf
metrics_listen_ipv6=/etc/nginx/snippets/steep/metrics-listen-ipv6.conf

# Sets $metrics_port. Runs before anything is changed.
check_metrics_port_is_free() {
	metrics_port=$(site_address "$metrics_listen")
	metrics_port=${metrics_port##*:}
	[ -n "$metrics_port" ] || fail "$metrics_listen has no listen directive with a port"
	expect_free_port "$metrics_port" "in $metrics_listen"
}

# nginx does not start if it cannot bind an address, and refuses one that is given twice.
listen_on_local_ipv6() {
	if has_local_ipv6 && ! grep -qE '^[[:space:]]*listen[[:space:]]+\[' "$metrics_listen"; then
		printf '# Written by steepctl setup, as this machine has the address ::1.\nlisten [::1]:%s;\n' "$metrics_port" >"$metrics_listen_ipv6"
	else
		rm -f "$metrics_listen_ipv6"
	fi
}
