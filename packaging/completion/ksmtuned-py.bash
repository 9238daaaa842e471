# Tab completion for bash, from the command itself.
eval "$(/usr/bin/ksmtuned-py completion bash 2>/dev/null)"
