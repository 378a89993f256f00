#!/bin/sh
# What any language can do that sends HTTP: which models there are, an answer piece by piece, what is left of the limits.
set -eu

ask() {
    path=$1
    shift
    curl --silent --show-error --fail-with-body --no-buffer "$WEIR_URL/v1/$path" \
        --header "Authorization: Bearer $WEIR_API_KEY" --header "Content-Type: application/json" "$@"
    echo
}

ask models
ask chat/completions --data @- <<EOF
{"model": "$WEIR_MODEL", "stream": true, "messages": [{"role": "user", "content": "Good morning!"}]}
EOF
ask limits
