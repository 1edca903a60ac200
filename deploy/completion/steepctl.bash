# shellcheck shell=bash
# bash completion for steepctl: commands, options and values as its usage has them.

_steepctl() {
	local IFS=$' \t\n' words current usage line fields word names=() value='' list='' typed=''
	# Unlike COMP_WORDS, these have no backslashes and do not end at colons.
	# shellcheck disable=SC2162
	read -a words <<<"${COMP_LINE:0:COMP_POINT}."
	current=${words[-1]%.}
	words=("${words[@]:1:${#words[@]}-2}")
	[[ ${words[0]-} != --json ]] || words=("${words[@]:1}")
	fields=("${words[@]:0:2}")
	[[ ${fields[1]-} = [a-z]* ]] || unset 'fields[1]'
	usage=$("$1" "${fields[@]}" --help 2>/dev/null | grep '^  ')

	word=${words[*]: -1}
	if [[ $word = -* && $usage =~ [[:space:][]"$word "([A-Z]+) ]]; then
		value=${BASH_REMATCH[1]}
	else
		# What each command has next: a word of its name, or an operand.
		while IFS= read -r line; do
			line=${line#  }
			read -ra fields <<<"${line%%  *}"
			word=${fields[${#words[@]}]-}
			case $word in
			[a-z]*) names+=("$word") ;;
			[[A-Z]*) value=${word//[^A-Z]/} ;;
			esac
		done <<<"$usage"
		if [[ $current = -* || -z $value${names[*]} ]]; then
			value=''
			if [[ ${#names[@]} -eq 0 ]]; then
				mapfile -t names < <(grep -oE -- '--[a-z-]+' <<<"$usage")
			fi
			names+=(--help)
			[[ ${#words[@]} -gt 0 ]] || names+=(--json)
		fi
	fi

	case "${words[*]:0:2} $value" in
	*' FILE' | *' KEY') compopt -o default ;;
	'token add LABEL') ;;
	*' LABEL') list=token ;;
	'monitor '*' NAME') list=monitor ;;
	*' NAME' | *' OLD') list=source ;;
	esac
	if [[ -n $list ]]; then
		# Without a terminal, psql fails at once instead of asking for a password.
		mapfile -t names < <(setsid --wait timeout 2 "$1" "$list" list </dev/null 2>/dev/null | cut -f 1)
	fi

	# bash replaces what it takes for the word, $2.
	[[ -z $current ]] || printf -v typed %q "$current"
	[[ ${#typed} -ge ${#2} ]] || return
	for word in "${names[@]}"; do
		if [[ $word = "$current"* ]]; then
			printf -v word %q "$word"
			COMPREPLY+=("${word:${#typed}-${#2}}")
		fi
	done
}

complete -F _steepctl steepctl
