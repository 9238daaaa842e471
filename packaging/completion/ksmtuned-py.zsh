#compdef ksmtuned-py
# Tab completion for zsh, from the command itself.
eval "$(/usr/bin/ksmtuned-py completion zsh 2>/dev/null)" && _shtab_ksmtuned_py "$@"
