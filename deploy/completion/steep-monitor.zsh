#compdef steep-monitor
# zsh completion for steep-monitor: commands, options and values as its usage has them.

local usage
local -a names match mbegin mend expl

usage=$(_call_program commands $words[1] --help 2>/dev/null)
# What the usage has after the previous word.
[[ $usage == (#b)*[[:space:]]${(Q)words[CURRENT-1]}\ (\[|)([A-Z]##|[a-z]##\|[a-z|]##)* ]]
case $match[2] in
(''|OPTIONS)
	if [[ $PREFIX == -* ]]; then
		names=(${(M)${=usage//[^a-zA-Z-]/ }:#-*})
		_wanted options expl option compadd -a names
	else
		names=(${${${(M)${(f)usage}:#*\[OPTIONS\] [a-z]*}##*\[OPTIONS\] }%% *})
		_alternative 'commands:command:compadd -a names' 'files:file:_files'
	fi
	;;
(FILE) _files ;;
(DIR) _directories ;;
(*\|*)
	names=(${(s.|.)match[2]})
	_wanted commands expl command compadd -a names
	;;
(*) _message ${(L)match[2]} ;;
esac
