#compdef steepctl
# zsh completion for steepctl: commands, options and values as its usage has them.

local usage line word value list
local -a given lines fields names options expl match mbegin mend

given=(${(Q)words[2,CURRENT-1]})
[[ $given[1] != --json ]] || shift given
fields=($given[1] ${(M)given[2]:#[a-z]*})
usage=$(_call_program commands $words[1] ${(q)fields} --help 2>/dev/null)
# A line for each command, with its description.
lines=(${(M)${(f)usage//$'\n'                    ##/  }:#  *})

word=$given[-1]
if [[ $word == -* && ${(F)lines} == (#b)*[[:space:]\[]$word\ ([A-Z]##)* ]]; then
	value=$match[1]
else
	# What each command has next: a word of its name, or an operand.
	for line in ${lines#  }; do
		fields=(${=line%%  *})
		word=$fields[$#given+1]
		case $word in
		([a-z]*)
			[[ $fields[$#given+2] == [a-z]* || $line != *'  '* ]] || word+=:${${${line#*  }## #}%%  *}
			names+=($word)
			;;
		(\[#[A-Z]*) value=${word//[^A-Z]/} ;;
		esac
	done
	if [[ $PREFIX == -* || -z $value$names ]]; then
		options=(--help)
		(( $#names )) || options+=(${(M)${=lines//[^a-z-]/ }:#--[a-z]*})
		(( $#given )) || options+=(--json)
		_wanted options expl option compadd -a options
		return
	fi
fi

case "$given[1,2] $value" in
(*' ') _describe -t commands command names ;;
(*' FILE'|*' KEY') _files ;;
('token add LABEL') _message label ;;
(*' LABEL') list=token ;;
('monitor '*' NAME') list=monitor ;;
(*' NAME'|*' OLD') list=source ;;
(*) _message ${(L)value} ;;
esac
if [[ -n $list ]]; then
	# Without a terminal, psql fails at once instead of asking for a password.
	names=(${${(f)"$(_call_program names setsid --wait timeout 2 $words[1] $list list '</dev/null' 2>/dev/null)"}%%$'\t'*})
	_wanted names expl ${(L)value} compadd -a names
fi
