#!/usr/bin/env bash
# The chart on a cluster of its own: installed, asked by its own test, and every pod replaced twice while streams run through
# the Service. Not one of them may be cut or refused. The cluster is gone afterwards; Docker is all that is needed before.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${IMAGE:?names no image; by hand: make image, then make kind}
cluster=weir-$$
export PATH=$PWD/.tools/bin:$PATH KUBECONFIG=$PWD/build/$cluster.kubeconfig
for program in docker kind kubectl helm; do
    command -v "$program" >/dev/null || { echo "make kind: needs $program (make tools, make tools TOOLS=kind)" >&2; exit 1; }
done

at_the_end() {
    local result=$?
    if [ "$result" != 0 ]; then
        kubectl -n weir get pods,events -o wide || true
        kubectl -n weir logs -l app.kubernetes.io/name=weir --tail=50 --all-containers || true
        kubectl -n weir logs job/load --tail=50 || true
    fi
    kind delete cluster --name "$cluster"
    rm -f "$KUBECONFIG"
}

mkdir -p build
trap at_the_end EXIT
kind create cluster --name "$cluster" --wait 3m
kind load docker-image "$image" --name "$cluster"

key=sk-kind-$(openssl rand -hex 16)
digest=$(printf %s "$key" | sha256sum | cut -d ' ' -f 1)
kubectl create namespace weir
kubectl -n weir create secret generic load --from-literal=key="$key"
kubectl -n weir create configmap load --from-file=deploy/load/streams.py
helm install weir helm/weir -n weir -f deploy/kind/values.yaml --wait --timeout 5m --set "image.repository=${image%:*}" \
    --set-string "image.tag=${image##*:}" \
    --set "config.teams[0].name=load" --set "config.teams[0].keys[0].digest=$digest" \
    --set helmTest.keySecret=load --set helmTest.keySecretKey=key
helm test weir -n weir

sed "s|IMAGE|$image|" deploy/kind/load.yaml | kubectl -n weir apply -f -
kubectl -n weir wait pod -l job-name=load --for=condition=Ready --timeout=1m
for _ in 1 2; do
    kubectl -n weir rollout restart deployment/weir
    kubectl -n weir rollout status deployment/weir --timeout=90s
done
[ "$(kubectl -n weir get job load -o 'jsonpath={.status.active}')" = 1 ] || { echo "the load ended first" >&2; exit 1; }
kubectl -n weir wait job/load --for=condition=Complete --timeout=5m
kubectl -n weir logs job/load
