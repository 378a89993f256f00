#!/usr/bin/env bash
# Builds the programs that prove the chart and the workflows into .tools/bin, from source by Go, at these versions; once.
# Where something cannot be built it says so and goes on: tests that need it say then what they skip. Given names, it
# builds those; kind only then.
#
# kube-score in the place of kube-linter, whose module the Go proxy does not give out.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# The modules are named for Renovate.
HELM=v4.3.1           # helm.sh/helm/v4
HELM3=v3.22.0         # helm.sh/helm/v3
KUBECONFORM=v0.7.0    # github.com/yannh/kubeconform
KUBE_SCORE=v1.20.0    # github.com/zegl/kube-score
HELM_UNITTEST=v1.1.2  # github.com/helm-unittest/helm-unittest
ACTIONLINT=v1.7.12    # github.com/rhysd/actionlint
KIND=v0.33.0          # sigs.k8s.io/kind

wanted=" ${*:-helm helm3 helm-unittest kubeconform kube-score actionlint} "

bin=$PWD/.tools/bin
mkdir -p "$bin"
missing=0

say_missing() {
    echo "make tools: $1 was not built: $2" >&2
    missing=1
}

# Takes the program's name, its version, and the command that makes it.
once() {
    local name=$1 version=$2
    shift 2
    [[ $wanted == *" $name "* ]] || return 0
    [ -x "$bin/$name" ] && [ "$(cat "$bin/.$name" 2>/dev/null)" = "$version" ] && return
    if ! command -v go >/dev/null; then
        say_missing "$name" "there is no Go; with Go 1.26 or later on the PATH it takes some five minutes"
        return
    fi
    echo "make tools: $name $version (minutes, once)"
    if log=$("$@" 2>&1); then
        echo "$version" >"$bin/.$name"
    else
        say_missing "$name" "$(tail -n 2 <<<"$log")"
    fi
}

helm() {
    GOBIN=$bin go install "helm.sh/helm/v4/cmd/helm@$HELM"
}

# The one before, which many clusters are still installed with.
helm3() {
    GOBIN=$bin/3 go install "helm.sh/helm/v3/cmd/helm@$HELM3" && mv "$bin/3/helm" "$bin/helm3" && rmdir "$bin/3"
}

kubeconform() {
    GOBIN=$bin go install "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM"
}

kube_score() {
    GOBIN=$bin go install "github.com/zegl/kube-score/cmd/kube-score@$KUBE_SCORE"
}

# Its go.mod replaces a module, which `go install` refuses and a build of the module itself does not.
helm_unittest() {
    local source
    source=$(cd / && go mod download -json "github.com/helm-unittest/helm-unittest@$HELM_UNITTEST" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [ -n "$source" ] && go build -C "$source" -o "$bin/helm-unittest" ./cmd/helm-unittest
}

actionlint() {
    GOBIN=$bin go install "github.com/rhysd/actionlint/cmd/actionlint@$ACTIONLINT"
}

kind() {
    GOBIN=$bin go install "sigs.k8s.io/kind@$KIND"
}

for name in "$@"; do
    case $name in helm | helm3 | helm-unittest | kubeconform | kube-score | actionlint | kind) ;; *) say_missing "$name" "nobody here knows how" ;; esac
done
once helm "$HELM" helm
once helm3 "$HELM3" helm3
once kubeconform "$KUBECONFORM" kubeconform
once kube-score "$KUBE_SCORE" kube_score
once helm-unittest "$HELM_UNITTEST" helm_unittest
once actionlint "$ACTIONLINT" actionlint
once kind "$KIND" kind
exit $missing
