# Completion of `dotnet memopt` in zsh. In ~/.zshrc:  eval "$(dotnet memopt completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
[[ ${_comps[dotnet]} == _memopt ]] || _memopt_before=${_comps[dotnet]}

_memopt() {
    local line found
    local -a all
    if [[ ${words[1]:t} == dotnet ]]; then
        if (( CURRENT < 3 )) || [[ ${words[2]} != memopt ]]; then
            # What completed dotnet before this, or the SDK itself.
            if [[ -n $_memopt_before ]]; then
                $_memopt_before "$@"
            else
                compadd -- memopt ${(f)"$(dotnet complete "${words[*]}" 2>/dev/null)"}
            fi
            return
        fi
        line="memopt ${words[3,CURRENT]}"
    else
        line="memopt ${words[2,CURRENT]}"
    fi
    # Words that begin with - where one was begun; elsewhere files, when nothing else is known.
    for found in ${(f)"$(dotnet memopt "[suggest:${#line}]" "$line" 2>/dev/null)"}; do
        [[ $found != -* || ${words[CURRENT]} == -* ]] && all+=("$found")
    done
    if (( $#all )); then
        compadd -S '' -- ${(M)all:#*=}
        compadd -- ${all:#*=}
    else
        _files
    fi
}
compdef _memopt dotnet dotnet-memopt
