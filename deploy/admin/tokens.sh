# The tokens of dashboards, and which sources they see. Sourced by steepctl.
# shellcheck shell=sh

check_label() {
	case $1 in
	'' | *[!A-Za-z0-9._-]*)
		refuse "a token's label must consist of letters, digits, dots, underscores and hyphens"
		;;
	esac
	[ "${#1}" -le 64 ] || refuse "a token's label must have at most 64 characters"
}

# trim TEXT: prints it without the white space around it.
trim() {
	trimmed=${1#"${1%%[![:space:]]*}"}
	printf '%s' "${trimmed%"${trimmed##*[![:space:]]}"}"
}

# add_source NAME: adds to $sources, a line each, and to $source_count. The limits are those of
# public.is_scope.
add_source() {
	case $1 in
	'*') refuse 'a source must not be * alone; without --source a token sees all sources, and --all of token scope ends a limit' ;;
	'' | ' '* | *' ' | *[!\ -~]*)
		refuse "a source must be a monitor's name, or its beginning and *: printable ASCII without a space at either end"
		;;
	*'*'?*) refuse 'a source may have a * only at its end' ;;
	esac
	[ "${#1}" -le 255 ] || refuse 'a source must have at most 255 characters'
	source_count=$((source_count + 1))
	[ "$source_count" -le 500 ] || refuse 'a token can have at most 500 sources; a * at the end of a source stands for many'
	sources=$sources${sources:+
}$1
}

# token_add LABEL [--expires DAYS] [--stdin] [--source NAME]...: the options may also come first.
#
# The token stays in the shell's memory and in the output of its builtins: other users can
# read argument lists and environments, and servers log SQL.
token_add() {
	unset label
	days='' is_given='' sources='' source_count=0
	while [ $# -gt 0 ]; do
		case $1:$# in
		--expires:1 | --source:1) misused ;;
		--expires:*)
			check_days "$2"
			days=$2
			shift
			;;
		--source:*)
			add_source "$2"
			shift
			;;
		--stdin:*) is_given=yes ;;
		*)
			[ -z "${label+set}" ] || misused
			label=$1
			;;
		esac
		shift
	done
	[ -n "${label+set}" ] || misused
	check_start "$label" "token's label"
	check_label "$label"
	if [ -n "$is_given" ]; then
		token=$(read_text)
		token=$(trim "$token")
		case $token in
		'' | *[!!-~]*) refuse 'the token must be printable ASCII without spaces, and without the word Bearer' ;;
		esac
		[ "${#token}" -le 4096 ] || refuse 'the token must have at most 4096 characters'
	else
		token=steep_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n')
		[ "${#token}" -eq 49 ] || refuse 'openssl failed to create a token'
	fi
	digest=$(printf '%s' "$token" | openssl dgst -sha256 -r)
	digest=${digest%% *}
	[ "${#digest}" -eq 64 ] || refuse 'openssl failed to compute the SHA-256 of the token'
	added=$(run_sql admin/token-add.sql -v label="$label" -v digest="$digest" -v days="$days" \
		-v sources="$sources")
	case $added:$is_given in
	added:yes) printf 'added token %s\n' "$label" ;;
	added:) printf 'token %s, which will not be shown again: %s\n' "$label" "$token" ;;
	label:* | :*) refuse "token $label already exists; remove it first, or choose another label" ;;
	*) refuse "this token is registered already, with the label ${added#token }" ;;
	esac
}

token_list() {
	run_sql admin/token-list.sql
}

# token_scope LABEL --all | --source NAME...: the options may also come first.
token_scope() {
	unset label
	sources='' source_count=0 is_unlimited=''
	while [ $# -gt 0 ]; do
		case $1:$# in
		--source:1) misused ;;
		--source:*)
			add_source "$2"
			shift
			;;
		--all:*) is_unlimited=yes ;;
		*)
			[ -z "${label+set}" ] || misused
			label=$1
			;;
		esac
		shift
	done
	case ${label+set}:$is_unlimited:$source_count in
	set:yes:0 | set::[1-9]*) ;;
	*) misused ;;
	esac
	check_label "$label"
	changed=$(run_sql admin/token-scope.sql -v label="$label" -v sources="$sources")
	[ -n "$changed" ] || refuse "there is no token $label in the database; a token in VIBETEA_SUBSCRIBER_TOKEN \
always sees all sources"
	printf 'changed scope of token %s\n' "$label"
}

token_remove() {
	check_label "$1"
	removed=$(run_sql admin/token-remove.sql -v label="$1")
	[ -n "$removed" ] || refuse "there is no token $1 in the database; a token in VIBETEA_SUBSCRIBER_TOKEN \
must be removed from the environment of query.fcgi"
	printf 'removed token %s\n' "$1"
}
