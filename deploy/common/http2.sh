# HTTP/2 in listen.conf. Since nginx 1.25.1 it is a directive of its own, and the parameter
# of listen is deprecated. Sourced by serve and setup.
# shellcheck shell=sh

# Prints a listen.conf from standard input with HTTP/2 in the form of this machine's nginx.
# Where it is off, it stays off.
http2_form() {
	form=parameter
	! has_http2_directive || form=directive
	awk -v form="$form" '
		/^[ \t]*http2[ \t]+on[ \t]*;/ && ++directives && form == "parameter" { next }
		{ lines[++n] = $0 }
		END {
			for (i = 1; i <= n; i++) {
				line = lines[i]
				parameter = match(line, /^[ \t]*listen[ \t][^;#]*[ \t]http2[ \t;]/)
				if (form == "directive" && parameter) {
					before = substr(line, 1, RLENGTH - 6)
					sub(/[ \t]+$/, "", before)
					line = before substr(line, RLENGTH)
					if (!directives++)
						print "http2 on;"
				} else if (form == "parameter" && directives && !parameter &&
						match(line, /^[ \t]*listen[ \t][^;#]*[ \t]ssl[ \t;]/))
					line = substr(line, 1, RLENGTH - 1) " http2" substr(line, RLENGTH)
				print line
			}
		}'
}

has_http2_directive() {
	version=$(nginx -v 2>&1)
	version=${version#*/}
	[ "$(printf '%s\n' 1.25.1 "${version%% *}" | sort -V | head -n 1)" = 1.25.1 ]
}
