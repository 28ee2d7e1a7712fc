"""What shells are told so that they complete ``llmproxyctl``."""

from __future__ import annotations

from collections.abc import Mapping

# ":" and "=" end a word for bash: pieces that touch in the line are put together again.
_BASH = r"""# Completion of llmproxyctl for bash:  source <(llmproxyctl completion bash)

_llmproxyctl() {
    local rest="${COMP_LINE:0:COMP_POINT}" touching piece word lead one index
    local -a words=() found=()
    for ((index = 0; index <= COMP_CWORD; index++)); do
        touching=""
        [[ -n "$rest" && "$rest" != [[:space:]]* ]] && touching=yes
        rest="${rest#"${rest%%[![:space:]]*}"}"
        piece="${COMP_WORDS[index]}"
        ((index == COMP_CWORD)) && piece="$rest"
        if [[ -n "$touching" && ${#words[@]} -gt 0 ]]; then
            words[${#words[@]}-1]+="$piece"
        else
            words+=("$piece")
        fi
        rest="${rest#"$piece"}"
    done
    word="${words[${#words[@]}-1]}"
    [[ "$piece" == [=:] ]] && piece=""
    COMPREPLY=()
    while IFS= read -r one; do
        found+=("$one")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
    if [[ "${found[0]-}" == ":files" ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r one; do
            COMPREPLY+=("$one")
        done < <(compgen -f -- "$piece")
        return
    fi
    # What stands before the last piece is there already.
    lead="${word%"$piece"}"
    for one in ${found[@]+"${found[@]}"}; do
        [[ "$one" == *= ]] && compopt -o nospace 2>/dev/null
        COMPREPLY+=("${one#"$lead"}")
    done
}

complete -F _llmproxyctl llmproxyctl
"""

_ZSH = r"""#compdef llmproxyctl
# Completion of llmproxyctl for zsh:  source <(llmproxyctl completion zsh)

_llmproxyctl() {
    local -a found
    found=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ "${found[1]}" == ":files" ]]; then
        _files
        return
    fi
    local -a open=("${(@M)found:#*=}") whole=("${(@)found:#*=}")
    [[ -n "${open[1]}" ]] && compadd -S '' -- "${open[@]}"
    [[ -n "${whole[1]}" ]] && compadd -- "${whole[@]}"
}

if [[ "$funcstack[1]" == "_llmproxyctl" ]]; then
    _llmproxyctl "$@"
else
    compdef _llmproxyctl llmproxyctl
fi
"""

_FISH = r"""# Completion of llmproxyctl for fish:  llmproxyctl completion fish | source

function __llmproxyctl_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    test (count $last) -eq 0; and set last ""
    set -l found ($words[1] __complete -- $words[2..] $last 2>/dev/null)
    if test "$found[1]" = ":files"
        __fish_complete_path (commandline -ct)
        return
    end
    printf '%s\n' $found
end

complete -c llmproxyctl -f -a '(__llmproxyctl_complete)'
"""

SCRIPTS: Mapping[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""By the name of the shell."""
