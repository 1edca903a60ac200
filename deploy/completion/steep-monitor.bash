# shellcheck shell=bash
# bash completion for steep-monitor: commands, options and values as its usage has them.

_steep_monitor() {
	local IFS=$' \t\n' usage words='' files=''
	usage=$("$1" --help 2>/dev/null)
	# What the usage has after the previous word.
	[[ $usage =~ [[:space:]]"$3 "\[?([A-Z]+|[a-z]+(\|[a-z]+)+) ]]
	case ${BASH_REMATCH[1]-} in
	'' | OPTIONS)
		if [[ $2 = -* ]]; then
			words=$(grep -oE ' --?[a-zA-Z-]+' <<<"$usage")
		else
			words=$(grep -oP '\[OPTIONS\] \K[a-z]+' <<<"$usage")
			files=yes
			compopt -o filenames -o default
		fi
		;;
	FILE) compopt -o default ;;
	DIR) compopt -o dirnames ;;
	*\|*) words=${BASH_REMATCH[1]//|/ } ;;
	esac
	mapfile -t COMPREPLY < <(compgen ${files:+-f} -W "$words" -- "$2")
}

complete -F _steep_monitor steep-monitor
