# Completion of `dotnet memopt` in bash. In ~/.bashrc:  eval "$(dotnet memopt completion bash)"
_memopt_before=$(complete -p dotnet 2>/dev/null | sed -n 's/.* -F \([^ ]*\).*/\1/p')
[ "$_memopt_before" = _memopt ] && _memopt_before=

_memopt() {
    local line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} found
    COMPREPLY=()
    if [ "${COMP_WORDS[0]##*/}" = dotnet ]; then
        if [ "$COMP_CWORD" -lt 2 ] || [ "${COMP_WORDS[1]}" != memopt ]; then
            # What completed dotnet before this, or the SDK itself.
            if [ -n "$_memopt_before" ]; then
                "$_memopt_before" "$@"
            else
                mapfile -t COMPREPLY < <(compgen -W "$(dotnet complete --position "$COMP_POINT" "$COMP_LINE" 2>/dev/null) memopt" -- "$word")
            fi
            return
        fi
        line="memopt ${line#*memopt}"
        line=${line/memopt  /memopt }
    fi
    # Words that begin with - where one was begun; elsewhere files, when nothing else is known.
    while IFS= read -r found; do
        [[ $found == "$word"* && ($found != -* || $word == -*) ]] && COMPREPLY+=("$found")
    done < <(dotnet memopt "[suggest:${#line}]" "$line" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _memopt dotnet dotnet-memopt
